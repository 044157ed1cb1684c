"""What the trace of a night, or of a rollout, tells when it has ended: pure functions of what the registry keeps.

    night                            from when it was asked for (or retried by hand) until its sleep ended
      wait                           until its first job was submitted
      attempt                        a Ray job, from its submission until it came to nothing, or dawn
        collect, gate, ...           a stage, sealed or left unfinished
      dawn                           the replicas receive the version
      version                        from when it was made until its sleep ended

The same events make the same spans, under the same ids: a trace that is sent twice is the same trace. No span has words in it that a
client, or a model, has said: names of stages, ids of our own, codes and counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from services.states import DAWN
from services.tables import Event, Json, Rollout, Sleep, Version
from services.trace_context import TraceContext, Value, parse
from services.tracing import Bond, Moment, Told

MOST_SPANS, MOST_MOMENTS, MOST_BONDS = 2000, 128, 128
"""Of a trace; of its first span. A night may have learned from ten thousand experiences: what is left out is counted."""
UNFINISHED = "unfinished"
"""Of a stage that its attempt never sealed."""
ENDS = {"sleep.succeeded": "succeeded", "sleep.failed": "failed", "sleep.cancelled": "cancelled"}
RETRIED = "sleep.retried"
ATTEMPT_ENDS = ("sleep.retrying", "sleep.paused", *ENDS)
CALM = ("sleep.paused", "sleep.cancelled")
"""After which an unfinished stage is nobody's failure."""
SPANS = ("sleep.started", "sleep.stage_started", "sleep.stage_finished", "sleep.queued", RETRIED, *ENDS)
"""Events that are told as spans; all others are moments of the night."""
KEPT = ("attempt", "stage", "step")
"""Of an event's data: numbers and names of our own."""


@dataclass(frozen=True)
class Origin:
    """An experience that a night was begun on, and where it came in."""

    id: str
    trace: str | None
    kept: bool
    """By the version that the night made."""


def lives(events: Sequence[Event]) -> list[list[Event]]:
    """The events of a sleep, in the lives that an operator has given it."""
    found: list[list[Event]] = [[]]
    for event in events:
        if event.type == RETRIED:
            found.append([])
        found[-1].append(event)
    return found


def night_spans(
    sleep: Sleep, life: int, events: Sequence[Event], origins: Sequence[Origin], versions: Sequence[Version]
) -> list[Told]:
    """Of one life of a sleep, which has ended. events: all of the sleep; versions: what it made. Nothing where it has no trace, or where
    the life has not ended."""
    first, told = parse(sleep.trace), lives(events)
    if first is None or life >= len(told) or not told[life] or told[life][-1].type not in ENDS:
        return []
    return _Night(sleep, first.child(f"life {life}") if life else first, told[life]).spans(
        first if life else None, life, origins, versions
    )


class _Night:
    """Goes through the events of one life."""

    def __init__(self, sleep: Sleep, root: TraceContext, events: Sequence[Event]) -> None:
        self.sleep, self.root, self.events = sleep, root, events
        self.start, self.end = events[0].created_at, max(event.created_at for event in events)
        self.done: list[Told] = []
        self.attempt: Told | None = None
        self.stages: dict[str, Told] = {}
        """Those that have begun."""
        self.attempts, self.implied = 0, False
        """Implied: the cluster has confirmed the job later than the job has said what it does."""

    def spans(self, before: TraceContext | None, life: int, origins: Sequence[Origin], versions: Sequence[Version]) -> list[Told]:
        """before: the first span of the sleep, where it was retried since."""
        for event in self.events:
            self._hear(event)
        last = self.events[-1]
        made = [self._version(version) for version in versions if version.created_at >= self.start]
        bonds = [Bond(asked, {"circadian.link": "asked for by"})] if (asked := parse(self.sleep.asked_trace)) else []
        met, more = met_in(origins)
        attributes: dict[str, Value] = {
            "circadian.deployment.id": self.sleep.deployment,
            "circadian.sleep.id": self.sleep.id,
            "circadian.sleep.life": life,
            "circadian.sleep.status": ENDS[last.type],
            "circadian.sleep.attempts": self.attempts,
            "circadian.sleep.experiences": len(origins),
            "circadian.sleep.links_left_out": more,
            "circadian.version.parent": self.sleep.parent_version,
        }
        if outcome := last.data.get("outcome"):
            attributes["circadian.sleep.outcome"] = str(outcome)
        moments = [_moment(event) for event in self.events if event.type not in SPANS]
        night = Told(
            "night",
            self.root,
            before,
            self.start,
            self.end,
            attributes | {"circadian.sleep.moments_left_out": max(0, len(moments) - MOST_MOMENTS)},
            tuple(moments[:MOST_MOMENTS]),
            (*bonds, *met),
            _code(last.data) if last.type == "sleep.failed" else None,
        )
        return [night, *made, *self.done][:MOST_SPANS]

    def _hear(self, event: Event) -> None:
        stage = str(event.data.get("stage", ""))
        if event.type == "sleep.started":
            if not self.implied:
                self._end_attempt(event, calm=False)
                self._begin_attempt(event)
            self.implied = False
            assert self.attempt is not None
            number: dict[str, Value] = {"circadian.attempt": int(event.data.get("attempt", self.attempts))}
            self.attempt = replace(self.attempt, attributes=number)
        elif event.type == "sleep.stage_started":
            self._begin_stage(event, stage)
        elif event.type == "sleep.stage_finished" and stage in self.stages:
            self.done.append(replace(self.stages.pop(stage), end=event.created_at))
        elif event.type in ATTEMPT_ENDS:
            self._end_attempt(event, calm=event.type in CALM)

    def _begin_attempt(self, event: Event) -> None:
        if not self.attempts:
            self.done.append(self._told("wait", "wait", self.root, self.start, event.created_at))
        self.attempts += 1
        self.attempt = self._told("attempt", f"attempt {self.attempts}", self.root, event.created_at, event.created_at)

    def _begin_stage(self, event: Event, stage: str) -> None:
        if stage == DAWN:  # of the controller's: the job has ended
            self._end_attempt(event, calm=False)
        elif self.attempt is None:
            self._begin_attempt(event)
            self.implied = True
        elif event.created_at < self.attempt.start:  # of the same moment as the cluster's word, or by another clock
            self.attempt = replace(self.attempt, start=event.created_at)
        if stage in self.stages:
            self.done.append(_left(self.stages.pop(stage), event.created_at, calm=False))
        above = self.attempt.context if self.attempt else self.root
        self.stages[stage] = self._told(stage, f"stage {event.seq}", above, event.created_at, event.created_at)

    def _end_attempt(self, event: Event, calm: bool) -> None:
        """And with it the stages that were not sealed."""
        self.done += [_left(stage, event.created_at, calm) for stage in self.stages.values()]
        self.stages = {}
        if self.attempt is not None:
            error = _code(event.data) if event.type in ("sleep.retrying", "sleep.failed") else None
            self.done.append(replace(self.attempt, end=event.created_at, error=error))
        self.attempt = None

    def _version(self, version: Version) -> Told:
        passed = sum(bool(gate["passed"]) for gate in version.gates)
        attributes: dict[str, Value] = {
            "circadian.version.id": version.id,
            "circadian.version.gates": len(version.gates),
            "circadian.version.gates_passed": passed,
        }
        context = parse(version.trace) or self.root.child(version.id)
        return Told("version", context, self.root, version.created_at, self.end, attributes)

    def _told(
        self, name: str, key: str, parent: TraceContext, start: float, end: float, attributes: dict[str, Value] | None = None
    ) -> Told:
        return Told(name, self.root.child(key), parent, start, end, attributes or {})


