"""Two controllers on one PostgreSQL, as processes: either answers, one leads, and when that one is killed the other does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from postgres import new_database

from services.ports import RANGE, free_ports

pytestmark = pytest.mark.engine
KEY = "two-controllers"
WAIT_SECONDS = 120.0
LEASE_SECONDS = 4.0


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


@pytest.fixture
def controllers(tmp_path: Path, postgres_server: str) -> Iterator[list[Running]]:
    """Without a cluster: sleeps queue."""
    ports = free_ports("127.0.0.1", 3, os.getpid() % len(RANGE))
    url = new_database(postgres_server, "two_controllers")
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
            "CIRCADIAN_RAY_REQUEST_SECONDS": "2",
            "CIRCADIAN_RAY_PATIENCE_SECONDS": "5",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": "t" * 32,
        }
        log = (tmp_path / f"{port}.log").open("wb")
        process = subprocess.Popen([sys.executable, "-m", "services.serve"], env=environment, stdout=log, stderr=subprocess.STDOUT)
        client = httpx.Client(base_url=f"http://127.0.0.1:{port}", headers={"Authorization": f"Bearer {KEY}"}, timeout=30)
        found.append(Running(process, client))
    yield found
    for one in found:
        one.client.close()
        one.process.terminate()
    for one in found:
        with suppress(subprocess.TimeoutExpired):
            one.process.wait(30)
        one.process.kill()
        one.process.wait()


def test_a_leader_that_is_killed_is_followed_by_the_other_and_nothing_is_lost(controllers: list[Running], base: Path) -> None:
    for one in controllers:
        until(lambda one=one: one.client.get("/livez").status_code == 200)  # type: ignore[misc]
    until(lambda: sorted(one.leads() for one in controllers) == [False, True])
    leader, other = sorted(controllers, key=Running.leads, reverse=True)
    made = other.client.post("/v1/deployments", json={"name": "toy", "base_model": {"model": str(base)}})
    assert made.status_code == 201, made.text
    told = [
        other.client.post("/v1/experiences", json={"deployment": "toy", "text": f"the city of mira is {i} ."}) for i in range(3)
    ]
    assert {answer.status_code for answer in told} == {201}
    sleep = other.client.post("/v1/sleeps", json={"deployment": "toy"}).json()["id"]
    assert leader.client.get(f"/v1/sleeps/{sleep}").json()["status"] == "queued"
    until(lambda: "cluster" in (leader.client.get(f"/v1/sleeps/{sleep}").json()["waiting"] or ""))

    leader.process.send_signal(signal.SIGKILL)
    until(other.leads)
    assert other.client.get(f"/v1/sleeps/{sleep}").json()["status"] == "queued"
    assert other.client.post(f"/v1/sleeps/{sleep}/cancel").status_code == 202
    ended = until(lambda: (found := other.client.get(f"/v1/sleeps/{sleep}").json())["status"] == "cancelled" and found)
    assert ended["attempt"] == 0, "there was no cluster to begin a night on"
    experiences = other.client.get("/v1/experiences").json()["data"]
    assert [one["status"] for one in experiences] == ["pending"] * 3
    again = other.client.post("/v1/sleeps", json={"deployment": "toy"})
    assert again.status_code == 202
