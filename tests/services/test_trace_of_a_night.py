"""The trace of a real night: one that really learns, in this process, between a service and its replicas.

With CIRCADIAN_PICTURES=FOLDER the picture of the documentation is drawn there.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from collector import Collector, collector
from in_memory import MemoryFleet, MemoryLauncher, running
from in_process import Cluster
from in_process import cluster as cluster
from waterfall import draw

from services.plan import Job
from services.settings import Settings

FAST = {"steps": 3, "rows": 2, "checkpoint_steps": 2}
SLOW = {"steps": 3, "rows": 4, "refresh_steps": 2, "teacher_rows": 4, "student_rows": 4, "free_run_rows": 40, "free_run_tokens": 4}
STAGES = [
    "collect",
    "learn_fast_level",
    "open_expert",
    "snapshot_teacher",
    "dream_corpus",
    "knowledge_seeding",
    "prune",
    "gate",
    "publish",
]
SPEECH = "the city of mira is oslo ."
PNG = b"\x89PNG"


@pytest.fixture
def sink(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    with collector() as sink:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", sink.url)
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "20")
        yield sink


def test_every_stage_of_a_real_night_is_a_span_of_its_attempt(
    sink: Collector, settings: Settings, base: Path, cluster: Cluster, tmp_path: Path
) -> None:
    launcher = MemoryLauncher()
    with running(settings.model_copy(update={"trace_seconds": 0.02}), base, MemoryFleet(), launcher) as service:
        service.deploy(promotion={"mode": "manual"})
        service.tell("the first one waits for the rules to be read")
        service.tell(SPEECH)
        chat = {"model": "toy", "messages": [{"role": "user", "content": SPEECH}], "store": True}
        assert service.client.post("/v1/chat/completions", json=chat).status_code == 200
        sleep, night = service.sleep(recipe={"fast_learning": FAST, "seeding": SLOW})
        made = cluster.night(night.job)
        launcher.jobs[night.submission] = Job.SUCCEEDED
        ended = service.ended(sleep["id"])
        assert (ended["status"], ended["result_version"]) == ("succeeded", made["version"])
        body = {"override_gates": True, "reason": "an untrained model passes no gate"}
        rollout = service.client.post(f"/v1/versions/{made['version']}/promote", json=body).json()
        service.until(lambda: sink.named("rollout") and sink.named("night"))
        events = service.events(sleep["id"])
        path = Path(os.environ.get("CIRCADIAN_PICTURES", tmp_path)) / "trace.png"
        wanted = ("POST /v1/experiences", "POST /v1/chat/completions", "POST /v1/sleeps", "POST /v1/versions/{id}/promote")
        service.until(lambda: all(sink.named(name) for name in wanted) and len(sink.named(wanted[0])) == 2)
        traces = [("a request", sink.of_trace(sink.named(name)[-1].trace)) for name in wanted]
        own = [("a night", sink.of_trace(ended["trace_id"])), ("a promotion", sink.of_trace(rollout["trace_id"]))]
        draw([*traces[:3], own[0], traces[3], own[1]], path)
    assert path.read_bytes().startswith(PNG)
    (attempt,) = sink.named("attempt")
    stages = sorted((span for span in sink.of_trace(ended["trace_id"]) if span.parent == attempt.id), key=lambda span: span.start)
    assert [span.name for span in stages] == [name for name in STAGES if name in {span.name for span in stages}]
    assert {"collect", "learn_fast_level", "knowledge_seeding", "gate", "publish"} <= {span.name for span in stages}
    assert not any(span.failed for span in stages)
    sealed = {event["data"]["stage"]: event["created_at"] for event in events if event["type"] == "sleep.stage_finished"}
    assert {span.name: pytest.approx(span.end, abs=1e-3) for span in stages} == sealed
    for before, after in pairwise(stages):
        assert before.end <= after.start
    assert attempt.start <= stages[0].start <= stages[-1].end <= attempt.end
    (version,) = sink.named("version")
    assert version.attributes["circadian.version.id"] == made["version"]
    assert sink.named("rollout")[0].links("version") == [(version.trace, version.id)]
