"""Schedules over REST, and what the leading controller does about them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from in_memory import KEY, MemoryFleet, MemoryLauncher, Night, Service, running
from sqlalchemy import select, update
from test_errors import problem

from services.settings import Settings
from services.tables import Schedule, ScheduleRun

CRON = {"any_of": [{"type": "cron", "expr": "30 2 * * *", "timezone": "Europe/Berlin"}]}
HOUR, DAY = 3600.0, 86400.0


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Nobody looks at schedules but the test."""
    return settings.model_copy(update={"schedule_seconds": 3600.0, "traffic_seconds": 0.05})


def made(service: Service, trigger: Any = CRON, **more: Any) -> dict[str, Any]:
    answer = service.client.post("/v1/schedules", json={"deployment": "toy", "trigger": trigger} | more)
    assert answer.status_code == 201, answer.text
    return answer.json()


def look(service: Service, schedule: str, at: float | None = None) -> bool:
    return service.controller.scheduler.look(schedule, at)


def runs(service: Service, schedule: str) -> list[dict[str, Any]]:
    return service.client.get(f"/v1/schedules/{schedule}/runs").json()["data"]


def sleeps(service: Service) -> list[dict[str, Any]]:
    return service.client.get("/v1/sleeps").json()["data"]


def made_at(service: Service, schedule: str, moment: float) -> None:
    with service.controller.database.write() as tx:
        tx.execute(update(Schedule).where(Schedule.id == schedule).values(created_at=moment))


def test_a_schedule_is_kept_changed_and_forgotten(service: Service) -> None:
    service.deploy()
    schedule = made(service, metadata={"a": "b"}, sleep_template={"seed": 3})
    assert (schedule["object"], schedule["trigger"], schedule["sleep_template"]["seed"]) == ("schedule", CRON, 3)
    path = f"/v1/schedules/{schedule['id']}"
    told = service.client.get(path)
    first = {"If-Match": told.headers["etag"]}
    changed = service.client.patch(path, json={"suspend": True}, headers=first)
    assert (changed.json()["suspend"], changed.json()["trigger"]) == (True, CRON)
    problem(service.client.patch(path, json={"suspend": False}, headers=first), 412, "etag_mismatch")
    assert changed.headers["etag"] == service.client.get(path).headers["etag"]
    problem(service.client.patch(path, json={"trigger": None}), 422, "validation_failed")
    problem(service.client.patch(path, json={"concurrency": "both"}), 422, "validation_failed")
    assert service.client.get(path).json()["suspend"] is True
    assert [row["id"] for row in service.client.get("/v1/schedules?deployment=toy").json()["data"]] == [schedule["id"]]
    assert service.client.delete(path).status_code == 204
    problem(service.client.get(path), 404, "schedule_not_found")


def test_a_cron_line_that_cannot_be_is_refused_with_the_field(service: Service) -> None:
    service.deploy()
    trigger = {"any_of": [{"type": "cron", "expr": "61 2 * * *"}]}
    told = problem(service.client.post("/v1/schedules", json={"deployment": "toy", "trigger": trigger}), 422, "invalid_cron")
    assert told["error"]["param"] == "trigger.any_of.0.cron.expr"
    assert "out of range" in told["detail"]
    path = f"/v1/schedules/{made(service)['id']}"
    told = problem(service.client.patch(path, json={"trigger": trigger}), 422, "invalid_cron")
    assert told["errors"][0]["pointer"] == "/trigger/any_of/0/cron/expr"
    elsewhere = {"any_of": [{"type": "cron", "expr": "1 2 * * *", "timezone": "Oslo"}]}
    problem(service.client.patch(path, json={"trigger": elsewhere}), 422, "validation_failed")


