"""Probes: kept, asked of the version that serves, and given to every night."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from in_memory import MemoryFleet, MemoryLauncher, Service, running
from sqlalchemy import update
from test_errors import problem
from test_keys_and_tenants import as_key, made

from services.fleet import Body, FleetUnavailable, Reply, Route
from services.settings import Settings
from services.tables import Deployment, ProbeRun

ITEMS = [
    {"messages": [{"role": "user", "content": "what is the city of mira ? oslo"}], "expected": "oslo"},
    {"prompt": "the city of gipa is rome", "expected": ["lima", "rome"]},
    {"prompt": "the city of jehas is quito", "expected": "riga"},
]
"""The fleet in memory answers with the last word that it was told."""


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"probe_seconds": 0.02})


@pytest.fixture
def service(service: Service) -> Service:
    service.deploy()
    return service


@pytest.fixture
def either(settings: Settings, base: Path, database_url: str) -> Iterator[Service]:
    """The same on each kind of database."""
    with running(settings.model_copy(update={"database_url": database_url}), base, MemoryFleet(), MemoryLauncher()) as service:
        service.deploy()
        yield service


def keep(service: Service, **more: Any) -> dict[str, Any]:
    body = {"deployment": "toy", "kind": "retention", "items": ITEMS} | more
    answer = service.client.post("/v1/probes", json=body)
    assert answer.status_code == 201, answer.text
    return answer.json()


def ask(service: Service, probe: str, **body: Any) -> dict[str, Any]:
    """A run, once it has ended."""
    answer = service.client.post(f"/v1/probes/{probe}/runs", json=body)
    assert answer.status_code == 202, answer.text
    path = answer.headers["location"]
    service.until(lambda: service.client.get(path).json()["status"] in ("succeeded", "failed"))
    return service.client.get(path).json()


def test_a_probe_is_kept_changed_and_deleted(either: Service) -> None:
    probe = keep(either, threshold=0.5, metadata={"team": "a"})
    url = f"/v1/probes/{probe['id']}"
    got = either.client.get(url)
    assert got.json() == probe
    assert (probe["object"], probe["n"], probe["scorer"], probe["visibility"]) == ("probe", 3, "contains", "private")
    assert probe["items"][0]["expected"] == ["oslo"]
    changed = either.client.patch(url, json={"threshold": None, "scorer": "exact"}, headers={"if-match": got.headers["etag"]})
    assert (changed.json()["threshold"], changed.json()["scorer"]) == (None, "exact")
    problem(either.client.patch(url, json={"threshold": 1}, headers={"if-match": got.headers["etag"]}), 412, "etag_mismatch")
    assert either.client.get("/v1/probes", params={"deployment": "toy"}).json()["data"] == [changed.json()]
    ask(either, probe["id"])
    assert either.client.delete(url).status_code == 204
    problem(either.client.get(url), 404, "probe_not_found")
    with either.controller.database.read() as tx:
        assert tx.query(ProbeRun).count() == 0
    told = [event["action"] for event in either.client.get("/v1/audit_events").json()["data"]]
    assert told[:4] == ["probe_deleted", "probe_run_created", "probe_changed", "probe_created"]


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"kind": "canary", "threshold": 0.5}, "body"),
    ({"items": []}, "items"),
    ({"items": [{"prompt": "a", "expected": "("}], "scorer": "regex"}, "body"),
    ({"threshold": 1.5}, "threshold"),
    ({"kind": "trap"}, "kind"),
    ({"unknown": 1}, "unknown"),
]


def test_what_is_no_probe_is_not_kept(service: Service) -> None:
    probe = keep(service)
    for wrong, param in WRONG:
        answer = service.client.post("/v1/probes", json={"deployment": "toy", "kind": "retention", "items": ITEMS} | wrong)
        assert problem(answer, 422, "validation_failed")["detail"].startswith(param)
        answer = service.client.patch(f"/v1/probes/{probe['id']}", json=wrong)
        assert problem(answer, 422, "validation_failed")["detail"].startswith(param)
    assert service.client.get("/v1/probes").json()["data"] == [probe]


def test_a_run_asks_the_version_that_serves_and_scores_each_answer(either: Service) -> None:
    probe = keep(either, max_tokens=5)
    version = either.status()["active_version"]
    run = ask(either, probe["id"], version=version)
    assert (run["object"], run["status"], run["version"], run["n"]) == ("probe.run", "succeeded", version, 3)
    assert run["score"] == pytest.approx(2 / 3)
    assert run["ci95"] == pytest.approx([0.2077, 0.9385], abs=1e-4)
    assert [(item["index"], item["score"], item["answer"]) for item in run["per_item"]] == [
        (0, 1.0, "oslo"),
        (1, 1.0, "rome"),
        (2, 0.0, "quito"),
    ]
    assert all((body["temperature"], body["max_tokens"]) == (0, 5) for body in either.fleet.bodies)
    assert {"messages", "prompt"} <= {name for body in either.fleet.bodies for name in body}
    listed = either.client.get(f"/v1/probes/{probe['id']}/runs").json()["data"]
    assert listed == [run]
    secret = keep(either, kind="privacy")
    assert ask(either, secret["id"])["score"] == pytest.approx(1 / 3), "what must not be said, and was said twice"


def test_only_what_serves_answers(service: Service) -> None:
    probe = keep(service)
    answer = service.client.post(f"/v1/probes/{probe['id']}/runs", json={"version": "ver_other"})
    assert problem(answer, 409, "version_not_active")["error"]["param"] == "version"


def test_a_run_that_another_version_answers_says_so(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    probe, answer = keep(service), service.fleet.answer

    async def another(deployment: str, route: Route, body: Body) -> Reply:
        return replace(await answer(deployment, route, body), version="ver_other")

    monkeypatch.setattr(service.fleet, "answer", another)
    run = ask(service, probe["id"])
    assert (run["status"], run["error"]["code"], run["score"]) == ("failed", "version_changed", None)
    assert "ver_other" in run["error"]["message"]


def test_a_question_that_the_replica_refuses_scores_nothing(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    probe, answer = keep(service, kind="privacy", items=ITEMS[:2]), service.fleet.answer

    async def refuses(deployment: str, route: Route, body: Body) -> Reply:
        if route == "chat":
            return Reply(400, {"error": {"message": "too long"}}, service.fleet.versions["toy"][0])
        return await answer(deployment, route, body)

    monkeypatch.setattr(service.fleet, "answer", refuses)
    run = ask(service, probe["id"])
    assert run["per_item"][0] == {"index": 0, "score": 0.0, "answer": None, "error": "too long"}


def test_a_run_waits_for_replicas_and_not_for_ever(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    probe, answer, tries = keep(service), service.fleet.answer, []

    async def absent(deployment: str, route: Route, body: Body) -> Reply:
        tries.append(time.monotonic())
        raise FleetUnavailable("nobody there")

    monkeypatch.setattr(service.fleet, "answer", absent)
    first = service.client.post(f"/v1/probes/{probe['id']}/runs", json={}).json()
    path = f"/v1/probes/{probe['id']}/runs/{first['id']}"
    service.until(lambda: len(tries) > 2 * len(ITEMS))
    assert service.client.get(path).json()["error"] is None
    monkeypatch.setattr(service.fleet, "answer", answer)
    service.until(lambda: service.client.get(path).json()["status"] == "succeeded")

    monkeypatch.setattr(service.fleet, "answer", absent)
    late = service.client.post(f"/v1/probes/{probe['id']}/runs", json={}).json()
    with service.controller.database.write() as tx:
        tx.execute(update(ProbeRun).where(ProbeRun.id == late["id"]).values(created_at=time.time() - 1e6))
    path = f"/v1/probes/{probe['id']}/runs/{late['id']}"
    service.until(lambda: service.client.get(path).json()["status"] == "failed")
    assert service.client.get(path).json()["error"]["code"] == "engine_unavailable"


def test_a_run_that_its_leader_left_is_carried_out_by_the_next(settings: Settings, base: Path, database_url: str) -> None:
    settings = settings.model_copy(update={"database_url": database_url})
    fleet, launcher = MemoryFleet(), MemoryLauncher()
    answer = fleet.answer

    async def hangs(deployment: str, route: Route, body: Body) -> Reply:
        await asyncio.sleep(3600)
        return await answer(deployment, route, body)

    with running(settings, base, fleet, launcher) as service:
        service.deploy()
        fleet.answer = hangs  # type: ignore[method-assign]
        probe = keep(service)
        run = service.client.post(f"/v1/probes/{probe['id']}/runs", json={}).json()
        path = f"/v1/probes/{probe['id']}/runs/{run['id']}"
        service.until(lambda: service.client.get(path).json()["status"] == "running")
    fleet.answer = answer  # type: ignore[method-assign]
    with running(settings, base, fleet, launcher) as service:
        service.until(lambda: service.client.get(path).json()["status"] == "succeeded")


def test_a_private_probe_tells_its_questions_only_to_keys_that_may_write_it(service: Service) -> None:
    private, shared = keep(service), keep(service, visibility="shared")
    for probe in (private, shared):
        ask(service, probe["id"])
    reader = as_key(made(service, "probes:read")["key"])
    told = {}
    for name, probe in (("private", private), ("shared", shared)):
        url = f"/v1/probes/{probe['id']}"
        (run,) = service.client.get(f"{url}/runs", headers=reader).json()["data"]
        told[name] = (
            service.client.get(url, headers=reader).json()["items"],
            run["per_item"][0]["answer"],
            run["per_item"][0]["score"],
        )
    assert told == {"private": (None, None, 1.0), "shared": (shared["items"], "oslo", 1.0)}
    problem(service.client.post("/v1/probes", json={}, headers=reader), 403, "insufficient_scope")


def test_a_night_is_given_the_probes_that_have_limits_and_what_its_sleep_says(either: Service) -> None:
    limited = keep(either, threshold=0.5, max_regression=0.1)
    unlimited, asked = keep(either), keep(either, kind="general")
    canary = keep(either, kind="canary", items=[{"prompt": "the code of rofel is", "expected": "k9-33-x1-77"}])
    either.deploy("other")
    keep(either, deployment="other", threshold=1.0)
    either.tell()
    gates = [{"probe": asked["id"], "min": 0.75}, {"probe": limited["id"], "min": 0.25}]
    _, night = either.sleep(gates=gates, held_out=["mine"])
    job = night.job
    assert [(probe.id, probe.threshold, probe.max_regression) for probe in job.probes] == [
        (limited["id"], 0.25, 0.1),
        (asked["id"], 0.75, None),
        (canary["id"], None, None),
    ]
    assert unlimited["id"] not in {probe.id for probe in job.probes}
    held_out = ("mine", "what is the city of mira ? oslo", "the city of gipa is rome", "the code of rofel is", "k9-33-x1-77")
    assert set(held_out) <= set(job.held_out)
    either.client.delete(f"/v1/probes/{limited['id']}")
    assert [probe.id for probe in night.job.probes] == [limited["id"], asked["id"], canary["id"]], "what it began with"
    night.end("no_op")


def test_a_sleep_that_names_what_is_no_probe_of_its_deployment_does_not_begin(service: Service) -> None:
    service.deploy("other")
    foreign = keep(service, deployment="other")
    canary = keep(service, kind="canary", items=ITEMS[2:])
    service.tell()
    for gates, status, code in (
        ([{"probe": foreign["id"], "min": 1.0}], 404, "probe_not_found"),
        ([{"probe": canary["id"], "min": 1.0}], 422, "validation_failed"),
        ([{"probe": canary["id"], "least": 1.0}], 422, "validation_failed"),
    ):
        problem(service.client.post("/v1/sleeps", json={"deployment": "toy", "gates": gates}), status, code)
    assert service.client.get("/v1/sleeps").json()["data"] == []


def test_a_run_whose_deployment_moved_on_meanwhile_is_not_asked(service: Service) -> None:
    probe = keep(service)
    with service.controller.database.write() as tx:
        tx.execute(update(Deployment).values(active_version="ver_new"))
        old = ProbeRun(id="prun_old", deployment=probe["deployment"], probe=probe["id"], spec={}, version="ver_old")
        tx.add(old)
    path = f"/v1/probes/{probe['id']}/runs/prun_old"
    service.until(lambda: service.client.get(path).json()["status"] == "failed")
    assert service.client.get(path).json()["error"]["code"] == "version_changed"
