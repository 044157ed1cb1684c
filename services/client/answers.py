"""What the service answers. Fields that this client does not know are kept, so that newer services can say more.

Answers are the one place where unknown fields are allowed: nobody mistypes what the service says. `model_dump(exclude_unset=True)` of an
answer is what was sent.
"""

from __future__ import annotations

from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, PrivateAttr

Json = dict[str, Any]
Time = int | float
"""Unix seconds."""


class Answer(BaseModel):
    model_config = ConfigDict(extra="allow", frozen=True, use_attribute_docstrings=True, protected_namespaces=())

    _etag: str | None = PrivateAttr(default=None)

    @property
    def etag(self) -> str | None:
        """To be sent back with a change, which is then refused where somebody else has been faster."""
        return self._etag

    def sent(self) -> Json:
        """As the service said it."""
        return self.model_dump(mode="json", exclude_unset=True)


A = TypeVar("A", bound=Answer)


class Page(Answer, Generic[A]):
    """Of a list."""

    data: list[A]
    has_more: bool = False
    last_id: str | None = None


class Object(Answer):
    """What all of them have."""

    id: str
    object: str = ""
    created_at: Time = 0
    metadata: dict[str, str] = {}


class Deployment(Object):
    name: str
    state: str = ""
    """provisioning, awake, drowsy, asleep, waking, failed."""
    active_version: str | None = None
    base_model: Json = {}
    memory: Json = {}
    recipe: Json = {}
    serving: Json = {}
    wake: str = "at_dusk"
    error: Any = None


class Pending(Answer):
    """What no sleep has taken yet."""

    experiences: int = 0
    tokens: int = 0


class FastMemory(Answer):
    """What a deployment has learned while it served."""

    chunks: int = 0
    tokens_until_update: int = 0
    error: str | None = None


class DeploymentStatus(Answer):
    deployment: str
    state: str
    active_version: str | None = None
    candidate_version: str | None = None
    """Of a canary that is under way."""
    accepting_requests: bool | None = None
    """Whether a chat would reach a replica; None: an earlier release does not say."""
    current_sleep: str | None = None
    waiting: str | None = None
    pending: Pending = Pending()
    wake: str = "at_dusk"
    fast_memory: FastMemory | None = None
    last_sleep: str | None = None
    next_sleep_at: Time | None = None
    """The earliest time that a schedule has; None where all depends on traffic."""
    error: Any = None


class Experience(Object):
    deployment: str
    status: str = ""
    """pending, screened, quarantined, consolidated, left_out, expired, erased."""
    source: str = ""
    messages: list[Json] = []
    text: str = ""
    tokens: int = 0
    version: str | None = None
    """That keeps it."""
    trace_id: str | None = None
    """Under which a collector of traces has it; None where the service sends none."""


class Feedback(Object):
    experience: str
    reward: float | None = None
    label: str | None = None
    comment: str | None = None


class Plan(Answer):
    """What a sleep would be, if it were begun now."""

    deployment: str
    parent_version: str | None = None
    experiences: Json = {}
    estimate: Json = {}
    would_fail: Json | None = None
    """Why, where it would fail before any work."""


class SleepError(Answer):
    code: str = ""
    message: str = ""
    category: str = "unknown"
    retryable: bool = False


class Progress(Answer):
    """Of the stage that runs."""

    fraction: float | None = None
    step: int | None = None
    total_steps: int | None = None


class Sleep(Object):
    deployment: str
    status: str
    phase: str | None = None
    outcome: str | None = None
    """promoted, candidate, rejected, no_op."""
    error: SleepError | None = None
    attempt: int = 0
    seed: int = 0
    finished_at: Time | None = None
    parent_version: str | None = None
    result_version: str | None = None
    waiting: str | None = None
    progress: Progress = Progress()
    links: dict[str, str] = {}
    """Paths of what there is to see of it; `ray_dashboard` is the page of its job."""
    trace_id: str | None = None
    """Under which a collector of traces has it; None where the service sends none."""

    @property
    def ended(self) -> bool:
        return self.status in ("succeeded", "failed", "cancelled")


class Event(Answer):
    """Of a sleep, in a stream, a list or a webhook."""

    type: str
    seq: int
    id: str = ""
    created_at: Time = 0
    level: str = "info"
    message: str = ""
    data: Json = {}