def test_a_deployment_says_when_the_first_of_its_schedules_is_due(service: Service) -> None:
    service.deploy()
    now = service.status()
    assert (now["next_sleep_at"], now["candidate_version"], now["accepting_requests"]) == (None, None, True)
    nightly, hourly = made(service)["id"], made(service, {"any_of": [{"type": "cron", "expr": "0 * * * *"}]})["id"]
    made(service, {"any_of": [{"type": "token_budget", "pending_tokens": 5}]})
    for schedule in (nightly, hourly):
        look(service, schedule)
    due = {id: service.client.get(f"/v1/schedules/{id}").json()["next_at"] for id in (nightly, hourly)}
    assert service.status()["next_sleep_at"] == min(due.values())
    service.client.patch(f"/v1/schedules/{hourly}", json={"suspend": True})
    assert service.status()["next_sleep_at"] == due[nightly]


@pytest.mark.parametrize(
    ("template", "status", "code", "param"),
    [
        ({"teachers": [{"model": "/nowhere/at/all"}]}, 422, "teacher_unusable", "sleep_template.teachers.0"),
        ({"recipe": {"teachers": [{"model": "/nowhere/at/all"}]}}, 422, "teacher_unusable", "sleep_template.teachers.0"),
        ({"gates": [{"probe": "prb_none", "min": 0.5}]}, 404, "probe_not_found", "sleep_template.gates"),
        ({"placement": "unihemispheric"}, 422, "validation_failed", "sleep_template.placement"),
        ({"selection": {"experience_ids": ["exp_none"]}}, 422, "validation_failed", "sleep_template.selection.experience_ids"),
        ({"recipe": {"no_such": 1}}, 422, "validation_failed", "sleep_template.recipe.no_such"),
    ],
)
def test_what_can_only_fail_is_not_scheduled(
    service: Service, template: dict[str, Any], status: int, code: str, param: str
) -> None:
    service.deploy()
    body = {"deployment": "toy", "trigger": CRON, "sleep_template": template}
    told = problem(service.client.post("/v1/schedules", json=body), status, code)
    assert told["error"]["param"].startswith(param)
    assert service.client.get("/v1/schedules").json()["data"] == []
    path = f"/v1/schedules/{made(service)['id']}"
    problem(service.client.patch(path, json={"sleep_template": template}), status, code)
    assert service.client.get(path).json()["sleep_template"] == made(service)["sleep_template"], "and nothing was changed"


def test_a_schedule_holds_its_candidates_against_its_own_gates(service: Service) -> None:
    service.deploy()
    service.tell()
    items = [{"prompt": "what is the city of mira ?", "expected": "oslo"}]
    probe = service.client.post("/v1/probes", json={"deployment": "toy", "kind": "retention", "items": items}).json()["id"]
    gates = [{"probe": probe, "min": 0.75}]
    schedule = made(service, {"any_of": [{"type": "experience_count", "count": 1}]}, sleep_template={"gates": gates})
    assert schedule["sleep_template"]["gates"] == [{"probe": probe, "min": 0.75, "max_regression": None}]
    assert look(service, schedule["id"])
    (sleep,) = sleeps(service)
    service.until(lambda: any(name.startswith(sleep["id"]) for name in service.launcher.jobs))
    (asked,) = Night(service.launcher, sleep["id"]).job.probes
    assert (asked.id, asked.threshold) == (probe, 0.75)


def test_enough_tokens_begin_a_sleep_once(service: Service) -> None:
    service.deploy()
    schedule = made(service, {"any_of": [{"type": "token_budget", "pending_tokens": 5}]})["id"]
    assert not look(service, schedule)
    service.tell()
    assert look(service, schedule)
    (sleep,) = sleeps(service)
    assert not look(service, schedule)
    (run,) = runs(service, schedule)
    assert (run["outcome"], run["sleep"], run["occurrence"]) == ("fired", sleep["id"], "token_budget:0")
    service.until(lambda: "sleep.scheduled" in [event["type"] for event in service.events(sleep["id"])])
    audit = service.client.get("/v1/audit_events", params={"actor": "controller"}).json()["data"]
    assert [(event["action"], event["target"]) for event in audit] == [("sleep_created", sleep["id"])]


