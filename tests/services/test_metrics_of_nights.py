"""What Prometheus is told of nights, versions, levels and lateness, while a service without a cluster lives through them."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from in_memory import Night, Service
from sqlalchemy import update

from circadian import metrics
from circadian.memory.state import MemoryState
from circadian.metrics import DEPLOYMENT, METRICS, Metric
from services.monitoring import fleet
from services.settings import Settings
from services.tables import ExperienceRow, Schedule, Sleep

GATES = (
    {"name": "agreement", "passed": True, "value": 0.9, "limit": 0.7, "message": ""},
    {"name": "lost", "passed": False, "value": 0.3, "limit": 0.1, "message": "lost 0.300 > 0.1"},
    {"name": "taught", "passed": True, "value": None, "limit": 0.7, "message": ""},
    {"name": "probe:prb_0", "passed": True, "value": 1.0, "limit": 0.5, "message": ""},
    {"name": "probe:prb_1", "passed": False, "value": 0.0, "limit": 0.5, "message": ""},
)
REPORT = {"gate": {"probes": {"prb_0": {"kind": "general", "score": 1.0}, "prb_1": {"kind": "general", "score": 0.0}}}}
DREAMT = {
    "dream_write_0": {"dreams": 12},
    "dream_try_0": {"tried": 6, "rewarded": 2, "broken": 1, "score": 0.5, "undreamt": 0.25},
    "dream_write_final": {"dreams": 8},
    "dream_try_final": {"tried": 4, "rewarded": 3, "broken": 0, "score": 0.75, "undreamt": None},
    "dream_keep": {"dreams": ["drm_0", "drm_1"]},
}


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Nobody looks at schedules but the test."""
    return settings.model_copy(update={"schedule_seconds": 3600.0})


def told(service: Service, metric: Metric, **labels: str) -> float | None:
    """One value of the deployment's."""
    whose = dict(zip(DEPLOYMENT, ("default", "toy"), strict=True)) if "deployment" in metric.labels else {}
    families = {family.name: family for family in service.controller.metrics.registry.collect()}
    count = f"{metric.series}_count" if metric.kind == "histogram" else metric.series
    values = [one.value for one in families[metric.name].samples if one.name == count and one.labels == whose | labels]
    return values[0] if values else None


def finish(night: Night, stage: str, seconds: float, **outputs: object) -> None:
    night.log.emit("sleep.stage_started", stage, stage=stage)
    night.log.emit("sleep.stage_finished", stage, stage=stage, seconds=seconds, outputs=outputs)


def test_a_night_is_told_while_it_runs_and_added_up_when_it_has_ended(service: Service) -> None:
    service.deploy()
    experience = service.tell()
    assert told(service, metrics.NIGHTS, outcome="promoted") == told(service, metrics.NIGHT_DURATION) == 0.0
    sleep, night = service.sleep()
    finish(night, "collect", 1.0)
    night.log.emit("sleep.stage_started", "", stage="knowledge_seeding_level-2")
    night.log.emit("sleep.progress", "", task="seeding", step=30, total_steps=120, loss=1.0)
    service.until(lambda: told(service, metrics.NIGHT_PROGRESS) == 0.25)
    assert told(service, metrics.NIGHT_STAGE, stage="knowledge_seeding") == 1.0
    assert told(service, metrics.NIGHT_STAGE, stage="collect") == 0.0
    assert (told(service, metrics.NIGHT_RUNNING) or 0.0) > 0.0
    for stage, outputs in DREAMT.items():
        finish(night, stage, 2.0, **outputs)
    night.end("candidate", gates=GATES[:1], report={})
    service.ended(sleep["id"])
    assert told(service, metrics.NIGHTS, outcome="promoted") == told(service, metrics.NIGHT_DURATION) == 1.0
    assert told(service, metrics.NIGHT_ATTEMPTS) == 1.0
    assert told(service, metrics.NIGHT_TOKENS) == experience["tokens"]
    assert told(service, metrics.STAGE_DURATION, stage="collect") == 1.0
    assert told(service, metrics.STAGE_DURATION, stage="dream_try") == 4.0, "of both rounds"
    assert (told(service, metrics.NIGHT_CPU) or 0.0) > 0.0 == told(service, metrics.NIGHT_GPU)
    fates = {fate: told(service, metrics.DREAMS, fate=fate) for fate in metrics.LABELS["fate"] or ()}
    assert fates == {"made": 20.0, "tried": 10.0, "rewarded": 5.0, "broken": 1.0, "kept": 2.0}
    assert told(service, metrics.DREAM_SCORE, of="dreamt") == 0.75, "of the last round"
    assert (told(service, metrics.NIGHT_RUNNING), told(service, metrics.NIGHT_PROGRESS)) == (0.0, 0.0)
    assert told(service, metrics.VERSIONS, status="active") == told(service, metrics.VERSIONS, status="retired") == 1.0
    assert (told(service, metrics.EXPERT_PLACES, level="0"), told(service, metrics.EXPERTS_USED, level="0")) == (1.0, 0.0)


