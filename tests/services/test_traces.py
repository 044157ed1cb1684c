"""From request to experience to night to version: what a collector of traces is told, by a real one, and that it holds nothing up."""

from __future__ import annotations

import io
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from collector import Collector, collector
from in_memory import MemoryFleet, MemoryLauncher, Night, Service, running
from sqlalchemy import func, select

from services import naming
from services.settings import Settings
from services.tables import UntoldTrace
from services.trace_context import ENDPOINTS

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
PARENT = f"00-{TRACE}-{SPAN}-01"
SECRET = "the word that nobody may read is heptagon"
WORKER = "OtelBatchSpanRecordProcessor"
"""The thread that sends spans of requests."""


@pytest.fixture
def sink(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    with collector() as sink:
        for name in ENDPOINTS:
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", sink.url)
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "20")
        yield sink


@pytest.fixture
def quick(settings: Settings) -> Settings:
    return settings.model_copy(update={"trace_seconds": 0.02})


@pytest.fixture
def traced(sink: Collector, quick: Settings, base: Path) -> Iterator[Service]:
    """A service whose traces are collected."""
    with running(quick, base, MemoryFleet(), MemoryLauncher()) as service:
        yield service


def stages(night: Night, *names: str) -> None:
    """What a night says of stages that it seals."""
    for name in names:
        night.log.emit("sleep.stage_started", name, stage=name)
        night.log.emit("sleep.stage_finished", name, stage=name, seconds=0.1, outputs={"text": SECRET})


def told(service: Service, sink: Collector, name: str, count: int = 1) -> list[Any]:
    service.until(lambda: len(sink.named(name)) >= count)
    return sink.named(name)


def untold(service: Service) -> int:
    with service.controller.database.read() as tx:
        return tx.scalars(select(func.count()).select_from(UntoldTrace)).one()


def test_a_version_is_followed_back_to_the_request_that_it_came_from(traced: Service, sink: Collector) -> None:
    traced.deploy()
    body = {"deployment": "toy", "text": SECRET, "subject_id": "heptagon-7", "session_id": "heptagon-8"}
    met = traced.client.post("/v1/experiences", json=body, headers={"traceparent": PARENT}).json()
    assert met["trace_id"] == TRACE
    chat = {"model": "toy", "messages": [{"role": "user", "content": SECRET}], "store": True, "user": "heptagon-9"}
    assert traced.client.post("/v1/chat/completions", json=chat).status_code == 200
    sleep, night = traced.sleep()
    stages(night, "collect", "gate")
    child = night.end("candidate")
    ended = traced.ended(sleep["id"])
    version = traced.client.get(f"/v1/versions/{child}").json()
    assert version["trace_id"] == ended["trace_id"] == sleep["trace_id"] != TRACE

    (root,) = told(traced, sink, "night")
    parts = {span.name: span for span in sink.of_trace(version["trace_id"])}
    assert set(parts) == {"night", "wait", "attempt", "collect", "gate", "dawn", "version"}
    assert {name: parts[name].parent for name in parts} == {
        "night": "",
        "wait": root.id,
        "attempt": root.id,
        "collect": parts["attempt"].id,
        "gate": parts["attempt"].id,
        "dawn": root.id,
        "version": root.id,
    }
    assert not any(span.failed for span in parts.values())
    assert all(root.start <= span.start <= span.end for span in parts.values())
    assert parts["version"].attributes["circadian.version.id"] == child
    assert parts["attempt"].attributes == {"circadian.attempt": 1}
    assert root.attributes["circadian.sleep.id"] == sleep["id"]
    assert (root.attributes["circadian.sleep.outcome"], root.attributes["circadian.sleep.experiences"]) == ("promoted", 2)
    assert "version.promoted" in root.moments

    (request,) = told(traced, sink, "POST /v1/experiences")
    assert (request.trace, request.parent) == (TRACE, SPAN)
    taken = told(traced, sink, "take in experience", 2)
    (imported,) = [span for span in taken if span.trace == TRACE]
    assert (imported.parent, imported.attributes["circadian.experience.id"]) == (request.id, met["id"])
    (asked,) = told(traced, sink, "POST /v1/chat/completions")
    (stored,) = [span for span in taken if span.trace != TRACE]
    assert (stored.trace, stored.parent) == (asked.trace, asked.id)
    assert sorted(root.links("experience")) == sorted((span.trace, span.id) for span in taken)
    (begun,) = told(traced, sink, "POST /v1/sleeps")
    assert root.links("asked for by") == [(begun.trace, begun.id)]
    assert request.attributes == {
        "http.request.method": "POST",
        "http.route": "/v1/experiences",
        "http.response.status_code": 201,
        "url.scheme": "http",
        "network.protocol.version": "1.1",
    }
    assert root.resource["service.name"] == "circadian"
    assert not any(b"heptagon" in body for body in sink.raw)
    traced.until(lambda: untold(traced) == 0)