def met_in(origins: Iterable[Origin]) -> tuple[list[Bond], int]:
    """Links to where experiences came in, the first ones of those that the version keeps before others, and how many are left out. Lines of
    a batch came in together: they are one link."""
    traced = [(context, origin) for origin in origins if (context := parse(origin.trace)) is not None]
    together: dict[TraceContext, list[Origin]] = {}
    for context, origin in sorted(traced, key=lambda pair: not pair[1].kept):
        together.setdefault(context, []).append(origin)
    bonds = [
        Bond(
            context,
            {
                "circadian.link": "experience",
                "circadian.experience.id": met[0].id,
                "circadian.experience.count": len(met),
                "circadian.experience.kept": any(origin.kept for origin in met),
            },
        )
        for context, met in together.items()
    ]
    return bonds[:MOST_BONDS], max(0, len(bonds) - MOST_BONDS)


def rollout_spans(rollout: Rollout, version: Version | None) -> list[Told]:
    """Of one that has ended. version: the one that it led to. Nothing where it has no trace."""
    root = parse(rollout.trace)
    if root is None or rollout.finished_at is None:
        return []
    night, asked = parse(version.trace) if version else None, parse(rollout.asked_trace)
    bonds = [Bond(night, {"circadian.link": "version", "circadian.version.id": rollout.to_version})] if night else []
    bonds += [Bond(asked, {"circadian.link": "asked for by"})] if asked else []
    attributes: dict[str, Value] = {
        "circadian.deployment.id": rollout.deployment,
        "circadian.rollout.id": rollout.id,
        "circadian.rollout.kind": rollout.kind,
        "circadian.rollout.strategy": rollout.strategy,
        "circadian.rollout.status": rollout.status,
        "circadian.version.from": rollout.from_version,
        "circadian.version.id": rollout.to_version,
    }
    error = None if rollout.status == "succeeded" else rollout.status
    first = Told("rollout", root, None, rollout.created_at, rollout.finished_at, attributes, bonds=tuple(bonds), error=error)
    if rollout.live_at is None:
        return [first]
    counts: dict[str, Value] = {"circadian.canary.requests": rollout.requests, "circadian.canary.errors": rollout.errors}
    return [first, Told("canary", root.child("canary"), root, rollout.live_at, rollout.finished_at, counts)]


def _left(stage: Told, at: float, calm: bool) -> Told:
    """A stage that was not sealed."""
    return replace(
        stage, end=at, attributes=stage.attributes | {"circadian.stage.sealed": False}, error=None if calm else UNFINISHED
    )


def _moment(event: Event) -> Moment:
    data: dict[str, Value] = {f"circadian.{name}": value for name in KEPT if isinstance(value := event.data.get(name), str | int)}
    if code := _code(event.data, ""):
        data["error.type"] = code
    return Moment(event.type, event.created_at, data)


def _code(data: Json, otherwise: str = "unknown") -> str:
    """Of the error that an event tells; not its words."""
    error = data.get("error")
    return str(error.get("code", otherwise)) if isinstance(error, dict) else otherwise
