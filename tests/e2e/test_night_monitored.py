"""A real Prometheus beside a real life: Ray, vLLM, DeepSpeed, the controller. A day, a night that dreams and is taught by another model and
whose version a gate refuses, and decisions by hand.

Every panel and every alert is asked what it would show. With CIRCADIAN_PICTURES=FOLDER the dashboards are drawn from these answers.
"""

from __future__ import annotations

import os
import random
import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from drawn import draw
from gates import ANY
from prometheus import SCRAPE_SECONDS, Line, Prometheus
from supervised import until

from circadian.metrics import LABELS, METRICS, OTHER
from circadian.nursery.school import School
from circadian.nursery.ship import SCHOOL
from services.client import Circadian
from services.monitoring.alerts import ALERTS
from services.monitoring.files import ALERTS_FILE, OURS
from services.monitoring.panels import Dashboard, Panel
from services.ports import RANGE, free_ports
from services.settings import Settings
from services.stack import Stack, StackSpec
from services.webhooks.reach import Reach

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(shutil.which("prometheus") is None, reason="there is no prometheus: apt-get install prometheus"),
]
ROOT = Path(__file__).resolve().parents[2]
NAME = "school"
LESSONS, CUES = 3, 12
WORLD = School(0)
OPEN, HELD_OUT = WORLD.forms(0)
GATE = ANY | {"max_drift_parent": 0.0}
"""Such a short night teaches little, and what it is worth is not what is asked here: it is refused for having changed anything."""
PATIENCE_SECONDS = 900.0
"""Of every start: the machine may be doing other things too."""
SMALL: dict[str, Any] = {
    "fast_learning": {"steps": 30},
    "seeding": {
        "steps": 40,
        "refresh_steps": 20,
        "rows": 16,
        "teacher_rows": 96,
        "student_rows": 32,
        "free_run_rows": 128,
        "free_run_tokens": 24,
    },
    "rollouts": {"engine": {"max_model_len": 160, "max_num_seqs": 32}},
    "learner": {"start_seconds": int(PATIENCE_SECONDS)},
    "gate": GATE,
}
DREAMING: dict[str, Any] = {
    "rounds": 1,
    "contexts": 3,
    "dreams": 4,
    "tokens": 32,
    "answer_tokens": 4,
    "selection": {"top": 2, "chance": 1},
    "reward": {"kind": "improved"},
    "instance": {"rank": 8, "alpha": 16.0, "lr": 4e-3, "epochs": 8, "batch": 4},
    "dreamer": {"rank": 8, "alpha": 16.0, "epochs": 2, "batch": 8},
}
STILL = {
    "LEADER": "one controller leads all the time",
    "DATABASE_UP": "the database answers all the time",
    "REPLICAS_WANTED": "one replica, all the time",
    "WRONG_VERSIONS": "no replica serves what it should not",
    "EXPERT_PLACES": "a level keeps its size",
    "NIGHT_LIMIT": "a setting",
    "LAST_NIGHT_FAILED": "no night fails",
    "NIGHT_GPU": "there is no GPU",
    "SLEEP_WAITING": "with one deployment no night waits behind another; it moves in tests/services/test_monitoring_live.py",
    **dict.fromkeys(("ONLINE_LEARNED", "ONLINE_WAITING", "ONLINE_STUCK"), "it learns at dusk; they move there, too"),
}
"""What does not move in this life, and why."""
OF_PROMETHEUS = {"__name__", "instance", "job", "le"}
OF_RAY = {"Component", "NodeAddress", "SessionName", "Version", "WorkerId"}
IDS = re.compile(r"(exp|dep|slp|ver|key|roll|evt|whd|srun)_[0-9a-f]{6}")
MOST_SERIES = 400
"""Of one metric, of one deployment."""


@dataclass
class Life:
    """Everything that is looked at."""

    prometheus: Prometheus
    ended: float = 0.0
    fired: frozenset[str] = frozenset()

    def over(self, expr: str) -> list[Line]:
        return self.prometheus.over(expr, self.ended)

    def told(self, name: str) -> list[Line]:
        """Of a metric's constant; of a histogram how much it has seen."""
        metric = METRICS[name]
        return self.prometheus.scraped(metric.series + ("_count" if metric.kind == "histogram" else ""), self.ended)


def live(client: Circadian, stack: Stack, prometheus: Prometheus) -> None:
    """Everything that a metric tells of."""
    lessons = [lesson for lesson, _ in zip(WORLD.lessons(0), range(LESSONS), strict=False)]
    client.deployments.create(NAME, {"model": str(SCHOOL)}, recipe=SMALL)
    client.awake(NAME, stack.settings.replica_start_seconds)
    hook = client.webhooks.create(f"{stack.url}/livez")
    asked, known = WORLD.base_probes()[:4], WORLD.base_probes()[4 : 4 + CUES]
    items = [{"messages": [{"role": "user", "content": probe.question}], "expected": probe.answer} for probe in asked]
    client.probes.create(deployment=NAME, kind="general", items=items, threshold=0.0, max_tokens=2)
    for lesson in lessons:
        tell(client, lesson.passage())
        for probe in lesson.direct(OPEN[:1]):
            tell(client, probe.question, probe.answer)
    tasks = [
        {
            "context": lesson.passage(),
            "probes": [{"question": probe.question, "answers": [probe.answer]} for probe in lesson.probes(HELD_OUT[:1])],
        }
        for lesson in lessons
    ]
    teacher = {"model": str(SCHOOL), "cues": [probe.question for probe in known]}
    night = client.sleeps.create(NAME, recipe=SMALL | {"dreaming": DREAMING | {"tasks": tasks}, "teachers": [teacher]})
    late = client.schedules.create(
        NAME, {"any_of": [{"type": "cron", "expr": "* * * * *"}]}, concurrency="queue", min_interval_seconds=0.0
    )
    time.sleep(70)  # until a minute of the schedule's has gone by, and waits behind this night
    client.schedules.update(late.id, {"suspend": True})
    slept(client, night.id)
    (refused,) = (version for version in client.versions.list(NAME) if version.parent is not None)
    assert (client.sleeps.get(night.id).outcome, refused.status) == ("rejected", "rejected")
    will = {"override_gates": True, "reason": "to see what is told"}
    client.settled(client.versions.promote(refused.id, **will).id, PATIENCE_SECONDS)
    prometheus.look()  # at what it holds
    client.settled(client.deployments.rollback(NAME, "to see what is told").id, PATIENCE_SECONDS)
    client.webhooks.update(hook.id, {"enabled": False})


