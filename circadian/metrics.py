"""Every metric that the service tells Prometheus: the one table from which those who tell them, the dashboards, the alerts and
docs/metrics.md are made.

    each      every controller, at its own port: what it did itself. A sum over controllers is right.
    leader    the controller that leads: what it looks up in the registry, which all controllers share, at each scrape
    node      a process of a night on the Ray cluster (actors/telling.py), at the port of its Ray node; Ray puts `ray_` before the name

Labels are bounded: no id, no text of anybody's. A tenant's and a deployment's name are as many as there are deployments.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from circadian.phases import Seconds
from circadian.specs import GateSpec

Kind = Literal["counter", "gauge", "histogram"]
Unit = Literal["", "seconds", "tokens", "ratio", "nats", "steps"]
Teller = Literal["each", "leader", "node"]
Shown = Literal["operators", "scientists"]

DEPLOYMENT = ("tenant", "deployment")
OTHER = "other"
"""What stands for a value that a label does not know."""
STATUS_ASLEEP = "503_asleep"
"""Of an answer that a client gets by design, because all replicas sleep: no `5..`, so that it counts as no error."""
STAGES = (
    "collect",
    "lectures",
    "learn_fast_level",
    "open_expert",
    "snapshot_teacher",
    "dream_corpus",
    "knowledge_seeding",
    "prune",
    "dream_tasks",
    "dream_begin",
    "dream_write",
    "dream_weigh",
    "dream_try",
    "dream_reinforce",
    "dream_keep",
    "dream_learn",
    "gate",
    "gate_without_dreams",
    "publish",
    "dawn",
)
"""Of a night, also where their names go on (`dream_write_0`, `knowledge_seeding_level-2`)."""
CRITERIA = tuple(limit.partition("_")[2] for limit in GateSpec.model_fields)
GATES = (*CRITERIA, "kept", "completed_canaries", "probes")
"""What a version is judged by: each criterion that has a limit in the recipe, whether anything of the past was measured, canaries that
were completed word for word, and all probes of the operator's together."""

LABELS: dict[str, tuple[str, ...] | None] = {
    "tenant": None,
    "deployment": None,
    "route": None,
    "level": None,
    "method": ("GET", "HEAD", "POST", "PATCH", "PUT", "DELETE", "OPTIONS", OTHER),
    "status": None,
    "outcome": None,
    "kind": ("promotion", "rollback", "revocation", "erasure"),
    "stage": (*STAGES, OTHER),
    "gate": (*GATES, OTHER),
    "fate": ("made", "tried", "rewarded", "broken", "kept"),
    "of": ("dreamt", "undreamt"),
    "task": ("fast_learning", "seeding"),
    "probe": ("retention", "acquisition", "general", "safety", "canary", "privacy"),
}
"""Values that a label may have; None: the table says where they come from, and that is bounded: names of deployments, templates of
routes, HTTP statuses (and STATUS_ASLEEP), levels of the memory, states of rows."""


@dataclass(frozen=True)
class Metric:
    """One metric."""

    name: str
    """As its teller names it: a counter's `_total` and Ray's `ray_` come on top."""
    kind: Kind
    text: str
    by: Teller
    shown: Shown
    labels: tuple[str, ...] = ()
    unit: Unit = ""
    buckets: tuple[float, ...] = ()
    """Upper bounds, of a histogram."""

    @property
    def series(self) -> str:
        """As Prometheus names it; of a histogram the name before `_bucket`, `_sum` and `_count`."""
        total = "_total" if self.kind == "counter" else ""
        return f"{'ray_' if self.by == 'node' else ''}{self.name}{total}"


ANSWER_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
"""From a look-up to the longest answer of a model."""
DELIVERY_SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
"""From a small expert to one replica, to one replica after the other being started anew."""
NIGHT_SECONDS = (60.0, 300.0, 900.0, 1800.0, 3600.0, 7200.0, 14_400.0, 28_800.0, 57_600.0, 86_400.0)
"""From a minute, of a small model on a CPU, to a whole day."""


# Requests

HTTP_REQUESTS = Metric(
    "circadian_http_requests", "counter", "Requests that were answered", "each", "operators", ("method", "route", "status")
)
HTTP_ANSWER = Metric(
    "circadian_http_answer_seconds",
    "histogram",
    "Until an answer began",
    "each",
    "operators",
    ("method", "route"),
    "seconds",
    ANSWER_SECONDS,
)
EXPERIENCES = Metric(
    "circadian_experiences", "counter", "Experiences that came in, by what became of them", "each", "operators", ("outcome",)
)

# The service and its fleet

