"""A night that nothing starts, or whose workers find no node, says what it waits for, and no longer than it does."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from in_memory import MemoryFleet, MemoryLauncher, Night, Service, running
from sqlalchemy import select, update

from actors import names
from services.settings import Settings
from services.tables import Sleep


@pytest.fixture
def asleep(settings: Settings, base: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Service, Night]]:
    """A night that the cluster has taken, and does not start, where nodes have roles."""
    monkeypatch.setenv(names.ROLES_VARIABLE, "1")
    impatient = settings.model_copy(update={"job_pending_seconds": 0.01})
    with running(impatient, base, MemoryFleet(), MemoryLauncher(pending=True)) as service:
        service.deploy()
        service.tell()
        yield service, service.sleep()[1]


def waits(service: Service, night: Night) -> str | None:
    return service.get_sleep(night.sleep)["waiting"]


def said(service: Service, night: Night) -> list[dict[str, Any]]:
    return [event for event in service.events(night.sleep) if event["type"] == "sleep.waiting"]


def test_a_night_that_the_cluster_does_not_start_says_once_what_it_waits_for(asleep: tuple[Service, Night]) -> None:
    service, night = asleep
    service.until(lambda: waits(service, night))
    expected = "waits for the cluster to start its driver: it asks for a node that offers circadian_learner"
    assert (waits(service, night) or "").startswith(expected)
    assert service.get_sleep(night.sleep)["queue_state"] == "paused_capacity"
    assert service.status()["waiting"] == waits(service, night)
    service.launcher.pending = False
    night.log.emit("sleep.stage_started", "collect", stage="collect")
    service.until(lambda: service.get_sleep(night.sleep)["phase"] == "collect")
    assert (waits(service, night), len(said(service, night))) == (None, 1)


def test_a_night_that_waits_for_its_workers_says_so_until_it_goes_on(asleep: tuple[Service, Night]) -> None:
    service, night = asleep
    service.until(lambda: waits(service, night))
    service.launcher.pending = False
    why = "waits for rollout workers: no node of the cluster offers circadian_rollout 0.001"
    night.log.emit("sleep.waiting", why, waiting=why, room={"CPU": 1.0})
    service.until(lambda: waits(service, night) == why)
    night.log.emit("sleep.progress", "", step=1, total_steps=2, task="seeding")
    service.until(lambda: waits(service, night) is None)
    night.end("no_op")
    assert service.ended(night.sleep)["waiting"] is None


LONG = 1_000_000.0
"""Seconds: far more than any limit."""


def pending_for_long(service: Service, night: Night) -> None:
    """It ran for a second after it was submitted, and has been pending since."""
    service.until(lambda: waits(service, night))
    then = time.time() - LONG
    with service.controller.database.write() as tx:
        tx.execute(update(Sleep).where(Sleep.id == night.sleep).values(began_at=then - 1.0, pending_since=then))


def test_what_a_night_waits_for_its_cluster_is_nothing_that_it_spends(settings: Settings, base: Path) -> None:
    patient = settings.model_copy(update={"job_pending_seconds": 0.01, "night_seconds": 2 * LONG})
    with running(patient, base, MemoryFleet(), MemoryLauncher(pending=True)) as service:
        service.deploy()
        service.tell()
        sleep, night = service.sleep(budget={"max_wall_seconds": 1000.0})
        pending_for_long(service, night)
        service.launcher.pending = False
        night.end("no_op")
        ended = service.ended(sleep["id"])
        assert ended["status"] == "succeeded"
        assert 1.0 <= ended["spent"]["wall_seconds"] < 900.0


def test_a_night_that_is_paused_while_it_waits_for_its_cluster_waits_no_more(asleep: tuple[Service, Night]) -> None:
    service, night = asleep
    service.until(lambda: waits(service, night))
    with service.controller.database.read() as tx:
        since = tx.scalar(select(Sleep.pending_since).where(Sleep.id == night.sleep))
    assert service.client.post(f"/v1/sleeps/{night.sleep}/pause", json={"checkpoint": "latest"}).status_code == 202
    service.until(lambda: service.get_sleep(night.sleep)["status"] == "paused")
    with service.controller.database.read() as tx:
        stands = tx.execute(select(Sleep.pending_since, Sleep.paused_at).where(Sleep.id == night.sleep)).one()
    assert tuple(stands) == (None, since), "it has stood still since it began to wait, and nobody is called for that"


def test_a_night_that_no_cluster_begins_is_given_up_and_says_what_it_waited_for(asleep: tuple[Service, Night]) -> None:
    service, night = asleep
    pending_for_long(service, night)
    error = service.ended(night.sleep)["error"]
    assert error["code"] == "no_capacity"
    assert "waits for the cluster to start its driver" in error["message"]


def test_a_night_whose_job_the_cluster_does_not_take_says_why(settings: Settings, base: Path) -> None:
    with running(settings, base, MemoryFleet(), MemoryLauncher(submission="lost")) as service:
        service.deploy()
        service.tell()
        sleep = service.client.post("/v1/sleeps", json={"deployment": "toy"}).json()["id"]
        service.until(lambda: service.get_sleep(sleep)["waiting"])
        assert service.get_sleep(sleep)["waiting"] == "waits for the cluster to take its job: no answer"
        service.launcher.submission = "confirmed"
        service.until(lambda: service.get_sleep(sleep)["status"] == "preparing")
        assert service.get_sleep(sleep)["waiting"] is None
