"""A sleep that ended badly, tried again: by itself, after pauses, where that may help; by an operator, on the same experiences."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from in_memory import MemoryFleet, MemoryLauncher, Night, Service, running
from test_errors import problem

from services.attempts import backoff
from services.plan import Job
from services.settings import Settings


@pytest.fixture
def asleep(service: Service) -> Service:
    """A deployment that has met something."""
    service.deploy()
    service.tell()
    return service


def failed(service: Service, code: str = "level_full", category: str = "user") -> tuple[dict[str, Any], Night]:
    """A sleep that failed, and its night."""
    sleep, night = service.sleep()
    night.log.emit("sleep.stage_started", "gate", stage="gate")
    night.end("failed", error={"code": code, "message": "why", "category": category})
    ended = service.ended(sleep["id"])
    assert ended["status"] == "failed"
    return ended, night


def retry(service: Service, sleep: str, begin: str = "last_checkpoint") -> dict[str, Any]:
    answer = service.client.post(f"/v1/sleeps/{sleep}/retry", json={"from": begin})
    assert answer.status_code == 202, answer.text
    return answer.json()


def submitted(service: Service, night: Night, attempt: int) -> None:
    service.until(lambda: night.submission == f"{night.sleep}-a{attempt}")


def test_the_next_attempt_waits_longer_and_longer() -> None:
    settings = Settings(retry_seconds=5.0, longest_retry_seconds=60.0)
    assert [backoff(settings, failures) for failures in range(5)] == [5.0, 10.0, 20.0, 40.0, 60.0]


@pytest.mark.parametrize("category", ["server", "unknown"])
def test_what_is_not_the_users_to_change_is_tried_again_a_few_times(asleep: Service, category: str) -> None:
    sleep, night = asleep.sleep()
    for attempt in range(1, asleep.settings.night_attempts + 1):
        submitted(asleep, night, attempt)
        night.end("failed", error={"code": "stage_broken", "message": "a disk was away", "category": category})
    ended = asleep.ended(sleep["id"])
    error = {"code": "stage_broken", "message": "a disk was away", "category": category, "retryable": True}
    assert (ended["status"], ended["attempt"], ended["error"]) == ("failed", asleep.settings.night_attempts, error)
    told = [event["data"] for event in asleep.events(sleep["id"]) if event["type"] == "sleep.retrying"]
    assert [(data["attempt"], data["error"]["code"]) for data in told] == [(1, "stage_broken"), (2, "stage_broken")]
    assert told[1]["seconds"] == 2 * told[0]["seconds"]


def test_what_only_the_user_can_change_is_not_tried_again(asleep: Service) -> None:
    ended, _ = failed(asleep)
    assert (ended["attempt"], ended["error"]["retryable"]) == (1, False)
    assert asleep.launcher.submissions == 1


def test_an_attempt_that_was_killed_is_not_judged_by_what_the_last_one_left(asleep: Service) -> None:
    sleep, night = asleep.sleep()
    night.end("failed", error={"code": "stage_broken", "message": "a disk was away", "category": "server"})
    submitted(asleep, night, 2)
    night.fail()
    submitted(asleep, night, 3)
    child = night.end("candidate")
    assert asleep.ended(sleep["id"])["result_version"] == child


def test_a_waiting_attempt_outlives_its_controller(settings: Settings, base: Path) -> None:
    fleet, launcher = MemoryFleet(), MemoryLauncher()
    slow = settings.model_copy(update={"retry_seconds": 3600.0, "longest_retry_seconds": 3600.0})
    with running(slow, base, fleet, launcher) as service:
        service.deploy()
        service.tell()
        sleep, night = service.sleep()
        night.fail()
        service.until(lambda: service.get_sleep(sleep["id"])["retry_at"] is not None)
        due = service.get_sleep(sleep["id"])["retry_at"]
    with running(slow, base, fleet, launcher) as service:
        assert service.get_sleep(sleep["id"])["retry_at"] == due
        assert launcher.submissions == 1
        service.client.post(f"/v1/sleeps/{sleep['id']}/cancel")
        assert service.ended(sleep["id"])["status"] == "cancelled", "without waiting for it"


def test_a_failed_sleep_that_is_retried_is_the_same_sleep_and_goes_on_from_what_is_sealed(asleep: Service) -> None:
    ended, night = failed(asleep)
    first, taken = night.job, Path(night.job.experiences).read_text()
    asleep.tell("the city of mora is bern .")
    again = retry(asleep, ended["id"])
    assert (again["id"], again["status"], again["error"], again["finished_at"]) == (ended["id"], "queued", None, None)
    submitted(asleep, night, 2)
    assert night.job == first.model_copy(update={"attempt": 2})
    assert Path(night.job.experiences).read_text() == taken, "what was met since is for the next sleep"
    child = night.end("candidate")
    done = asleep.ended(ended["id"])
    assert (done["status"], done["result_version"], done["attempt"]) == ("succeeded", child, 2)
    assert asleep.status()["pending"]["experiences"] == 1


def test_a_cancelled_sleep_can_be_retried_as_often_as_it_takes(asleep: Service) -> None:
    sleep, night = asleep.sleep()
    for attempt in (2, 3):
        asleep.client.post(f"/v1/sleeps/{sleep['id']}/cancel")
        asleep.ended(sleep["id"])
        night.log.emit("sleep.stage_started", "gate", stage="gate")  # the last words of a job that ends
        retry(asleep, sleep["id"])
        submitted(asleep, night, attempt)
    night.end("no_op")
    ended = asleep.ended(sleep["id"])
    assert (ended["status"], ended["phase"]) == ("succeeded", None)
    assert [event["seq"] for event in asleep.events(sleep["id"])] == list(range(1, ended_at(asleep, sleep["id"]) + 1))


def ended_at(service: Service, sleep: str) -> int:
    return len(service.events(sleep))


def test_a_sleep_that_was_cancelled_before_it_began_begins_when_it_is_retried(service: Service) -> None:
    for name in ("one", "two"):
        service.deploy(name)
        service.tell(deployment=name)
    _, night = service.sleep(deployment="one")
    two = service.client.post("/v1/sleeps", json={"deployment": "two"}).json()["id"]
    service.client.post(f"/v1/sleeps/{two}/cancel")
    service.ended(two)
    retry(service, two)
    night.end("no_op")
    service.until(lambda: f"{two}-a1" in service.launcher.jobs)


def test_a_retry_from_the_start_finds_nothing_of_the_night_before(asleep: Service) -> None:
    ended, night = failed(asleep)
    home, child = Path(night.job.home), Path(night.job.child)
    for folder in (home / "stages", home / "train", child):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "old.json").write_text("{}")
    retry(asleep, ended["id"], "start")
    submitted(asleep, night, 2)
    assert sorted(path.name for path in home.iterdir()) == ["events.jsonl", "experiences.jsonl", "job.json"]
    assert not child.exists()
    night.end("candidate")
    assert asleep.ended(ended["id"])["status"] == "succeeded"


def test_what_the_replicas_refused_is_retried_from_the_start_as_another_version(asleep: Service) -> None:
    sleep, night = asleep.sleep()
    refused = Path(night.job.child).name
    asleep.fleet.refuses = refused
    night.end("candidate")
    assert asleep.ended(sleep["id"])["status"] == "failed"
    problem(asleep.client.post(f"/v1/sleeps/{sleep['id']}/retry"), 409, "not_retryable")
    retry(asleep, sleep["id"], "start")
    submitted(asleep, night, 2)
    child = night.end("candidate")
    assert child != refused
    assert asleep.ended(sleep["id"])["result_version"] == child
    assert asleep.client.get(f"/v1/versions/{refused}").json()["status"] == "rejected"


def test_a_retry_has_a_budget_and_attempts_as_at_first(asleep: Service) -> None:
    sleep, night = asleep.sleep()
    for attempt in range(1, asleep.settings.night_attempts + 1):
        submitted(asleep, night, attempt)
        night.fail()
    asleep.ended(sleep["id"])
    retry(asleep, sleep["id"])
    submitted(asleep, night, asleep.settings.night_attempts + 1)
    night.fail()
    submitted(asleep, night, asleep.settings.night_attempts + 2)
    night.end("no_op")
    assert asleep.ended(sleep["id"])["status"] == "succeeded"


def test_a_sleep_cannot_be_retried_when_its_experiences_are_in_another_version(asleep: Service) -> None:
    ended, _ = failed(asleep)
    other, night = asleep.sleep()
    problem(asleep.client.post(f"/v1/sleeps/{ended['id']}/retry"), 409, "sleep_in_progress")
    night.end("candidate")
    asleep.ended(other["id"])
    answer = asleep.client.post(f"/v1/sleeps/{ended['id']}/retry")
    assert ended["parent_version"] in problem(answer, 409, "not_retryable")["detail"]
    problem(asleep.client.post(f"/v1/sleeps/{other['id']}/retry"), 409, "not_retryable")


def test_a_sleep_cannot_be_retried_when_one_of_its_experiences_is_gone(asleep: Service) -> None:
    gone = asleep.tell("the city of mora is bern .")["id"]
    ended, _ = failed(asleep)
    asleep.client.delete(f"/v1/experiences/{gone}")
    answer = asleep.client.post(f"/v1/sleeps/{ended['id']}/retry")
    assert "2 experiences" in problem(answer, 409, "not_retryable")["detail"]
    assert asleep.get_sleep(ended["id"])["status"] == "failed"
    asleep.sleep()  # what is left waits for another one


def test_no_retry_runs_beside_a_job_that_may_still_run(settings: Settings, base: Path) -> None:
    launcher = MemoryLauncher()
    with running(settings.model_copy(update={"ray_patience_seconds": 0.05}), base, MemoryFleet(), launcher) as service:
        service.deploy()
        service.tell()
        sleep, night = service.sleep()
        launcher.unreachable = True
        service.client.post(f"/v1/sleeps/{sleep['id']}/cancel")
        service.ended(sleep["id"])
        answer = service.client.post(f"/v1/sleeps/{sleep['id']}/retry")
        problem(answer, 409, "job_still_running")
        assert answer.headers["x-should-retry"] == "true"
        launcher.unreachable = False
        service.until(lambda: launcher.jobs[night.submission] is Job.STOPPED)
        service.until(lambda: service.client.post(f"/v1/sleeps/{sleep['id']}/retry").status_code == 202)


def test_a_night_that_was_retried_is_lived_through_by_the_next_controller(settings: Settings, base: Path) -> None:
    fleet, launcher = MemoryFleet(), MemoryLauncher()
    with running(settings, base, fleet, launcher) as service:
        service.deploy()
        service.tell()
        ended, night = failed(service)
        retry(service, ended["id"])
        submitted(service, night, 2)
    night.end("no_op")
    with running(settings, base, fleet, launcher) as service:
        assert service.ended(ended["id"])["status"] == "succeeded"


def test_a_night_that_is_cancelled_at_its_checkpoint_ends_when_the_next_thing_is_sealed(asleep: Service) -> None:
    sleep, night = asleep.sleep()
    asleep.until(lambda: asleep.get_sleep(sleep["id"])["status"] == "preparing")
    answer = asleep.client.post(f"/v1/sleeps/{sleep['id']}/cancel", json={"mode": "checkpoint"})
    assert (answer.status_code, answer.json()["status"]) == (202, "cancelling")
    night.log.emit("sleep.progress", "", step=1, total_steps=2, task="seeding")
    asleep.until(lambda: asleep.get_sleep(sleep["id"])["progress"]["step"] == 1)
    assert asleep.launcher.jobs[night.submission] is Job.ALIVE
    night.log.emit("sleep.checkpoint_saved", "", run="r", step=50)
    assert asleep.ended(sleep["id"])["status"] == "cancelled"


def test_cancelling_twice_is_cancelling_once_and_at_once_is_sooner(asleep: Service) -> None:
    sleep, _ = asleep.sleep()
    path = f"/v1/sleeps/{sleep['id']}/cancel"
    for mode in ("checkpoint", "checkpoint", "immediate"):
        answer = asleep.client.post(path, json={"mode": mode})
        assert (answer.status_code, answer.json()["status"]) == (202, "cancelling")
    assert asleep.ended(sleep["id"])["status"] == "cancelled"
    assert asleep.client.post(path).status_code == 200
    assert [event["type"] for event in asleep.events(sleep["id"])].count("sleep.cancelling") == 1


def test_a_sleep_that_paused_failed_and_is_retried_ends_well_on_each_kind_of_database(
    settings: Settings, base: Path, database_url: str
) -> None:
    with running(settings.model_copy(update={"database_url": database_url}), base, MemoryFleet(), MemoryLauncher()) as service:
        service.deploy()
        service.tell()
        sleep, night = service.sleep()
        service.until(lambda: service.get_sleep(sleep["id"])["status"] == "preparing")
        service.client.post(f"/v1/sleeps/{sleep['id']}/pause", json={"checkpoint": "latest"})
        service.until(lambda: service.get_sleep(sleep["id"])["status"] == "paused")
        assert service.client.post(f"/v1/sleeps/{sleep['id']}/resume").status_code == 202
        submitted(service, night, 2)
        night.end("failed", error={"code": "level_full", "message": "why", "category": "user"})
        assert service.ended(sleep["id"])["status"] == "failed"
        retry(service, sleep["id"], "start")
        submitted(service, night, 3)
        child = night.end("candidate")
        assert service.ended(sleep["id"])["result_version"] == child
        assert service.status()["pending"]["experiences"] == 0