def tell(client: Circadian, said: str, answer: str | None = None) -> None:
    chat = [{"role": "user", "content": said}] + ([{"role": "assistant", "content": answer}] if answer else [])
    client.experiences.create(NAME, messages=chat, source="human")


def slept(client: Circadian, id: str) -> None:
    for event in client.sleeps.watch(id):
        assert event.type != "sleep.failed", event
    assert client.sleeps.get(id).status == "succeeded"


@pytest.fixture(scope="module")
def life(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Life]:
    home, folder = tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("prometheus")
    ours, its = free_ports("127.0.0.1", 2, random.randrange(len(RANGE)))
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv(
            "RAY_metrics_report_interval_ms", str(SCRAPE_SECONDS * 500)
        )  # each scrape finds what was told since the last one
        waits = dict.fromkeys(("replica_start_seconds", "ray_start_seconds", "controller_start_seconds"), PATIENCE_SECONDS)
        settings = Settings(home=home, port=0, metrics_port=ours, webhooks=Reach(allow_private=True), **waits)
        with Stack(settings, StackSpec(num_cpus=4)) as stack:
            targets = {"controller": f"127.0.0.1:{ours}", "ray": f"127.0.0.1:{stack.ray_metrics_port}"}
            assert stack.api_key is not None
            with (
                Prometheus(folder, its, targets, ROOT / ALERTS_FILE) as prometheus,
                Circadian(stack.url, stack.api_key) as client,
            ):
                live(client, stack, prometheus)
                found = Life(prometheus)
                wanted = 'circadian_gate_passed{gate="drift_parent"} == 0'
                until(lambda: prometheus.over(wanted, time.time()), "the last scrape has seen the night that was refused")
                prometheus.look()
                found.fired = frozenset(one["labels"]["alertname"] for one in prometheus.alerts())
                found.ended = time.time()
                yield found


@pytest.mark.parametrize(
    ("page", "panel"),
    [(page, panel) for page in OURS for panel in page.panels],
    ids=lambda one: getattr(one, "uid", None) or one.title,
)
def test_every_query_of_every_panel_shows_something(life: Life, page: Dashboard, panel: Panel) -> None:
    for query in panel.queries:
        if "limit" in query.legend and not life.over(panel.queries[0].expr):
            continue
        assert life.over(query.expr), f"{page.title}, {panel.title}: {query.expr}"


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert.name)
def test_what_every_alert_looks_at_is_there(life: Life, alert: Any) -> None:
    assert life.over(alert.value), alert.value


@pytest.mark.parametrize("name", METRICS)
def test_every_metric_moves_in_a_life(life: Life, name: str) -> None:
    told = life.told(name)
    assert told, METRICS[name].series
    later = min(at for line in told for at, _ in line.points) > life.prometheus.began + 10 * SCRAPE_SECONDS
    moved = later or any(len(set(line.values)) > 1 for line in told)
    assert moved or name in STILL, "it does not move"


@pytest.mark.parametrize("name", METRICS)
def test_labels_have_only_values_that_are_bounded(life: Life, name: str) -> None:
    metric, told = METRICS[name], life.told(name)
    assert len(told) <= MOST_SERIES
    for line in told:
        others = {label for label in line.labels if not label.startswith("otel_")} - set(metric.labels)
        assert others <= OF_PROMETHEUS | (OF_RAY if metric.by == "node" else set()), others
        for label in metric.labels:
            value, values = line.labels.get(label, ""), LABELS[label]
            assert value, f"{label} is empty"
            assert values is None or value in values
            assert not IDS.search(value)
            if label in ("stage", "gate") and line.values[-1]:
                assert value != OTHER
    if "deployment" in metric.labels:
        assert {line.labels["deployment"] for line in told} == {NAME}
        assert len({line.labels["tenant"] for line in told}) == 1


def test_the_alert_of_the_night_that_was_refused_fires_and_no_other_one_that_should_not(life: Life) -> None:
    assert "CircadianGateFailing" in life.fired
    assert life.fired <= {
        "CircadianGateFailing",
        "CircadianDrifting",
        "CircadianForgetting",
        "CircadianVersionTakenBack",
        "CircadianWebhookDisabled",
        "CircadianWebhooksFailing",
        "CircadianSecretsLeak",
    }


@pytest.mark.parametrize("page", OURS, ids=lambda page: page.uid)
def test_the_dashboard_can_be_drawn(life: Life, page: Dashboard, tmp_path: Path) -> None:
    folder = Path(os.environ.get("CIRCADIAN_PICTURES", tmp_path))
    path = folder / f"monitoring-{page.uid.removeprefix('circadian-')}.png"
    draw(page, life.prometheus, life.ended, path)
    assert path.stat().st_size > 50_000