def test_what_a_version_was_judged_by_is_told_by_criterion_and_names_no_probe(service: Service) -> None:
    service.deploy()
    service.tell()
    assert told(service, metrics.GATE_PASSED, gate="agreement") is None, "nothing was judged"
    sleep, night = service.sleep()
    night.end("rejected", made=True, gates=GATES, report=REPORT)
    service.ended(sleep["id"])
    assert told(service, metrics.NIGHTS, outcome="rejected") == 1.0
    assert (told(service, metrics.GATE_VALUE, gate="agreement"), told(service, metrics.GATE_LIMIT, gate="agreement")) == (0.9, 0.7)
    assert (told(service, metrics.GATE_PASSED, gate="agreement"), told(service, metrics.GATE_PASSED, gate="lost")) == (1.0, 0.0)
    assert told(service, metrics.GATE_VALUE, gate="taught") is None, "it was not measured"
    assert told(service, metrics.GATE_PASSED, gate="probes") == 0.0, "one of them has failed"
    assert told(service, metrics.PROBE_SCORE, probe="general") == 0.5
    assert "prb_" not in str([family.samples for family in service.controller.metrics.registry.collect()])


def test_a_counter_does_not_fall_when_a_night_that_failed_is_tried_again(service: Service) -> None:
    service.deploy()
    service.tell()
    sleep, night = service.sleep()
    finish(night, "collect", 1.0)
    finish(night, "dream_write_0", 2.0, dreams=12)
    night.end("failed", error={"code": "learner_failed", "message": "no", "category": "user"})
    assert service.ended(sleep["id"])["status"] == "failed"
    assert (told(service, metrics.NIGHTS, outcome="failed"), told(service, metrics.LAST_NIGHT_FAILED)) == (1.0, 1.0)
    assert service.client.post(f"/v1/sleeps/{sleep['id']}/retry").status_code in (200, 202)
    service.until(lambda: len(service.launcher.jobs) == 2)
    assert told(service, metrics.NIGHTS, outcome="failed") == 1.0
    night = Night(service.launcher, sleep["id"])
    finish(night, "gate", 4.0)
    night.end("candidate", report={})
    assert service.ended(sleep["id"])["status"] == "succeeded"
    assert (told(service, metrics.NIGHTS, outcome="failed"), told(service, metrics.NIGHTS, outcome="promoted")) == (1.0, 1.0)
    assert told(service, metrics.LAST_NIGHT_FAILED) == 0.0
    assert told(service, metrics.NIGHT_ATTEMPTS) == 2.0, "one in each life"
    stages = {stage: told(service, metrics.STAGE_DURATION, stage=stage) for stage in ("collect", "dream_write", "gate")}
    assert (stages, told(service, metrics.DREAMS, fate="made")) == ({"collect": 1.0, "dream_write": 2.0, "gate": 4.0}, 12.0)


