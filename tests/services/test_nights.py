"""A night as the controller lives it: promotion, rejection, failure, cancellation, and a controller that dies in between."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from in_memory import MemoryFleet, MemoryLauncher, Service, running
from sqlalchemy.exc import OperationalError

from services import dawn, tail
from services.settings import Settings


@pytest.fixture
def asleep(service: Service) -> Service:
    """A deployment that has met something."""
    service.deploy()
    service.tell()
    return service


def test_a_candidate_is_promoted_and_serves_and_its_experiences_are_kept(asleep: Service) -> None:
    sleep, night = asleep.sleep(seed=7, held_out=["what is the city of mira ?"])
    assert (night.job.seed, night.job.held_out) == (7, ("what is the city of mira ?",))
    label = night.fast_memory()
    asleep.until(lambda: asleep.fleet.versions["toy"] == [label])
    child = night.end("candidate")
    ended = asleep.ended(sleep["id"])
    assert (ended["status"], ended["outcome"], ended["result_version"]) == ("succeeded", "promoted", child)
    assert asleep.fleet.versions["toy"] == [child]
    assert asleep.status()["active_version"] == child
    assert asleep.status()["pending"] == {"experiences": 0, "tokens": 0}
    kinds = [event["type"] for event in asleep.events(sleep["id"])]
    assert kinds[:2] == ["sleep.queued", "sleep.started"]
    assert kinds.count("deployment.fast_memory_live") == 1
    assert kinds[-2:] == ["version.promoted", "sleep.succeeded"]
    versions = asleep.client.get("/v1/versions", params={"deployment": "toy"}).json()["data"]
    assert [(version["id"], version["status"]) for version in versions] == [(child, "active"), (sleep["parent_version"], "retired")]


@pytest.mark.parametrize(("outcome", "status"), [("rejected", "succeeded"), ("no_op", "succeeded"), (None, "failed")])
def test_a_night_without_a_candidate_leaves_the_old_version_serving(asleep: Service, outcome: str | None, status: str) -> None:
    sleep, night = asleep.sleep()
    label = night.fast_memory()
    asleep.until(lambda: asleep.fleet.versions["toy"] == [label])
    error = {"code": "bad_day", "message": "no experience can be read", "category": "user"}
    night.end(outcome) if outcome else night.end("failed", error=error)
    ended = asleep.ended(sleep["id"])
    assert asleep.launcher.submissions == 1
    assert (ended["status"], ended["outcome"], ended["result_version"]) == (status, outcome, None)
    assert asleep.fleet.versions["toy"] == [sleep["parent_version"]]
    assert asleep.status()["active_version"] == sleep["parent_version"]
    assert asleep.status()["pending"]["experiences"] == 1
    if status == "failed":
        assert ended["error"] == error | {"retryable": False}


def test_cancelling_a_sleep_stops_its_job_and_puts_the_old_version_back(asleep: Service) -> None:
    sleep, night = asleep.sleep()
    label = night.fast_memory()
    asleep.until(lambda: asleep.fleet.versions["toy"] == [label])
    assert asleep.client.post(f"/v1/sleeps/{sleep['id']}/cancel").status_code == 202
    assert asleep.ended(sleep["id"])["status"] == "cancelled"
    assert asleep.launcher.jobs[night.submission] == "stopped"
    assert asleep.fleet.versions["toy"] == [sleep["parent_version"]]
    assert asleep.client.post(f"/v1/sleeps/{sleep['id']}/cancel").status_code == 200


def test_a_dawn_that_the_replicas_refuse_is_undone(asleep: Service) -> None:
    sleep, night = asleep.sleep()
    asleep.fleet.refuses = night.job.child.rsplit("/", 1)[-1]
    night.end("candidate")
    ended = asleep.ended(sleep["id"])
    assert (ended["status"], ended["error"]["code"], ended["result_version"]) == ("failed", "delivery_failed", None)
    status = asleep.status()
    assert (status["active_version"], status["pending"]["experiences"], status["state"]) == (sleep["parent_version"], 1, "awake")
    assert asleep.fleet.versions["toy"] == [sleep["parent_version"]]


def test_what_a_night_left_out_is_not_called_consolidated(asleep: Service) -> None:
    learned, long, secret = (
        asleep.client.get("/v1/experiences").json()["data"][0]["id"],
        asleep.tell("b")["id"],
        asleep.tell("c")["id"],
    )
    sleep, night = asleep.sleep()
    child = night.end("candidate", left_out={long: "too long", secret: "held out", "exp_of_another": "too long"})
    ended = asleep.ended(sleep["id"])
    told = {id: asleep.client.get(f"/v1/experiences/{id}").json() for id in (learned, long, secret)}
    assert [(row["status"], row["left_out"], row["version"], row["sleep"]) for row in told.values()] == [
        ("consolidated", None, child, sleep["id"]),
        ("left_out", "too long", None, sleep["id"]),
        ("left_out", "held out", None, sleep["id"]),
    ]
    assert asleep.status()["pending"] == {"experiences": 0, "tokens": 0}
    assert ended["left_out"] == asleep.client.get(f"/v1/sleeps/{sleep['id']}/report").json()["left_out"]
    assert ended["left_out"]["held out"] == 1
    nothing = asleep.client.post("/v1/sleeps", json={"deployment": "toy"})
    assert nothing.json()["error"]["code"] == "no_eligible_experience"


def test_a_dawn_that_is_undone_offers_again_what_its_night_left_out(asleep: Service) -> None:
    left = asleep.tell("b")["id"]
    sleep, night = asleep.sleep()
    asleep.fleet.refuses = night.job.child.rsplit("/", 1)[-1]
    night.end("candidate", left_out={left: "too long"})
    assert asleep.ended(sleep["id"])["status"] == "failed"
    assert asleep.status()["pending"]["experiences"] == 2
    row = asleep.client.get(f"/v1/experiences/{left}").json()
    assert (row["status"], row["left_out"], row["sleep"]) == ("pending", None, None)


def test_a_lost_job_is_submitted_again_as_the_next_attempt(asleep: Service) -> None:
    sleep, night = asleep.sleep()
    asleep.until(lambda: asleep.events(sleep["id"])[-1]["type"] == "sleep.started")
    asleep.launcher.files[f"{sleep['id']}-a2"] = asleep.launcher.files[night.submission]
    del asleep.launcher.jobs[night.submission]
    asleep.until(lambda: f"{sleep['id']}-a2" in asleep.launcher.jobs)
    night.end("no_op")
    assert asleep.ended(sleep["id"])["attempt"] == 2


def test_a_killed_night_is_submitted_again_a_few_times(asleep: Service) -> None:
    sleep, night = asleep.sleep()
    first = night.job
    for attempt in range(1, asleep.settings.night_attempts + 1):
        asleep.until(lambda attempt=attempt: f"{sleep['id']}-a{attempt}" in asleep.launcher.jobs)
        assert (night.job.home, night.job.child, night.job.attempt) == (first.home, first.child, attempt)
        night.fail()
    ended = asleep.ended(sleep["id"])
    assert (ended["status"], ended["attempt"]) == ("failed", asleep.settings.night_attempts)
    assert (ended["error"]["code"], ended["error"]["message"]) == ("night_failed", "the job's last words")
    assert asleep.status()["pending"]["experiences"] == 1


def test_a_database_that_is_locked_for_a_while_delays_a_night(asleep: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    sleep, night = asleep.sleep()
    whole, failures = dawn.commit, iter(range(asleep.settings.watcher_failures - 1))

    def locked(*args: Any) -> bool:
        if next(failures, None) is not None:
            raise OperationalError("", {}, Exception("database is locked"))
        return whole(*args)

    monkeypatch.setattr(dawn, "commit", locked)
    child = night.end("candidate")
    ended = asleep.ended(sleep["id"])
    assert next(failures, None) is None
    assert (ended["status"], ended["error"], ended["result_version"]) == ("succeeded", None, child)


def test_a_controller_that_keeps_failing_after_the_commit_undoes_it(asleep: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    sleep, night = asleep.sleep()
    child = Path(night.job.child).name
    deliver = asleep.controller.serving.deliver

    async def fails(deployment: str, path: Path) -> Any:
        if path.name == "dawn.delivery":
            raise RuntimeError("broken")
        return await deliver(deployment, path)

    monkeypatch.setattr(asleep.controller.serving, "deliver", fails)
    night.end("candidate")
    ended = asleep.ended(sleep["id"])
    assert (ended["status"], ended["error"]["code"], ended["result_version"]) == ("failed", "controller_error", None)
    status = asleep.status()
    assert (status["active_version"], status["pending"]["experiences"], status["state"]) == (sleep["parent_version"], 1, "awake")
    assert asleep.fleet.versions["toy"] == [sleep["parent_version"]]
    assert asleep.client.get(f"/v1/versions/{child}").json()["status"] == "rejected"


def test_a_night_that_cannot_even_be_wound_up_ends(asleep: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    sleep, night = asleep.sleep()
    label = night.fast_memory()
    asleep.until(lambda: asleep.fleet.versions["toy"] == [label])

    async def fails(*_: Any) -> Any:
        raise RuntimeError("broken")

    monkeypatch.setattr(asleep.controller.serving, "deliver", fails)
    night.end("rejected")
    ended = asleep.ended(sleep["id"])
    assert (ended["status"], ended["error"]["code"]) == ("failed", "controller_error")
    asleep.until(lambda: asleep.fleet.versions.get("toy") == [sleep["parent_version"]])


def test_everything_that_a_night_said_is_told_before_its_end(asleep: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tail, "MOST_BYTES_AT_ONCE", 100)
    sleep, night = asleep.sleep()
    for i in range(50):
        night.log.emit("sleep.note", f"{i} {'long' * 100}")
    night.end("no_op")
    assert asleep.ended(sleep["id"])["status"] == "succeeded"
    kinds = [event["type"] for event in asleep.events(sleep["id"])]
    assert kinds == ["sleep.queued", "sleep.started", *["sleep.note"] * 50, "sleep.succeeded"]


def test_a_replica_that_dies_at_night_has_the_fast_memory_again(asleep: Service) -> None:
    sleep, night = asleep.sleep()
    label = night.fast_memory()
    asleep.until(lambda: asleep.events(sleep["id"])[-1]["type"] == "deployment.fast_memory_live")
    asleep.fleet.versions.clear()
    asleep.until(lambda: asleep.fleet.versions.get("toy") == [label])
    assert asleep.fleet.delivered == [label], "it came up with it"
    asleep.fleet.versions["toy"] = [sleep["parent_version"]]
    asleep.until(lambda: asleep.fleet.versions.get("toy") == [label])
    assert asleep.fleet.delivered == [label, label], "it came up without it, whatever the reason"
    night.end("no_op")
    asleep.ended(sleep["id"])


def test_a_replica_that_dies_at_dawn_is_awaited(settings: Settings, base: Path) -> None:
    fleet = MemoryFleet()
    slow = settings.model_copy(update={"replica_check_seconds": 1.0})
    with running(slow, base, fleet, MemoryLauncher()) as service:
        service.deploy()
        service.tell()
        sleep, night = service.sleep()
        fleet.versions.clear()
        child = night.end("candidate")
        assert service.ended(sleep["id"])["result_version"] == child
        assert fleet.versions["toy"] == [child]


def test_a_controller_that_was_away_goes_on_with_the_night(settings: Settings, base: Path) -> None:
    fleet, launcher = MemoryFleet(), MemoryLauncher()
    with running(settings, base, fleet, launcher) as service:
        service.deploy()
        service.tell()
        sleep, night = service.sleep()
        service.until(lambda: service.events(sleep["id"])[-1]["type"] == "sleep.started")
    night.log.emit("sleep.stage_started", "gate", stage="gate")
    child = night.end("candidate")
    with running(settings, base, fleet, launcher) as service:
        assert service.ended(sleep["id"])["result_version"] == child
        kinds = [event["type"] for event in service.events(sleep["id"])]
    assert launcher.submissions == 1
    assert kinds.count("sleep.started") == kinds.count("version.promoted") == 1