def test_a_promotion_by_hand_is_linked_to_the_night_that_made_the_version(traced: Service, sink: Collector) -> None:
    traced.deploy(promotion={"mode": "manual"})
    traced.tell()
    sleep, night = traced.sleep()
    child = night.end("candidate")
    assert traced.ended(sleep["id"])["outcome"] == "candidate"
    rollout = traced.client.post(f"/v1/versions/{child}/promote", json={}).json()
    (span,) = told(traced, sink, "rollout")
    (version,) = told(traced, sink, "version")
    (asked,) = told(traced, sink, "POST /v1/versions/{id}/promote")
    assert (span.trace, span.parent) == (rollout["trace_id"], "")
    assert span.links("version") == [(version.trace, version.id)]
    assert span.links("asked for by") == [(asked.trace, asked.id)]
    assert (span.attributes["circadian.rollout.id"], span.attributes["circadian.rollout.status"]) == (rollout["id"], "succeeded")
    assert not span.failed


def test_lines_of_a_batch_are_one_link_to_the_request_that_sent_it(traced: Service, sink: Collector) -> None:
    traced.deploy()
    lines = "".join(f'{{"deployment": "toy", "text": "the city of mira is number {n} ."}}\n' for n in range(3))
    headers = {"content-type": "application/x-ndjson", "traceparent": PARENT}
    assert traced.client.post("/v1/experiences/batches", content=lines, headers=headers).status_code == 202
    traced.until(lambda: traced.status()["pending"]["experiences"] == 3)
    sleep, night = traced.sleep()
    night.end("no_op")
    traced.ended(sleep["id"])
    (request,) = told(traced, sink, "POST /v1/experiences/batches")
    (root,) = told(traced, sink, "night")
    assert request.trace == TRACE
    assert root.links("experience") == [(TRACE, request.id)]
    assert root.attributes["circadian.sleep.experiences"] == 3


def test_an_attempt_that_was_killed_and_its_stage_are_told_as_failed(traced: Service, sink: Collector) -> None:
    traced.deploy()
    traced.tell()
    sleep, night = traced.sleep()
    stages(night, "collect")
    night.log.emit("sleep.stage_started", "gate", stage="gate")
    night.fail()
    traced.until(lambda: f"{sleep['id']}-a2" in traced.launcher.jobs)
    night.log.emit("sleep.stage_resumed", "collect", stage="collect")
    stages(night, "gate")
    night.end("candidate")
    traced.ended(sleep["id"])
    (root,) = told(traced, sink, "night")
    first, second = sorted(told(traced, sink, "attempt", 2), key=lambda span: span.start)
    assert [(span.attributes["circadian.attempt"], span.failed) for span in (first, second)] == [(1, True), (2, False)]
    assert first.attributes["error.type"] == "night_failed"
    gates = {span.parent: span for span in sink.named("gate")}
    assert (gates[first.id].failed, gates[first.id].attributes["circadian.stage.sealed"]) == (True, False)
    assert not gates[second.id].failed
    assert not root.failed
    assert "sleep.stage_resumed" in root.moments


def test_a_night_that_is_tried_again_by_hand_stays_in_its_trace(traced: Service, sink: Collector) -> None:
    traced.deploy()
    traced.tell()
    sleep, night = traced.sleep()
    error = {"code": "bad_day", "message": SECRET, "category": "user"}
    night.end("failed", error=error)
    assert traced.ended(sleep["id"])["status"] == "failed"
    (first,) = told(traced, sink, "night")
    assert (first.failed, first.attributes["error.type"]) == (True, "bad_day")
    assert traced.client.post(f"/v1/sleeps/{sleep['id']}/retry", json={"from": "start"}).status_code == 202
    traced.until(lambda: f"{sleep['id']}-a2" in traced.launcher.jobs)
    night.end("candidate")
    assert traced.ended(sleep["id"])["status"] == "succeeded"
    _, second = told(traced, sink, "night", 2)
    assert (second.trace, second.parent, second.failed) == (first.trace, first.id, False)
    assert second.attributes["circadian.sleep.life"] == 1
    assert [span.parent for span in sink.named("version")] == [second.id]
    assert [span.attributes["circadian.attempt"] for span in sink.named("attempt")] == [1, 2]
    assert not any(b"heptagon" in body for body in sink.raw)


