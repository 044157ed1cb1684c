"""Two controllers on one PostgreSQL, as processes: either answers, one leads, and when that one is killed the other does.

It does so with what came due while nobody led, too: a time of the clock, and a number of experiences.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from in_memory import KEY, MemoryFleet, MemoryLauncher, running
from postgres import new_database

from services.ports import RANGE, free_ports
from services.settings import Settings

pytestmark = pytest.mark.engine
WAIT_SECONDS = 120.0
LEASE_SECONDS = 4.0
MINUTE = 60
AWAY_SECONDS = 5.0 * MINUTE
"""For which nobody has looked, as the rows tell it: a minute of the clock is too long to wait for in a test."""
COUNT, LOOKS = 3, 3


@dataclass
class Running:
    """A controller's process, and a client with the key."""

    process: subprocess.Popen[bytes]
    client: httpx.Client

    def leads(self) -> bool:
        return self.client.get("/readyz").json()["leads"]


def until(condition: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + WAIT_SECONDS
    while True:
        with suppress(httpx.TransportError):
            if found := condition():
                return found
        assert time.monotonic() < deadline, "it did not come to that in time"
        time.sleep(0.2)


@contextmanager
def two_controllers(tmp_path: Path, url: str) -> Iterator[list[Running]]:
    """Without a cluster: sleeps queue."""
    ports = free_ports("127.0.0.1", 3, os.getpid() % len(RANGE))
    found = []
    for port in ports[:2]:
        environment = os.environ | {
            "CIRCADIAN_HOME": str(tmp_path / "home"),
            "CIRCADIAN_DATABASE_URL": url,
            "CIRCADIAN_API_KEY": KEY,
            "CIRCADIAN_PORT": str(port),
            "CIRCADIAN_RAY_ADDRESS": f"127.0.0.1:{ports[2]}",
            "CIRCADIAN_RAY_DASHBOARD": f"http://127.0.0.1:{ports[2]}",
            "CIRCADIAN_LEASE_SECONDS": str(LEASE_SECONDS),
            "CIRCADIAN_SCHEDULE_SECONDS": "0.2",
            "CIRCADIAN_RAY_REQUEST_SECONDS": "2",
            "CIRCADIAN_RAY_PATIENCE_SECONDS": "5",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": "t" * 32,
        }
        log = (tmp_path / f"{port}.log").open("wb")
        process = subprocess.Popen([sys.executable, "-m", "services.serve"], env=environment, stdout=log, stderr=subprocess.STDOUT)
        client = httpx.Client(base_url=f"http://127.0.0.1:{port}", headers={"Authorization": f"Bearer {KEY}"}, timeout=30)
        found.append(Running(process, client))
    try:
        yield found
    finally:
        for one in found:
            one.client.close()
            one.process.terminate()
        for one in found:
            with suppress(subprocess.TimeoutExpired):
                one.process.wait(30)
            one.process.kill()
            one.process.wait()


def leader_and_other(controllers: list[Running]) -> tuple[Running, Running]:
    """Once both answer and one leads."""
    for one in controllers:
        until(lambda one=one: one.client.get("/livez").status_code == 200)  # type: ignore[misc]
    until(lambda: sorted(one.leads() for one in controllers) == [False, True])
    leader, other = sorted(controllers, key=Running.leads, reverse=True)
    return leader, other


def found(settings: Settings, base: Path, *names: str) -> None:
    """By a controller that has ended before the two begin: without a cluster nobody looks into a model."""
    with running(settings, base, MemoryFleet(), MemoryLauncher()) as service:
        for name in names:
            service.deploy(name)


def told(controller: Running, deployment: str, numbers: Iterable[int]) -> None:
    for i in numbers:
        body = {"deployment": deployment, "text": f"the city of mira is {i} ."}
        assert controller.client.post("/v1/experiences", json=body).status_code == 201


def scheduled(controller: Running, deployment: str, trigger: dict[str, Any]) -> str:
    made = controller.client.post("/v1/schedules", json={"deployment": deployment, "trigger": {"any_of": [trigger]}})
    assert made.status_code == 201, made.text
    return made.json()["id"]


def considered(url: str, *schedules: str) -> list[float]:
    """When each was last looked at."""
    with psycopg.connect(url) as connection:
        rows = dict(connection.execute("SELECT id, considered_at FROM schedules").fetchall())
    return [rows[id] or 0.0 for id in schedules]


def put_back(url: str, seconds: float, schedule: str) -> None:
    """The schedule was made, and last looked at, so much earlier than it was."""
    with psycopg.connect(url) as connection:
        connection.execute(
            "UPDATE schedules SET created_at = created_at - %(s)s, considered_at = considered_at - %(s)s WHERE id = %(id)s",
            {"s": seconds, "id": schedule},
        )


@contextmanager
def nobody_leads(url: str, leader: Running) -> Iterator[None]:
    """The leader is killed, and until the end of this no other takes its place, however slow the test is: it would have to write the row
    of the lease."""
    with psycopg.connect(url) as connection:
        connection.execute("SELECT * FROM leadership FOR UPDATE")
        leader.process.send_signal(signal.SIGKILL)
        leader.process.wait()
        yield


@dataclass
class Followed:
    """A leader was killed while a sleep was queued and two schedules were made, which came due then; the other controller leads."""

    url: str
    other: Running
    sleep: str
    minute: float
    """Of the clock, for which one schedule waited."""
    schedules: dict[str, str]
    """By their triggers."""


@pytest.fixture(scope="module")
def followed(tmp_path_factory: pytest.TempPathFactory, postgres_server: str, base: Path) -> Iterator[Followed]:
    url = new_database(postgres_server, "two_controllers")
    folder = tmp_path_factory.mktemp("two")
    found(Settings(home=folder / "home", database_url=url, api_key=KEY), base, "toy", "cron", "experience-count")
    with two_controllers(folder, url) as controllers:
        leader, other = leader_and_other(controllers)
        told(other, "toy", range(3))
        sleep = other.client.post("/v1/sleeps", json={"deployment": "toy"}).json()["id"]
        assert leader.client.get(f"/v1/sleeps/{sleep}").json()["status"] == "queued"

        minute = (time.time() - AWAY_SECONDS / 2) // MINUTE * MINUTE
        cron = {"type": "cron", "expr": f"{time.gmtime(minute).tm_min} * * * *"}
        schedules = {}
        for trigger in (cron, {"type": "experience_count", "count": COUNT}):
            name = str(trigger["type"]).replace("_", "-")
            schedules[str(trigger["type"])] = scheduled(other, name, trigger)
            told(other, name, range(COUNT - 1))
        until(lambda: "cluster" in (leader.client.get(f"/v1/sleeps/{sleep}").json()["waiting"] or ""))
        until(lambda: all(considered(url, *schedules.values())))

        with nobody_leads(url, leader):
            put_back(url, AWAY_SECONDS, schedules["cron"])
            told(other, "experience-count", [COUNT])
            assert not other.leads()
        until(other.leads)
        yield Followed(url, other, sleep, minute, schedules)


def test_a_leader_that_is_killed_is_followed_by_the_other_and_nothing_is_lost(followed: Followed) -> None:
    client, sleep = followed.other.client, followed.sleep
    assert client.get(f"/v1/sleeps/{sleep}").json()["status"] == "queued"
    assert client.post(f"/v1/sleeps/{sleep}/cancel").status_code == 202
    ended = until(lambda: (found := client.get(f"/v1/sleeps/{sleep}").json())["status"] == "cancelled" and found)
    assert ended["attempt"] == 0, "there was no cluster to begin a night on"
    experiences = client.get("/v1/experiences", params={"deployment": "toy"}).json()["data"]
    assert [one["status"] for one in experiences] == ["pending"] * 3
    again = client.post("/v1/sleeps", json={"deployment": "toy"})
    assert again.status_code == 202


@pytest.mark.parametrize("trigger", ["cron", "experience_count"])
def test_what_came_due_while_nobody_led_begins_one_sleep(followed: Followed, trigger: str) -> None:
    client, schedule = followed.other.client, followed.schedules[trigger]
    until(lambda: client.get(f"/v1/schedules/{schedule}/runs").json()["data"])
    for _ in range(LOOKS):
        (before,) = considered(followed.url, schedule)
        until(lambda before=before: considered(followed.url, schedule)[0] > before)  # type: ignore[misc]
    (run,) = client.get(f"/v1/schedules/{schedule}/runs").json()["data"]
    assert (run["outcome"], run["trigger"]) == ("fired", trigger), run
    assert trigger != "cron" or run["due_at"] == followed.minute
    sleeps = client.get("/v1/sleeps", params={"deployment": deployment_of(client, schedule)}).json()["data"]
    assert [sleep["id"] for sleep in sleeps] == [run["sleep"]]


def deployment_of(client: httpx.Client, schedule: str) -> str:
    """The schedule's deployment."""
    return client.get(f"/v1/schedules/{schedule}").json()["deployment"]
