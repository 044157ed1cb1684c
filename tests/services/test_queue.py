"""Nights wait in line for the cluster: first come, first served, told by the sleep, kept in the database."""

from __future__ import annotations

from pathlib import Path

import pytest
from in_memory import MemoryFleet, MemoryLauncher, Night, Service, running
from sqlalchemy import update

from services.plan import InLine, ahead
from services.settings import Settings
from services.tables import Sleep


@pytest.mark.parametrize(
    ("line", "at_once", "first"),
    [
        ("x", 1, ""),
        ("Ax", 1, "A"),
        ("ax", 1, "a"),
        ("xb", 1, ""),
        ("xB", 1, "B"),
        ("Abx", 1, "Ab"),
        ("Ax", 2, ""),
        ("Abx", 2, "Ab"),
        ("ABx", 2, "AB"),
        ("axb", 2, ""),
    ],
)
def test_whom_a_sleep_waits_for(line: str, at_once: int, first: str) -> None:
    """Capital letters have begun."""
    found = ahead([InLine(name, begun=name.isupper()) for name in line], "x", at_once)
    assert sorted(found) == sorted(first)


def begin(service: Service, name: str) -> str:
    """A sleep of a new deployment."""
    service.deploy(name)
    service.tell(deployment=name)
    return service.client.post("/v1/sleeps", json={"deployment": name}).json()["id"]


def runs(service: Service, sleep: str) -> bool:
    return any(name.startswith(sleep) for name in service.launcher.jobs)


def test_a_second_deployments_night_waits_for_the_first_and_says_so(settings: Settings, base: Path) -> None:
    fleet, launcher = MemoryFleet(), MemoryLauncher()
    with running(settings, base, fleet, launcher) as service:
        one, two = begin(service, "one"), begin(service, "two")
        service.until(lambda: service.get_sleep(two)["waiting"] is not None)
        told = service.get_sleep(two)
        assert (told["status"], told["attempt"], told["queue_state"]) == ("queued", 0, "paused_capacity")
        assert one in told["waiting"]
        assert service.status("two")["waiting"] == told["waiting"]
        with service.controller.database.write() as tx:  # time in the line is not time of the night
            tx.execute(update(Sleep).where(Sleep.id == two).values(created_at=0.0))
    with running(settings, base, fleet, launcher) as service:
        service.until(lambda: service.get_sleep(one)["status"] == "preparing")
        assert not runs(service, two)
        Night(launcher, one).end("no_op")
        service.until(lambda: runs(service, two))
        Night(launcher, two).end("no_op")
        ended = service.ended(two)
        assert (ended["status"], ended["queue_state"], ended["waiting"]) == ("succeeded", None, None)
        kinds = [event["type"] for event in service.events(two)]
        assert kinds == ["sleep.queued", "sleep.waiting", "sleep.started", "sleep.succeeded"]


def test_who_leaves_the_line_makes_room_for_the_next(service: Service) -> None:
    one, two, three = (begin(service, name) for name in ("one", "two", "three"))
    service.until(lambda: runs(service, one))
    service.until(lambda: two in (service.get_sleep(three)["waiting"] or ""))
    service.client.post(f"/v1/sleeps/{two}/cancel")
    assert service.ended(two)["status"] == "cancelled"
    Night(service.launcher, one).end("no_op")
    service.until(lambda: runs(service, three))
    assert not runs(service, two)


def test_as_many_nights_run_as_the_operator_allows(settings: Settings, base: Path) -> None:
    with running(settings.model_copy(update={"nights_at_once": 2}), base, MemoryFleet(), MemoryLauncher()) as service:
        sleeps = [begin(service, name) for name in ("one", "two", "three")]
        service.until(lambda: runs(service, sleeps[0]) and runs(service, sleeps[1]))
        service.until(lambda: service.get_sleep(sleeps[2])["waiting"] is not None)
        assert not runs(service, sleeps[2])