def test_a_night_that_a_controller_did_not_live_to_tell_is_told_by_the_next(
    sink: Collector, quick: Settings, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ends in the middle of the night, and another one before the collector has taken what was told: nothing is lost, and what the
    collector has heard twice it has heard under the same ids."""
    fleet, launcher = MemoryFleet(), MemoryLauncher()
    with running(quick, base, fleet, launcher) as service:
        service.deploy()
        service.tell()
        sleep, night = service.sleep()
        stages(night, "collect")
        service.until(lambda: service.get_sleep(sleep["id"])["phase"] == "collect")
    assert not sink.named("night")
    sink.answers = "refuses"
    with running(quick, base, fleet, launcher) as service:
        stages(night, "gate")
        child = night.end("candidate")
        assert service.ended(sleep["id"])["result_version"] == child
        before = sink.requests
        service.until(lambda: sink.requests > before + 1)
        assert untold(service) == 1
    assert not sink.named("night")
    sink.answers = "takes"
    with running(quick, base, fleet, launcher) as service:
        once = told(service, sink, "night")
        service.until(lambda: untold(service) == 0)
        spans = {span.id: span.span for span in sink.of_trace(sleep["trace_id"])}
        assert {span.name for span in spans.values()} == {"night", "wait", "attempt", "collect", "gate", "dawn", "version"}
        with service.controller.database.write() as tx:  # as if it had died before it wrote down that it was told
            tx.add(UntoldTrace(object=sleep["id"], deployment=sleep["deployment"]))
        told(service, sink, "night", len(once) + 1)
        again = sink.of_trace(sleep["trace_id"])[len(spans) :]
        assert {span.id: span.span for span in again} == spans


def test_a_trace_that_nobody_takes_is_given_up(sink: Collector, quick: Settings, base: Path) -> None:
    impatient = quick.model_copy(update={"trace_patience_seconds": 0.001})
    sink.answers = "refuses"
    with running(impatient, base, MemoryFleet(), MemoryLauncher()) as service:
        service.deploy()
        service.tell()
        sleep, night = service.sleep()
        night.end("no_op")
        service.ended(sleep["id"])
        service.until(lambda: untold(service) == 0)
    assert not sink.named("night")


@pytest.mark.parametrize("collector_is", ["away", "hanging"])
def test_a_collector_that_does_not_answer_holds_nothing_up_and_is_logged_once(
    sink: Collector, quick: Settings, base: Path, monkeypatch: pytest.MonkeyPatch, collector_is: str
) -> None:
    """Were requests sent one by one they would wait for the exporter's limit, each; the queue is full long before the last of them."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1000" if collector_is == "away" else "2")
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "4")
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "4")
    if collector_is == "away":
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    sink.answers = "hangs"
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    logging.getLogger().addHandler(handler)
    try:
        with running(quick.model_copy(update={"controller_stop_seconds": 0.3}), base, MemoryFleet(), MemoryLauncher()) as service:
            service.deploy()
            for n in range(20):
                assert service.client.get("/v1/deployments").status_code == 200, n
            sleep, night = service.sleep() if service.tell("the city of mira is oslo .") else (None, None)
            night.end("candidate")
            assert service.ended(sleep["id"])["status"] == "succeeded"
            assert service.client.get("/readyz").status_code == 200
    finally:
        logging.getLogger().removeHandler(handler)
    assert stream.getvalue().count("the collector of traces at") <= 2, "one of each way to it"
    assert "opentelemetry" not in stream.getvalue()
    assert not sink.spans


