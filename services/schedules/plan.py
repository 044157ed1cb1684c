"""What a schedule calls for at a moment: pure functions from what it says and what is known. The controller looks every few seconds.

                                        no sleep is active
    an occurrence -----------------------------------------------------> FIRE: begin a sleep, and write it down under its key
         |          |
         |          |  a sleep is active: by the schedule's concurrency
         |          +-- queue: WAIT, queued ---------------------------> FIRE, when that has ended
         |          +-- replace: REPLACE (cancel it), queued ----------> FIRE, when that has ended
         |          +-- forbid --+
         +-----------------------+-------------------------------------> SKIP: written down with a reason, and never again

**Cron times** are occurrences of their own. Each is fired, or skipped with a reason, once: those since the last look (or since the schedule
was made) are due; of those that are not too late (`starting_deadline_seconds`) and not in a blackout the latest counts, and the others
are skipped. So however long nobody looked, one sleep begins, or none. A time that comes too soon after the last sleep, or finds nothing
to learn, or while the deployment cools down (cooling.py), is skipped too. One that has a place in the queue keeps it over blackouts,
intervals and a cool-down, whatever the deadline; there is one place, and a later one takes it over.

**Traffic** (tokens, experiences, idleness) is no point in time but a condition: while something is in its way it stands, and nothing is
skipped or written down. It never replaces an active sleep: where traffic is fast, none would ever end.

**A look is one transaction**: it reads and locks the schedule, decides, takes the step and writes what `kept` says. A WAIT that skips
nothing and leaves the queue as it was need not be written. Should two controllers look at once all the same, they name an occurrence alike
(`cron:2026-03-29T01:00:00+00:00`, in UTC; `token_budget:4` after four firings): a unique index over schedule and key lets one of them win,
and one over schedule and `number` refuses two different occurrences from one and the same state. The other's transaction fails whole,
and it looks again. A sleep that was begun by hand meanwhile is refused by the deployment's own index: look again too.

A clock that was put back repeats nothing: what was considered is not considered again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from heapq import merge
from itertools import groupby, islice, takewhile
from zoneinfo import ZoneInfo

from services.schedules import cron
from services.schedules.clock import covers, end_of
from services.schedules.spec import CronTrigger, ExperienceCountTrigger, IdleTrigger, ScheduleSpec, TokenBudgetTrigger

MOST_TOLD = 100
"""Occurrences that one look tells apart; after a long absence what was before them is missed unnamed."""
BLACKOUTS_AHEAD = 32
"""Windows in a row that the search for the next time goes over; where it meets one in each of them, none is in sight."""


class Step(StrEnum):
    FIRE = "fire"
    """Begin a sleep for the occurrence."""
    REPLACE = "replace"
    """Cancel the active sleep. The occurrence is queued, and fires when that has ended; asked again until then."""
    SKIP = "skip"
    """Nothing to begin; write down what was skipped."""
    WAIT = "wait"


class Reason(StrEnum):
    DUE = "due"
    NOT_DUE = "not_due"
    SUSPENDED = "suspended"
    BLACKOUT = "blackout"
    SLEEP_ACTIVE = "sleep_active"
    TOO_SOON = "too_soon"
    COOLING_DOWN = "cooling_down"
    NOTHING_PENDING = "nothing_pending"
    DEADLINE_MISSED = "deadline_missed"
    SUPERSEDED = "superseded"
    """A later one takes its place."""


@dataclass(frozen=True)
class Occurrence:
    """Something for which a sleep may begin. Strings and numbers alone, so that it can be kept as JSON while it is queued."""

    key: str
    """The same for whoever finds it."""
    trigger: str
    """Type of the trigger."""
    at: float
    """Unix seconds: when it came."""
    text: str


@dataclass(frozen=True)
class Skipped:
    """An occurrence that will never fire."""

    occurrence: Occurrence
    reason: Reason
    text: str


@dataclass(frozen=True)
class State:
    """Everything a decision depends on. Times are Unix seconds."""

    created_at: float
    """Of the schedule: earlier cron times are none of its."""
    considered_at: float | None = None
    """Up to when cron times were decided on. A change of the schedule sets it to the moment of the change."""
    fired: int = 0
    """Occurrences that were fired, those whose sleep could not begin after all too."""
    last_fired_at: float | None = None
    queued: Occurrence | None = None
    pending_tokens: int = 0
    pending_experiences: int = 0
    """That no sleep has taken."""
    pending_needed: bool = True
    """Without any a sleep has nothing to do. Not so where other models teach."""
    seconds_since_request: float = 0.0
    """Since the last one, or since requests are counted."""
    requests_per_second: float | None = None
    """Mean over the schedule's `idle_seconds`; None where they were not counted for that long."""
    sleep_active: bool = False
    """Of the deployment, for whatever cause."""
    last_sleep_began_at: float | None = None
    """Of the deployment, for whatever cause."""
    cooling_until: float | None = None
    """Until then no sleep begins, because the gates have refused versions of the deployment (cooling.py)."""