class Report(Answer):
    sleep: str
    outcome: str | None = None
    version: str | None = None


class Dream(Answer):
    id: str
    round: str = ""
    kind: str = ""
    text: str = ""
    score: float | None = None
    """What its context answers after it was learned."""
    undreamt: float | None = None
    """The same without it."""
    rewarded: bool | None = None


class DreamContext(Answer):
    """Where a context stood in a round of dreams."""

    id: str
    round: str = ""
    context: str = ""
    drawn: bool = False


class Gate(Answer):
    """One thing that a version was measured by."""

    name: str
    passed: bool
    value: float | None = None
    limit: float | None = None
    message: str = ""


class Version(Object):
    deployment: str
    status: str
    """candidate, active, retired, rejected, revoked."""
    parent: str | None = None
    sleep: str | None = None
    kind: str = ""
    """founding: the deployment's first. night: a sleep made it."""
    digest: str = ""
    base_model: Json = {}
    lineage: Any = None
    tokens: int = 0
    """Learned awake since the deployment was founded."""
    kept: dict[str, float] = {}
    """Of each earlier sleep the share that it still knows, where that was measured alone."""
    gates: list[Gate] | None = None
    signature: Any = None
    rollout: str | None = None
    """Of a revocation, where the version served."""
    trace_id: str | None = None
    """Under which a collector of traces has it; None where the service sends none."""


class Canary(Answer):
    percent: float = 0
    seconds: float = 0
    max_slowdown: float | None = None
    requests: int | None = None
    errors: int | None = None
    slowdown: float | None = None
    """How many times as long as the active version's its answers take; None while too few are known."""
    paces: Json = {}
    """By kind, `whole` (until the answer) and `stream` (until its first piece): answers and typical seconds of both versions."""


class Rollout(Object):
    deployment: str
    status: str
    """running, succeeded, failed, aborted."""
    kind: str = ""
    """promotion, rollback, revocation, erasure."""
    strategy: str = ""
    from_version: str | None = None
    to_version: str | None = None
    reason: str | None = None
    by: str | None = None
    error: Any = None
    canary: Canary | None = None
    finished_at: Time | None = None
    trace_id: str | None = None
    """Under which a collector of traces has it; None where the service sends none."""

    @property
    def ended(self) -> bool:
        return self.status != "running"


class Schedule(Object):
    deployment: str
    trigger: Json
    suspend: bool = False
    next_at: Time | None = None
    cooling_until: Time | None = None
    """It begins nothing before, because the gates have refused the deployment's last versions."""
    last_fired_at: Time | None = None
    fired: int = 0
    sleep_template: Json = {}


class ScheduleRun(Object):
    """What became of one of a schedule's occurrences."""

    schedule: str
    trigger: str = ""
    due_at: Time | None = None
    outcome: str = ""
    reason: str | None = None
    message: str | None = None
    sleep: str | None = None


class Probe(Object):
    deployment: str
    kind: str
    """retention, acquisition, general, safety, canary, privacy."""


class ProbeRun(Object):
    """A probe, asked of one version."""

    probe: str | None = None
    version: str | None = None
    status: str = ""
    score: float | None = None
    ci95: list[float] | None = None
    n: int | None = None
    error: Any = None


class ApiKey(Object):
    name: str
    prefix: str = ""
    scopes: list[str] = []
    tenant: str = ""
    deployments: list[str] | None = None
    requests_per_minute: int | None = None
    expires_at: Time | None = None
    last_used_at: Time | None = None
    revoked_at: Time | None = None
    key: str | None = None
    """Itself: only in the answer that made it."""


class Webhook(Object):
    url: str
    events: list[str] = []
    deployments: list[str] | None = None
    enabled: bool = True
    disabled: str | None = None
    """Why."""
    secret: str | None = None
    """Only in the answer that made it."""


class WebhookDelivery(Object):
    endpoint: str
    type: str = ""
    status: str = ""
    attempts: int = 0
    last_status: int | None = None
    last_reason: str | None = None


class AuditEvent(Object):
    actor: str = ""
    action: str = ""
    target: str | None = None
    request_id: str | None = None
    data: Json = {}


class UsageDay(Answer):
    """What a deployment was asked on a day."""

    deployment: str
    day: Time
    """Its first second, UTC."""
    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0


class Plain(Answer):
    """An answer of which nothing is known beforehand."""