LEADER = Metric("circadian_leader", "gauge", "Whether this controller leads", "each", "operators")
DATABASE_UP = Metric("circadian_database_up", "gauge", "Whether the database answers", "each", "operators")
DELIVERIES = Metric(
    "circadian_deliveries", "counter", "Deliveries of weights to replicas, by what came of them", "each", "operators", ("outcome",)
)
DELIVERY_DURATION = Metric(
    "circadian_delivery_seconds",
    "histogram",
    "Until every replica had proved a delivery",
    "each",
    "operators",
    (),
    "seconds",
    DELIVERY_SECONDS,
)
REPLICAS = Metric("circadian_replicas", "gauge", "Wake replicas that answer", "leader", "operators", DEPLOYMENT)
REPLICAS_WANTED = Metric(
    "circadian_replicas_wanted",
    "gauge",
    "Wake replicas that are to answer now, without those that a night has lent",
    "leader",
    "operators",
    DEPLOYMENT,
)
WRONG_VERSIONS = Metric(
    "circadian_wrong_versions",
    "gauge",
    "Versions that replicas say they serve and that are not to be served",
    "leader",
    "operators",
    DEPLOYMENT,
)
VERSIONS = Metric(
    "circadian_versions", "gauge", "Versions of a deployment, by status", "leader", "operators", (*DEPLOYMENT, "status")
)
ACTIVE_VERSION_AGE = Metric(
    "circadian_active_version_age_seconds",
    "gauge",
    "Since the version that serves was made",
    "leader",
    "operators",
    DEPLOYMENT,
    "seconds",
)
ROLLOUTS = Metric(
    "circadian_rollouts",
    "counter",
    "Promotions by hand and ways back, by what came of them",
    "leader",
    "operators",
    (*DEPLOYMENT, "kind", "outcome"),
)
EXPERTS_USED = Metric(
    "circadian_experts_used",
    "gauge",
    "Experts that the version that serves holds, of a level",
    "leader",
    "operators",
    (*DEPLOYMENT, "level"),
)
EXPERT_PLACES = Metric(
    "circadian_expert_places", "gauge", "Experts for which a level has room", "leader", "operators", (*DEPLOYMENT, "level")
)
PENDING_EXPERIENCES = Metric(
    "circadian_pending_experiences", "gauge", "Experiences that no version keeps yet", "leader", "operators", DEPLOYMENT
)
PENDING_TOKENS = Metric("circadian_pending_tokens", "gauge", "Of these experiences", "leader", "operators", DEPLOYMENT, "tokens")
PENDING_OLDEST = Metric(
    "circadian_pending_oldest_seconds",
    "gauge",
    "Since the oldest of these experiences came in; 0 without any",
    "leader",
    "operators",
    DEPLOYMENT,
    "seconds",
)
ONLINE_LEARNED = Metric(
    "circadian_online_learned_tokens",
    "gauge",
    "That a memory has learned while it serves, since it was last emptied; 0 where it learns at dusk",
    "leader",
    "operators",
    DEPLOYMENT,
    "tokens",
)
ONLINE_WAITING = Metric(
    "circadian_online_waiting_tokens",
    "gauge",
    "That a memory which learns while it serves has not learned; 0 where it learns at dusk",
    "leader",
    "operators",
    DEPLOYMENT,
    "tokens",
)
ONLINE_STUCK = Metric(
    "circadian_online_stuck", "gauge", "Whether a memory learns no more before its next night", "leader", "operators", DEPLOYMENT
)
WEBHOOK_DELIVERIES = Metric(
    "circadian_webhook_deliveries", "gauge", "Webhook deliveries of the last week, by status", "leader", "operators", ("status",)
)
WEBHOOKS_DISABLED = Metric(
    "circadian_webhook_endpoints_disabled", "gauge", "Endpoints to which nothing is sent any more", "leader", "operators"
)

# Nights

