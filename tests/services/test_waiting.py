"""A night that nothing starts, or whose workers find no node, says what it waits for, and no longer than it does."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from in_memory import MemoryFleet, MemoryLauncher, Night, Service, running

from actors import names
from services.settings import Settings


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
