"""No night outlives its sleep: a job that could not be stopped when its sleep ended is stopped later."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from in_memory import MemoryFleet, MemoryLauncher, Night, Service, running

from services import registry, tail
from services.plan import Job
from services.settings import Settings


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """A sleep that is to end waits for an unreachable cluster for a moment only."""
    return settings.model_copy(update={"ray_patience_seconds": 0.1})


@pytest.fixture
def asleep(service: Service) -> tuple[Service, str, Night]:
    service.deploy()
    service.tell()
    sleep, night = service.sleep()
    service.until(lambda: service.get_sleep(sleep["id"])["status"] == "preparing")
    return service, sleep["id"], night


def left(service: Service) -> list[str]:
    with service.controller.database.read() as tx:
        return [job.id for job in registry.stray_jobs(tx)]


def test_a_job_is_stopped_when_the_cluster_answers_again(asleep: tuple[Service, str, Night]) -> None:
    service, sleep, night = asleep
    service.launcher.unreachable = True
    service.client.post(f"/v1/sleeps/{sleep}/cancel")
    assert service.ended(sleep)["status"] == "cancelled"
    assert (service.launcher.jobs[night.submission], left(service)) == ("alive", [night.submission])
    service.launcher.unreachable = False
    service.until(lambda: service.launcher.jobs[night.submission] == "stopped")
    service.until(lambda: left(service) == [])


def test_a_job_is_stopped_by_the_next_controller(settings: Settings, base: Path) -> None:
    launcher = MemoryLauncher()
    with running(settings, base, MemoryFleet(), launcher) as service:
        service.deploy()
        service.tell()
        sleep, night = service.sleep()
        launcher.unreachable = True
        service.client.post(f"/v1/sleeps/{sleep['id']}/cancel")
        service.ended(sleep["id"])
    launcher.unreachable = False
    with running(settings, base, MemoryFleet(), launcher) as service:
        service.until(lambda: launcher.jobs[night.submission] == "stopped")


def test_a_job_whose_watcher_gave_up_is_stopped(asleep: tuple[Service, str, Night], monkeypatch: pytest.MonkeyPatch) -> None:
    service, sleep, night = asleep

    def fails(*_: Any) -> None:
        raise RuntimeError("broken")

    monkeypatch.setattr(tail, "ingest_all", fails)
    assert service.ended(sleep)["error"]["code"] == "controller_error"
    service.until(lambda: service.launcher.jobs[night.submission] == "stopped")


def test_an_attempt_whose_submission_was_not_confirmed_is_stopped_too(asleep: tuple[Service, str, Night]) -> None:
    service, sleep, night = asleep
    service.launcher.submission = "answer lost"
    night.fail()
    service.until(lambda: f"{sleep}-a2" in service.launcher.jobs)
    service.client.post(f"/v1/sleeps/{sleep}/cancel")
    assert service.ended(sleep)["attempt"] == 2
    service.until(lambda: service.launcher.jobs[f"{sleep}-a2"] == "stopped")


def test_an_unconfirmed_submission_is_repeated_as_the_same_attempt(asleep: tuple[Service, str, Night]) -> None:
    service, sleep, night = asleep
    service.launcher.submission = "lost"
    night.fail()
    service.until(lambda: service.get_sleep(sleep)["attempt"] == 2)
    service.launcher.submission = "confirmed"
    service.until(lambda: f"{sleep}-a2" in service.launcher.jobs)
    night.end("no_op")
    assert service.ended(sleep)["attempt"] == 2


def test_a_submission_that_arrives_after_its_sleep_has_ended_is_stopped(settings: Settings, base: Path) -> None:
    launcher = MemoryLauncher(submission="lost")
    patient = settings.model_copy(update={"ray_patience_seconds": 3600.0})
    with running(patient, base, MemoryFleet(), launcher) as service:
        service.deploy()
        service.tell()
        sleep = service.client.post("/v1/sleeps", json={"deployment": "toy"}).json()["id"]
        service.until(lambda: service.get_sleep(sleep)["attempt"] == 1)
        service.client.post(f"/v1/sleeps/{sleep}/cancel")
        assert service.ended(sleep)["status"] == "cancelled"
        launcher.jobs[f"{sleep}-a1"] = Job.ALIVE
        service.until(lambda: launcher.jobs[f"{sleep}-a1"] == "stopped")