@dataclass(frozen=True)
class Decision:
    step: Step
    reason: Reason
    """Why: of a FIRE or REPLACE `due`, of a SKIP that of the last one skipped, of a WAIT what is in the way."""
    text: str
    number: int
    """Of the firing, were it one: `fired` of the state."""
    considered_at: float
    occurrence: Occurrence | None = None
    """What is fired, or is queued."""
    skipped: tuple[Skipped, ...] = ()
    """From the earliest to the latest, besides whatever step."""
    older_missed: bool = False
    """Occurrences before the first of `skipped` were missed as well: too many to tell."""
    next_at: float | None = None
    """The next cron time outside blackouts; None where none is in sight (all depends on traffic, or the schedule is suspended)."""

    @property
    def queued(self) -> Occurrence | None:
        return self.occurrence if self.step in (Step.REPLACE, Step.WAIT) else None


def decide(spec: ScheduleSpec, state: State, now: float) -> Decision:
    """The next step."""
    came, skipped, older_missed = _sort_out(spec, state, now)
    if spec.suspend:
        step, reason, text, occurrence = Step.WAIT, Reason.SUSPENDED, "the schedule is suspended", None
    elif came is None:
        step, reason, text, occurrence = _on_traffic(spec, state, now)
    else:
        step, reason, text, occurrence = _on_occurrence(spec, state, now, came)
    if step is Step.SKIP and occurrence is not None:
        skipped, occurrence = [*skipped, Skipped(occurrence, reason, text)], None
    elif step is Step.WAIT and occurrence is None and skipped:
        step, reason, text = Step.SKIP, skipped[-1].reason, skipped[-1].text
    return Decision(
        step,
        reason,
        text,
        number=state.fired,
        considered_at=max(now, _since(state)),
        occurrence=occurrence,
        skipped=tuple(skipped),
        older_missed=older_missed,
        next_at=_next_at(spec, max(now, _since(state))),
    )


def kept(state: State, decision: Decision) -> State:
    """What the schedule knows once a decision is acted on that was made of this state."""
    fires = decision.step is Step.FIRE
    return replace(
        state,
        considered_at=decision.considered_at,
        queued=decision.queued,
        fired=state.fired + fires,
        last_fired_at=decision.considered_at if fires else state.last_fired_at,
    )


_Verdict = tuple[Step, Reason, str, Occurrence | None]


def _sort_out(spec: ScheduleSpec, state: State, now: float) -> tuple[Occurrence | None, list[Skipped], bool]:
    """The occurrence that counts; all others that are due, with why they do not; and whether there were more."""
    due = list(islice(_due(spec, _since(state), now), MOST_TOLD + 1))
    came: Occurrence | None = None
    skipped: list[Skipped] = []
    for occurrence in [*due[:MOST_TOLD], *([state.queued] if state.queued else [])]:
        against = _against(spec, occurrence, now, came, waits=occurrence is state.queued)
        if against is None:
            came = occurrence
        else:
            skipped.append(Skipped(occurrence, *against))
    return came, sorted(skipped, key=lambda skip: skip.occurrence.at), len(due) > MOST_TOLD


def _against(
    spec: ScheduleSpec, occurrence: Occurrence, now: float, later: Occurrence | None, *, waits: bool
) -> tuple[Reason, str] | None:
    """Why an occurrence does not count, whatever the deployment does. One that waits was let in before."""
    if spec.suspend:
        return Reason.SUSPENDED, "the schedule is suspended"
    if not waits and (window := _blackout(spec, occurrence.at)):
        return Reason.BLACKOUT, window
    if not waits and now - occurrence.at > spec.starting_deadline_seconds:
        return Reason.DEADLINE_MISSED, f"nobody looked until {now - occurrence.at:.0f} s later"
    return (Reason.SUPERSEDED, f"{later.key} came before anything had begun") if later else None


def _on_occurrence(spec: ScheduleSpec, state: State, now: float, came: Occurrence) -> _Verdict:
    if state.sleep_active and spec.concurrency == "queue":
        return Step.WAIT, Reason.SLEEP_ACTIVE, f"{came.key} waits for the active sleep to end", came
    hindrance = _hindrance(spec, state, now, replaces=spec.concurrency == "replace")
    if hindrance is None:
        return (Step.REPLACE if state.sleep_active else Step.FIRE), Reason.DUE, came.text, came
    passes = hindrance[0] in (Reason.BLACKOUT, Reason.TOO_SOON, Reason.COOLING_DOWN)
    return Step.WAIT if state.queued and passes else Step.SKIP, *hindrance, came