SLEEPS = Metric("circadian_sleeps", "gauge", "Sleeps, by status", "leader", "operators", ("status",))
SCHEDULE_LATE = Metric(
    "circadian_schedule_late_seconds",
    "gauge",
    "By which a sleep that a schedule was to begin has not begun; 0 where none is due",
    "leader",
    "operators",
    DEPLOYMENT,
    "seconds",
)
SLEEP_WAITING = Metric(
    "circadian_sleep_waiting_seconds",
    "gauge",
    "Since a sleep that has not begun was asked for, or its job given to the cluster; 0 where none waits",
    "leader",
    "operators",
    DEPLOYMENT,
    "seconds",
)
NIGHT_RUNNING = Metric(
    "circadian_night_running_seconds",
    "gauge",
    "Of the night that runs, pauses left out; 0 where none does",
    "leader",
    "operators",
    DEPLOYMENT,
    "seconds",
)
NIGHT_LIMIT = Metric(
    "circadian_night_limit_seconds", "gauge", "After which a night is stopped", "leader", "operators", (), "seconds"
)
NIGHT_STAGE = Metric(
    "circadian_night_stage",
    "gauge",
    "1 of the stage in which a night is, 0 of every other",
    "leader",
    "operators",
    (*DEPLOYMENT, "stage"),
)
NIGHT_PROGRESS = Metric(
    "circadian_night_stage_progress",
    "gauge",
    "How much of the stage that runs is done, where it says so",
    "leader",
    "operators",
    DEPLOYMENT,
    "ratio",
)
NIGHTS = Metric("circadian_nights", "counter", "Sleeps that have ended, by how", "leader", "operators", (*DEPLOYMENT, "outcome"))
LAST_NIGHT_FAILED = Metric(
    "circadian_last_night_failed", "gauge", "Whether the last sleep that ended has failed", "leader", "operators", DEPLOYMENT
)
NIGHT_DURATION = Metric(
    "circadian_night_seconds",
    "histogram",
    "From the first submission to the end, pauses left out",
    "leader",
    "operators",
    DEPLOYMENT,
    "seconds",
    NIGHT_SECONDS,
)
STAGE_DURATION = Metric(
    "circadian_night_stage_seconds",
    "counter",
    "Spent in each stage, of the nights that have ended",
    "leader",
    "operators",
    (*DEPLOYMENT, "stage"),
    "seconds",
)
NIGHT_ATTEMPTS = Metric(
    "circadian_night_attempts", "counter", "Ray jobs that the nights that have ended took", "leader", "operators", DEPLOYMENT
)
NIGHT_CPU = Metric(
    "circadian_night_cpu_seconds",
    "counter",
    "For which nights that have ended held a CPU of the cluster",
    "leader",
    "operators",
    DEPLOYMENT,
    "seconds",
)
NIGHT_GPU = Metric(
    "circadian_night_gpu_seconds",
    "counter",
    "For which nights that have ended held a GPU",
    "leader",
    "operators",
    DEPLOYMENT,
    "seconds",
)
NIGHT_TOKENS = Metric(
    "circadian_night_tokens",
    "counter",
    "Of the experiences on which sleeps that have ended were begun",
    "leader",
    "operators",
    DEPLOYMENT,
    "tokens",
)

# What nights are worth

GATE_VALUE = Metric(
    "circadian_gate_value",
    "gauge",
    "What the last version that was judged has shown, by criterion; what was not measured is missing",
    "leader",
    "scientists",
    (*DEPLOYMENT, "gate"),
)
GATE_LIMIT = Metric("circadian_gate_limit", "gauge", "What its recipe asks of it", "leader", "scientists", (*DEPLOYMENT, "gate"))
GATE_PASSED = Metric("circadian_gate_passed", "gauge", "Whether it has passed", "leader", "scientists", (*DEPLOYMENT, "gate"))
PROBE_SCORE = Metric(
    "circadian_probe_score",
    "gauge",
    "Mean score of the operator's probes of a kind, by the last version that was judged",
    "leader",
    "scientists",
    (*DEPLOYMENT, "probe"),
    "ratio",
)
DREAMS = Metric(
    "circadian_dreams",
    "counter",
    "Dreams of the nights that have ended, by what became of them",
    "leader",
    "scientists",
    (*DEPLOYMENT, "fate"),
)
DREAM_SCORE = Metric(
    "circadian_dream_score",
    "gauge",
    "Mean score of the instances that learned a dream, and of the undreamt ones, in the last round",
    "leader",
    "scientists",
    (*DEPLOYMENT, "of"),
    "ratio",
)
LEARNER_LOSS = Metric(
    "circadian_learner_loss", "gauge", "Mean loss of a step, a token", "node", "scientists", (*DEPLOYMENT, "task"), "nats"
)
LEARNER_GRADIENT = Metric(
    "circadian_learner_gradient_norm",
    "gauge",
    "2-norm of the written expert's gradient, before it is clipped",
    "node",
    "scientists",
    (*DEPLOYMENT, "task"),
)
LEARNER_STEPS = Metric(
    "circadian_learner_steps", "counter", "Steps that were taken", "node", "scientists", (*DEPLOYMENT, "task"), "steps"
)
LEARNER_STALENESS = Metric(
    "circadian_learner_staleness_steps",
    "gauge",
    "Between the student that wrote the rows and the one that learns from them",
    "node",
    "scientists",
    (*DEPLOYMENT, "task"),
    "steps",
)
ROLLOUT_TOKENS = Metric(
    "circadian_rollout_tokens", "counter", "That rollout workers have written", "node", "scientists", DEPLOYMENT, "tokens"
)
ROLLOUT_SECONDS = Metric("circadian_rollout_seconds", "counter", "In which they wrote", "node", "scientists", DEPLOYMENT, "seconds")

METRICS: dict[str, Metric] = {constant: value for constant, value in list(globals().items()) if isinstance(value, Metric)}
"""By the name of the constant."""


def stage_of(name: str) -> str:
    """The label of a night's stage."""
    fits = [stage for stage in STAGES if f"{name}_".startswith(f"{stage}_")]
    return max(fits, key=len, default=OTHER)


def by_stage(seconds: Seconds) -> Seconds:
    """Added up by their labels."""
    found: Seconds = {}
    for name, more in seconds.items():
        found[stage_of(name)] = found.get(stage_of(name), 0.0) + more
    return found