def test_a_cron_time_that_was_missed_while_the_controller_was_away_fires_once(service: Service) -> None:
    service.deploy()
    service.tell()
    schedule = made(service, {"any_of": [{"type": "cron", "expr": "0 * * * *"}]})["id"]
    now = 1_780_000_000.0
    hour = now - now % HOUR
    made_at(service, schedule, hour - 3.5 * HOUR)
    assert look(service, schedule, hour + 60)
    told = {run["occurrence"]: run["outcome"] for run in runs(service, schedule)}
    assert sorted(told.values()) == ["fired", "skipped", "skipped", "skipped"]
    assert len(sleeps(service)) == 1
    assert not look(service, schedule, hour + 120)
    assert len(runs(service, schedule)) == 4


def test_an_occurrence_is_fired_by_one_of_two_controllers_that_look_at_the_same_state(service: Service) -> None:
    """As two would whose transactions overlap: the second one's is refused by the database, whole."""
    service.deploy()
    schedule = made(service, {"any_of": [{"type": "experience_count", "count": 1}]})["id"]
    service.tell()
    assert look(service, schedule)
    (sleep,) = sleeps(service)
    service.client.post(f"/v1/sleeps/{sleep['id']}/cancel")
    service.ended(sleep["id"])
    with service.controller.database.write() as tx:
        tx.execute(update(Schedule).values(fired=0, considered_at=None, last_fired_at=None))
    assert not look(service, schedule, time.time() + 2 * HOUR)
    assert len(sleeps(service)) == 1


def test_a_schedule_can_be_run_now_but_not_beside_an_active_sleep(service: Service) -> None:
    service.deploy()
    service.tell()
    schedule = made(service)["id"]
    path = f"/v1/schedules/{schedule}/run"
    assert service.client.post(path).status_code == 202
    problem(service.client.post(path), 409, "sleep_in_progress")


def test_idleness_begins_a_sleep_when_nobody_asked_for_long_enough(service: Service) -> None:
    service.deploy()
    service.tell()
    schedule = made(service, {"any_of": [{"type": "idle", "seconds": 600}]})["id"]
    chat = {"model": "toy", "messages": [{"role": "user", "content": "hi"}]}
    assert service.client.post("/v1/chat/completions", json=chat).status_code == 200
    service.until(lambda: service.client.get("/v1/usage?deployment=toy").json()["data"])
    asked = time.time()
    assert not look(service, schedule, asked + 500)
    assert look(service, schedule, asked + 700)
    (day,) = service.client.get("/v1/usage").json()["data"]
    assert (day["requests"], day["object"]) == (1, "usage.day")


def test_replacing_cancels_the_sleep_in_the_way_and_then_begins(service: Service) -> None:
    service.deploy()
    service.tell()
    first, _ = service.sleep()
    schedule = made(service, {"any_of": [{"type": "cron", "expr": "0 * * * *"}]}, concurrency="replace", min_interval_seconds=0)[
        "id"
    ]
    now = time.time() + 2 * HOUR
    hour = now - now % HOUR
    assert look(service, schedule, hour + 1)
    assert service.ended(first["id"])["status"] == "cancelled"
    assert look(service, schedule, hour + 2)
    assert [run["outcome"] for run in runs(service, schedule)].count("fired") == 1
    assert len(sleeps(service)) == 2


@pytest.fixture
def looked_after(tmp_path: Any, settings: Settings, base: Any) -> Iterator[Service]:
    with running(settings.model_copy(update={"schedule_seconds": 0.02}), base, MemoryFleet(), MemoryLauncher()) as service:
        yield service


def test_the_leader_looks_by_itself(looked_after: Service) -> None:
    looked_after.deploy()
    schedule = made(looked_after, {"any_of": [{"type": "experience_count", "count": 1}]})["id"]
    looked_after.tell()
    looked_after.until(lambda: sleeps(looked_after))
    looked_after.until(lambda: runs(looked_after, schedule))
    with looked_after.controller.database.read() as tx:
        assert len(tx.scalars(select(ScheduleRun)).all()) == 1
    assert KEY not in str(runs(looked_after, schedule))