def _on_traffic(spec: ScheduleSpec, state: State, now: float) -> _Verdict:
    met = next(_met(spec, state, now), None)
    if met is None:
        return Step.WAIT, Reason.NOT_DUE, "no trigger is due", None
    hindrance = _hindrance(spec, state, now, replaces=False)
    return (Step.FIRE, Reason.DUE, met.text, met) if hindrance is None else (Step.WAIT, *hindrance, None)


def _hindrance(spec: ScheduleSpec, state: State, now: float, *, replaces: bool) -> tuple[Reason, str] | None:
    """What keeps any sleep from beginning."""
    if window := _blackout(spec, now):
        return Reason.BLACKOUT, window
    if state.cooling_until is not None and now < state.cooling_until:
        return (
            Reason.COOLING_DOWN,
            f"the gates have refused its last versions; it cools down for {state.cooling_until - now:.0f} s more",
        )
    if state.sleep_active and not replaces:
        return Reason.SLEEP_ACTIVE, "the deployment sleeps"
    last = max(state.last_fired_at or 0.0, state.last_sleep_began_at or 0.0)
    if last and now < last + spec.min_interval_seconds:
        return (
            Reason.TOO_SOON,
            f"the last sleep began {now - last:.0f} s ago; min_interval_seconds is {spec.min_interval_seconds:g}",
        )
    if state.pending_needed and not state.pending_experiences:
        return Reason.NOTHING_PENDING, "there is no experience that no sleep has taken"
    return None


def _met(spec: ScheduleSpec, state: State, now: float) -> Iterator[Occurrence]:
    """The conditions that hold, in the schedule's order."""
    for trigger in spec.trigger.any_of:
        match trigger:
            case TokenBudgetTrigger(pending_tokens=budget):
                holds, text = state.pending_tokens >= budget, f"{state.pending_tokens} of {budget} tokens are pending"
            case ExperienceCountTrigger(count=count):
                holds, text = state.pending_experiences >= count, f"{state.pending_experiences} of {count} experiences are pending"
            case IdleTrigger(seconds=seconds):
                holds, text = _idle(trigger, state), f"for {seconds:g} s there were next to no requests"
            case _:
                continue
        if holds:
            yield Occurrence(f"{trigger.type}:{state.fired}", trigger.type, now, text)


def _idle(trigger: IdleTrigger, state: State) -> bool:
    """Idleness alone is no reason where nothing is pending: it lasts, and one sleep would follow on another."""
    rate = state.requests_per_second
    quiet = state.seconds_since_request >= trigger.seconds or (rate is not None and rate <= trigger.max_rps)
    return quiet and state.pending_experiences > 0


def _since(state: State) -> float:
    return state.created_at if state.considered_at is None else max(state.created_at, state.considered_at)


def _due(spec: ScheduleSpec, since: float, now: float) -> Iterator[Occurrence]:
    """Cron times after one moment and up to another, the last first. Of expressions that come together the first one counts."""
    found = [_named(trigger, since, now) for trigger in spec.crons]
    together = groupby(merge(*found, key=lambda occurrence: occurrence.at, reverse=True), key=lambda occurrence: occurrence.at)
    return (next(same) for _, same in together)


def _named(trigger: CronTrigger, since: float, now: float) -> Iterator[Occurrence]:
    for at in takewhile(lambda moment: moment > since, cron.until(trigger, now)):
        shown = datetime.fromtimestamp(at, ZoneInfo(trigger.timezone)).isoformat()
        key = f"cron:{datetime.fromtimestamp(at, UTC).isoformat()}"
        yield Occurrence(key, trigger.type, at, f"cron {trigger.expr!r} came at {shown} in {trigger.timezone}")


def _next_at(spec: ScheduleSpec, now: float) -> float | None:
    """Over a blackout it goes at once, so that an expression of every minute is no work."""
    if spec.suspend or not spec.crons:
        return None
    moment = now
    for _ in range(BLACKOUTS_AHEAD):
        at = min(next(cron.after(trigger, moment)) for trigger in spec.crons)
        ends = [end for window in spec.blackout if (end := end_of(window, at)) is not None]
        if not ends:
            return at
        # Where the clock is put back within a window, its end may have been shown before.
        moment = max(at, max(ends) - 1)
    return None


def _blackout(spec: ScheduleSpec, moment: float) -> str | None:
    """Which window a moment is in, in words."""
    inside = (f"from {w.start} to {w.end} in {w.timezone} no sleep begins" for w in spec.blackout if covers(w, moment))
    return next(inside, None)