def test_a_version_that_could_not_be_read_is_read_again(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(_: Path) -> MemoryState:
        raise OSError("the disk is away")

    with monkeypatch.context() as patch:
        patch.setattr(fleet, "version_state", gone)
        service.deploy()
        assert told(service, metrics.EXPERT_PLACES, level="0") is None
    assert told(service, metrics.EXPERT_PLACES, level="0") == 1.0


def test_a_schedule_that_nobody_has_looked_at_is_late_unless_it_is_suspended(service: Service) -> None:
    service.deploy()
    body = {"deployment": "toy", "trigger": {"any_of": [{"type": "cron", "expr": "0 3 1 1 *"}]}}
    made = service.client.post("/v1/schedules", json=body).json()
    assert told(service, metrics.SCHEDULE_LATE) == 0.0
    database, hour = service.controller.database, 3600.0

    def change(**values: object) -> None:
        with database.write() as tx:
            tx.execute(update(Schedule).where(Schedule.id == made["id"]).values(**values))

    change(queued={"key": "cron:x", "trigger": "cron", "at": time.time() - hour, "text": ""})
    assert told(service, metrics.SCHEDULE_LATE) == pytest.approx(hour, abs=60.0)
    change(cooling_until=time.time() + hour)
    assert told(service, metrics.SCHEDULE_LATE) == 0.0, "it waits on purpose"
    change(cooling_until=None, spec=made_spec(service, made["id"]) | {"suspend": True})
    assert told(service, metrics.SCHEDULE_LATE) == 0.0


def made_spec(service: Service, id: str) -> dict[str, object]:
    with service.controller.database.read() as tx:
        return dict(tx.query(Schedule).where(Schedule.id == id).one().spec)


def test_what_waits_is_told_with_its_age(service: Service) -> None:
    service.deploy()
    assert told(service, metrics.PENDING_OLDEST) == 0.0
    service.tell()
    with service.controller.database.write() as tx:
        tx.execute(update(ExperienceRow).values(created_at=time.time() - 7200.0))
    service.tell("the city of jehas is oslo .")
    assert told(service, metrics.PENDING_OLDEST) == pytest.approx(7200.0, abs=60.0)


def test_replicas_of_another_version_are_told_until_they_are_brought_back(service: Service) -> None:
    made = service.deploy()
    service.until(lambda: told(service, metrics.REPLICAS) == 1.0)
    assert (told(service, metrics.WRONG_VERSIONS), told(service, metrics.REPLICAS_WANTED)) == (0.0, 1.0)
    serving = service.controller.serving
    serving.sights[made["id"]] = type(serving.sights[made["id"]])(False, frozenset({"ver_other"}), running=1)
    assert told(service, metrics.WRONG_VERSIONS) == 1.0
    service.until(lambda: told(service, metrics.WRONG_VERSIONS) == 0.0)


def test_ways_back_are_counted_by_kind(service: Service) -> None:
    service.deploy()
    service.tell()
    sleep, night = service.sleep()
    night.end("candidate", report={})
    service.ended(sleep["id"])
    assert service.client.post("/v1/deployments/toy/rollback", json={"reason": "no"}).status_code == 202
    service.until(lambda: told(service, metrics.ROLLOUTS, kind="rollback", outcome="succeeded") == 1.0)
    assert told(service, metrics.ROLLOUTS, kind="promotion", outcome="succeeded") == 0.0


def test_a_sleep_that_waits_says_for_how_long(service: Service) -> None:
    service.deploy()
    service.tell()
    assert told(service, metrics.SLEEP_WAITING) == 0.0
    service.launcher.submission = "lost"
    answer = service.client.post("/v1/sleeps", json={"deployment": "toy"}).json()
    with service.controller.database.write() as tx:
        tx.execute(update(Sleep).where(Sleep.id == answer["id"]).values(created_at=time.time() - 3600.0))
    assert told(service, metrics.SLEEP_WAITING) == pytest.approx(3600.0, abs=60.0)
    service.launcher.submission = "confirmed"


def test_every_family_has_the_text_of_the_table(service: Service) -> None:
    families = {family.name: family for family in service.controller.metrics.registry.collect()}
    for metric in METRICS.values():
        if metric.by != "node":
            assert (families[metric.name].documentation, families[metric.name].type) == (metric.text, metric.kind)