def test_without_a_collector_there_are_no_spans_no_thread_and_no_ids(
    settings: Settings, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ENDPOINTS:
        monkeypatch.delenv(name, raising=False)
    with nobody_new(WORKER), running(settings, base, MemoryFleet(), MemoryLauncher()) as service:
        assert service.controller.tracing is None
        service.deploy()
        met = service.client.post("/v1/experiences", json={"deployment": "toy", "text": "oslo"}, headers={"traceparent": PARENT})
        assert met.json()["trace_id"] is None
        sleep, night = service.sleep()
        child = night.end("candidate")
        assert service.ended(sleep["id"])["trace_id"] is None
        assert service.client.get(f"/v1/versions/{child}").json()["trace_id"] is None
        assert untold(service) == 0


def test_tracing_can_be_switched_off_where_a_collector_is_named(
    sink: Collector, quick: Settings, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    with nobody_new(WORKER), running(quick, base, MemoryFleet(), MemoryLauncher()) as service:
        assert service.deploy()
    assert not sink.requests


@contextmanager
def nobody_new(name: str) -> Iterator[None]:
    """No thread of this name begins meanwhile."""
    before = {thread.ident for thread in threading.enumerate()}
    yield
    assert not [thread for thread in threading.enumerate() if thread.name == name and thread.ident not in before]


def test_hostile_trace_contexts_begin_a_trace_of_our_own(traced: Service, sink: Collector) -> None:
    hostile = [
        "",
        "00",
        PARENT.upper(),
        PARENT + "-more",
        PARENT + "\t",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE}-{SPAN}-zz",
        f"00-{TRACE}'; DROP TABLE sleeps; --",
        "0" * 60_000,
        "\u00ff" * 55,
    ]
    for n, given in enumerate(hostile):
        headers = [("traceparent", given.encode("latin-1")), ("tracestate", ("x=" + "y" * 5000).encode())]
        assert traced.client.get("/v1/deployments", headers=headers).status_code == 200, n  # type: ignore[arg-type]
    twice = [("traceparent", PARENT), ("traceparent", PARENT.replace(SPAN, "1" * 16))]
    assert traced.client.get("/v1/deployments", headers=twice).status_code == 200
    later = {"traceparent": f"cc-{TRACE}-{SPAN}-01-what-comes-later"}
    assert traced.client.get("/v1/deployments", headers=later).status_code == 200
    spans = told(traced, sink, "GET /v1/deployments", len(hostile) + 2)
    assert [span.trace == TRACE for span in sorted(spans, key=lambda span: span.start)] == [False] * (len(hostile) + 1) + [True]
    assert len({span.trace for span in spans}) == len(spans)


def test_a_client_that_records_nothing_is_followed_and_not_recorded(traced: Service, sink: Collector) -> None:
    traced.deploy()
    headers = {"traceparent": PARENT.removesuffix("01") + "00"}
    body = {"deployment": "toy", "text": "the city of mira is oslo ."}
    assert traced.client.post("/v1/experiences", json=body, headers=headers).json()["trace_id"] == TRACE
    traced.tell("the city of jehas is bergen .")
    (span,) = told(traced, sink, "POST /v1/experiences")
    assert span.trace != TRACE


def test_requests_are_told_by_their_routes_and_errors_without_words(traced: Service, sink: Collector) -> None:
    made = traced.deploy()
    assert traced.client.get(f"/v1/deployments/{made['id']}").status_code == 200
    assert traced.client.get("/v1/heptagon").status_code == 404
    assert traced.client.request("HEPTAGON", "/v1/deployments").status_code == 405
    assert traced.client.get("/readyz").status_code == 200

    async def fails(*_: object) -> None:
        raise RuntimeError(SECRET)

    traced.fleet.answer = fails  # type: ignore[method-assign, assignment]
    chat = {"model": "toy", "messages": [{"role": "user", "content": SECRET}]}
    assert traced.client.post("/v1/chat/completions", json=chat).status_code == 500
    (failed,) = told(traced, sink, "POST /v1/chat/completions")
    assert failed.failed
    assert (failed.attributes["http.response.status_code"], failed.attributes["error.type"]) == (500, "RuntimeError")
    assert failed.span.status.message == ""
    (found,) = told(traced, sink, "GET /v1/deployments/{id_or_name}")
    assert not found.failed
    (missing,) = told(traced, sink, "GET")
    assert (missing.attributes["http.response.status_code"], missing.failed) == (404, False)
    (other,) = told(traced, sink, "HTTP /v1/deployments")
    assert other.attributes["http.request.method"] == "_OTHER"
    assert not [span for span in sink.spans if "readyz" in span.name]
    assert not any(b"heptagon" in body.lower() for body in sink.raw)


def test_what_is_logged_is_of_the_trace_that_is_recorded(traced: Service, sink: Collector) -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.addFilter(naming.Named())
    handler.setFormatter(logging.Formatter(naming.FORMAT))
    root = logging.getLogger()
    root.addHandler(handler)
    try:
        traced.deploy()

        async def fails(*_: object) -> None:
            raise RuntimeError("no")

        traced.fleet.answer = fails  # type: ignore[method-assign, assignment]
        chat = {"model": "toy", "messages": [{"role": "user", "content": "hi"}]}
        assert traced.client.post("/v1/chat/completions", json=chat).status_code == 500
    finally:
        root.removeHandler(handler)
    (span,) = told(traced, sink, "POST /v1/chat/completions")
    (line,) = [line for line in stream.getvalue().splitlines() if "/v1/chat/completions failed" in line]
    assert f"trace={span.trace}]" in line


def test_an_experience_that_expires_or_is_erased_leaves_no_trace(traced: Service) -> None:
    traced.deploy()
    body = {"deployment": "toy", "text": "the city of mira is oslo .", "subject_id": "somebody"}
    met = traced.client.post("/v1/experiences", json=body, headers={"traceparent": PARENT}).json()
    assert met["trace_id"] == TRACE
    erasure = traced.client.post("/v1/erasures", json={"subject_id": "somebody", "mode": "delete"}).json()
    traced.until(lambda: traced.client.get(f"/v1/erasures/{erasure['id']}").json()["status"] == "succeeded")
    gone = traced.client.get(f"/v1/experiences/{met['id']}").json()
    assert (gone["status"], gone["trace_id"]) == ("erased", None)
