"""A night that stands still: nothing of it runs, its deployment serves as before, and it goes on where it stopped, whoever leads then."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from in_memory import MemoryFleet, MemoryLauncher, Night, Service, running
from sqlalchemy import update
from test_errors import problem

from services.plan import Job
from services.settings import Settings
from services.tables import Sleep


@pytest.fixture
def asleep(service: Service) -> Service:
    """A deployment that has met something."""
    service.deploy()
    service.tell()
    return service


def change(service: Service, sleep: str, what: str, **body: Any) -> dict[str, Any]:
    answer = service.client.post(f"/v1/sleeps/{sleep}/{what}", json=body)
    assert answer.status_code == 202, answer.text
    return answer.json()


def is_now(service: Service, sleep: str, status: str) -> None:
    service.until(lambda: service.get_sleep(sleep)["status"] == status)


def paused(service: Service, **body: Any) -> tuple[str, Night]:
    """A sleep that is paused, and its night."""
    sleep, night = service.sleep(**body)
    service.until(lambda: service.get_sleep(sleep["id"])["status"] == "preparing")
    change(service, sleep["id"], "pause", checkpoint="latest")
    is_now(service, sleep["id"], "paused")
    return sleep["id"], night


def kinds(service: Service, sleep: str) -> list[str]:
    return [event["type"] for event in service.events(sleep)]


def test_a_paused_night_has_no_job_and_goes_on_as_the_next_attempt(asleep: Service) -> None:
    sleep, night = asleep.sleep()
    label = night.fast_memory()
    asleep.until(lambda: asleep.fleet.versions["toy"] == [label])
    first, delivered = night.job, list(asleep.fleet.delivered)
    assert change(asleep, sleep["id"], "pause", checkpoint="latest")["status"] == "pausing"
    is_now(asleep, sleep["id"], "paused")
    assert asleep.launcher.jobs[night.submission] is Job.STOPPED
    assert (asleep.fleet.versions["toy"], asleep.fleet.delivered) == ([label], delivered), "the fleet serves as before"
    told = asleep.get_sleep(sleep["id"])
    assert (told["attempt"], told["paused_at"] is not None, told["error"]) == (1, True, None)
    change(asleep, sleep["id"], "resume")
    asleep.until(lambda: night.submission == f"{sleep['id']}-a2")
    assert night.job == first.model_copy(update={"attempt": 2}), "the same night, or its sealed stages would be another one's"
    child = night.end("candidate")
    ended = asleep.ended(sleep["id"])
    assert (ended["status"], ended["result_version"], ended["attempt"]) == ("succeeded", child, 2)
    said = [kind for kind in kinds(asleep, sleep["id"]) if kind in ("sleep.pausing", "sleep.paused", "sleep.resumed")]
    assert said == ["sleep.pausing", "sleep.paused", "sleep.resumed"]


def test_a_night_that_pauses_stops_when_the_next_thing_is_sealed(asleep: Service) -> None:
    sleep, night = asleep.sleep()
    night.log.emit("sleep.stage_started", "collect", stage="collect")
    asleep.until(lambda: asleep.get_sleep(sleep["id"])["phase"] == "collect")
    change(asleep, sleep["id"], "pause")
    night.log.emit("sleep.progress", "", step=1, total_steps=2, task="seeding")
    asleep.until(lambda: asleep.get_sleep(sleep["id"])["progress"]["step"] == 1)
    assert asleep.launcher.jobs[night.submission] is Job.ALIVE, "nothing was sealed since"
    night.log.emit("sleep.stage_finished", "collect", stage="collect", seconds=1.0, outputs={})
    is_now(asleep, sleep["id"], "paused")
    assert asleep.launcher.jobs[night.submission] is Job.STOPPED


def test_a_night_that_seals_nothing_for_too_long_is_paused_all_the_same(settings: Settings, base: Path) -> None:
    with running(settings.model_copy(update={"checkpoint_seconds": 0.1}), base, MemoryFleet(), MemoryLauncher()) as service:
        service.deploy()
        service.tell()
        sleep, _ = service.sleep()
        change(service, sleep["id"], "pause")
        is_now(service, sleep["id"], "paused")


def test_pausing_twice_is_pausing_once_and_at_once_is_sooner(asleep: Service) -> None:
    sleep, _ = asleep.sleep()
    change(asleep, sleep["id"], "pause", checkpoint="save")
    assert change(asleep, sleep["id"], "pause", checkpoint="save")["status"] == "pausing"
    change(asleep, sleep["id"], "pause", checkpoint="latest")
    is_now(asleep, sleep["id"], "paused")
    assert change(asleep, sleep["id"], "pause")["status"] == "paused"
    assert kinds(asleep, sleep["id"]).count("sleep.pausing") == 1


def test_a_pause_outlives_a_killed_controller(settings: Settings, base: Path) -> None:
    fleet, launcher = MemoryFleet(), MemoryLauncher()
    with running(settings, base, fleet, launcher) as service:
        service.deploy()
        service.tell()
        sleep, night = service.sleep()
        launcher.unreachable = True
        change(service, sleep["id"], "pause", checkpoint="latest")
    assert launcher.jobs[night.submission] is Job.ALIVE, "it was killed before the cluster answered"
    launcher.unreachable = False
    with running(settings, base, fleet, launcher) as service:
        is_now(service, sleep["id"], "paused")
        assert launcher.jobs[night.submission] is Job.STOPPED
    with running(settings, base, fleet, launcher) as service:
        change(service, sleep["id"], "resume")
        service.until(lambda: night.submission == f"{sleep['id']}-a2")
    with running(settings, base, fleet, launcher) as service:
        night.end("no_op")
        assert service.ended(sleep["id"])["status"] == "succeeded"
    assert launcher.submissions == 2


def test_a_sleep_stays_pausing_until_its_job_is_known_to_have_ended(settings: Settings, base: Path) -> None:
    launcher = MemoryLauncher()
    with running(settings.model_copy(update={"ray_patience_seconds": 0.05}), base, MemoryFleet(), launcher) as service:
        service.deploy()
        service.tell()
        sleep, _ = service.sleep()
        launcher.unreachable = True
        change(service, sleep["id"], "pause", checkpoint="latest")
        time.sleep(0.3)
        assert service.get_sleep(sleep["id"])["status"] == "pausing", "or two jobs could write the same night"
        launcher.unreachable = False
        is_now(service, sleep["id"], "paused")


def test_a_paused_sleep_is_its_deployments_one_sleep_and_can_be_cancelled(asleep: Service) -> None:
    sleep, _ = paused(asleep)
    problem(asleep.client.post("/v1/sleeps", json={"deployment": "toy"}), 409, "sleep_in_progress")
    assert (asleep.status()["current_sleep"], asleep.status()["state"]) == (sleep, "drowsy")
    change(asleep, sleep, "cancel")
    assert asleep.ended(sleep)["status"] == "cancelled"
    assert asleep.status()["pending"]["experiences"] == 1


def test_cancelling_a_paused_night_puts_the_old_version_back(asleep: Service) -> None:
    sleep, night = asleep.sleep()
    label = night.fast_memory()
    asleep.until(lambda: asleep.fleet.versions["toy"] == [label])
    change(asleep, sleep["id"], "pause", checkpoint="latest")
    is_now(asleep, sleep["id"], "paused")
    change(asleep, sleep["id"], "cancel")
    assert asleep.ended(sleep["id"])["status"] == "cancelled"
    assert asleep.fleet.versions["toy"] == [sleep["parent_version"]]


def test_a_replica_that_starts_in_a_pause_has_the_fast_memory(asleep: Service) -> None:
    sleep, night = asleep.sleep()
    label = night.fast_memory()
    asleep.until(lambda: kinds(asleep, sleep["id"])[-1] == "deployment.fast_memory_live")
    change(asleep, sleep["id"], "pause", checkpoint="latest")
    is_now(asleep, sleep["id"], "paused")
    asleep.fleet.versions["toy"] = [sleep["parent_version"]]
    asleep.until(lambda: asleep.fleet.versions["toy"] == [label])
    assert asleep.get_sleep(sleep["id"])["status"] == "paused"


def test_a_paused_sleep_holds_no_place_in_line_and_takes_its_turn_when_it_goes_on(service: Service) -> None:
    for name in ("one", "two"):
        service.deploy(name)
        service.tell(deployment=name)
    one, night = paused(service, deployment="one")
    two, other = service.sleep(deployment="two")
    change(service, one, "resume")
    service.until(lambda: two["id"] in (service.get_sleep(one)["waiting"] or ""))
    assert (service.get_sleep(one)["status"], night.submission) == ("queued", f"{one}-a1")
    other.end("no_op")
    service.until(lambda: night.submission == f"{one}-a2")
    night.end("no_op")
    assert service.ended(one)["status"] == "succeeded"


def test_a_queued_sleep_is_paused_before_it_begins(service: Service) -> None:
    for name in ("one", "two"):
        service.deploy(name)
        service.tell(deployment=name)
    _, night = service.sleep(deployment="one")
    two = service.client.post("/v1/sleeps", json={"deployment": "two"}).json()["id"]
    service.until(lambda: service.get_sleep(two)["waiting"] is not None)
    change(service, two, "pause")
    is_now(service, two, "paused")
    night.end("no_op")
    change(service, two, "resume")
    service.until(lambda: f"{two}-a1" in service.launcher.jobs)


def test_a_pause_does_not_count_against_the_budget(asleep: Service) -> None:
    sleep, night = paused(asleep, budget={"max_wall_seconds": 1000.0})
    with asleep.controller.database.write() as tx:  # it was paused for a long time after it had run for a short one
        then = time.time() - 1_000_000.0
        tx.execute(update(Sleep).where(Sleep.id == sleep).values(began_at=then, paused_at=then + 1.0))
    change(asleep, sleep, "resume")
    asleep.until(lambda: night.submission == f"{sleep}-a2")
    night.end("no_op")
    ended = asleep.ended(sleep)
    assert ended["status"] == "succeeded"
    assert 1.0 <= ended["spent"]["wall_seconds"] < 900.0


def test_what_has_no_night_cannot_be_paused_and_what_is_not_paused_cannot_go_on(asleep: Service) -> None:
    sleep, night = asleep.sleep()
    problem(asleep.client.post(f"/v1/sleeps/{sleep['id']}/resume"), 409, "not_resumable")
    night.end("no_op")
    asleep.ended(sleep["id"])
    answer = asleep.client.post(f"/v1/sleeps/{sleep['id']}/pause")
    problem(answer, 409, "not_pausable")
    assert answer.headers["x-should-retry"] == "false"
    problem(asleep.client.post(f"/v1/sleeps/{sleep['id']}/pause", json={"checkpoint": "now"}), 422, "validation_failed")


def test_pauses_are_in_the_log(asleep: Service) -> None:
    sleep, _ = paused(asleep)
    change(asleep, sleep, "resume")
    actions = [event["action"] for event in asleep.client.get("/v1/audit_events").json()["data"]]
    assert actions[:2] == ["sleep_resumed", "sleep_paused"]


def test_pauses_do_not_use_up_the_attempts(asleep: Service) -> None:
    sleep, night = paused(asleep)
    for number in range(2, asleep.settings.night_attempts + 2):
        change(asleep, sleep, "resume")
        asleep.until(lambda number=number: night.submission == f"{sleep}-a{number}")
        is_now(asleep, sleep, "preparing")
        change(asleep, sleep, "pause", checkpoint="latest")
        is_now(asleep, sleep, "paused")
    change(asleep, sleep, "resume")
    last = asleep.settings.night_attempts + 2
    asleep.until(lambda: night.submission == f"{sleep}-a{last}")
    night.fail()
    asleep.until(lambda: night.submission == f"{sleep}-a{last + 1}")
    night.end("no_op")
    assert asleep.ended(sleep)["status"] == "succeeded"
