"""What a look at a schedule calls for, as tables; and what holds whenever, and however often, somebody looks."""

from __future__ import annotations

from dataclasses import asdict, replace
from datetime import UTC, datetime
from itertools import pairwise, takewhile
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.schedules import cron
from services.schedules.plan import MOST_TOLD, Decision, Occurrence, Reason, State, Step, decide, kept
from services.schedules.spec import ScheduleSpec

MINUTE, HOUR, DAY = 60.0, 3600.0, 86400.0


def seconds(iso: str) -> float:
    return datetime.fromisoformat(iso).timestamp()


def nightly(expr: str = "30 2 * * *", zone: str = "UTC") -> dict[str, Any]:
    return {"type": "cron", "expr": expr, "timezone": zone}


def schedule(*triggers: dict[str, Any], **others: Any) -> ScheduleSpec:
    return ScheduleSpec.model_validate({"trigger": {"any_of": triggers}, **others})


TOKENS = {"type": "token_budget", "pending_tokens": 1000}
COUNT = {"type": "experience_count", "count": 10}
IDLE = {"type": "idle", "seconds": 600.0, "max_rps": 0.1}
DUE = seconds("2026-06-02T02:30Z")
KEY = "cron:2026-06-02T02:30:00+00:00"
MET = State(created_at=DUE - DAY / 2, pending_tokens=900, pending_experiences=9)
"""Something was met; no sleep is active, and there was none before."""
ASLEEP = {"sleep_active": True, "last_sleep_began_at": DUE - 2 * HOUR}
ENDED = {"sleep_active": False, "last_sleep_began_at": DUE - 2 * HOUR}
WINDOW = {"start": "02:00", "end": "04:00"}
LATER = [{"start": "02:31", "end": "04:00"}]
"""After the occurrence."""
QUEUED = Occurrence(KEY, "cron", DUE, "")


def looked(spec: ScheduleSpec, state: State, now: float = DUE + 5) -> tuple[Step, Reason]:
    decision = decide(spec, state, now)
    return decision.step, decision.reason


@pytest.mark.parametrize(
    ("spec", "state", "now", "step", "reason"),
    [
        # Cron.
        (schedule(nightly()), MET, DUE - 1, Step.WAIT, Reason.NOT_DUE),
        (schedule(nightly()), MET, DUE, Step.FIRE, Reason.DUE),
        (schedule(nightly()), MET, DUE + HOUR, Step.FIRE, Reason.DUE),
        (schedule(nightly()), MET, DUE + HOUR + 1, Step.SKIP, Reason.DEADLINE_MISSED),
        (schedule(nightly(), starting_deadline_seconds=60), MET, DUE + 61, Step.SKIP, Reason.DEADLINE_MISSED),
        (schedule(nightly()), replace(MET, created_at=DUE), DUE + 1, Step.WAIT, Reason.NOT_DUE),
        (schedule(nightly()), replace(MET, considered_at=DUE), DUE + 1, Step.WAIT, Reason.NOT_DUE),
        (schedule(nightly()), replace(MET, considered_at=DUE + 9), DUE + 1, Step.WAIT, Reason.NOT_DUE),  # the clock was put back
        (schedule(nightly(), suspend=True), MET, DUE, Step.SKIP, Reason.SUSPENDED),
        (schedule(nightly(), suspend=True), MET, DUE - 1, Step.WAIT, Reason.SUSPENDED),
        (schedule(nightly(), blackout=[WINDOW]), MET, DUE, Step.SKIP, Reason.BLACKOUT),
        (schedule(nightly(), blackout=[WINDOW]), MET, seconds("2026-06-02T04:00Z"), Step.SKIP, Reason.BLACKOUT),
        (schedule(nightly(), blackout=LATER), MET, DUE + MINUTE, Step.SKIP, Reason.BLACKOUT),
        (schedule(nightly()), replace(MET, pending_experiences=0), DUE, Step.SKIP, Reason.NOTHING_PENDING),
        (schedule(nightly()), replace(MET, pending_experiences=0, pending_needed=False), DUE, Step.FIRE, Reason.DUE),
        (schedule(nightly()), replace(MET, last_fired_at=DUE - 599), DUE, Step.SKIP, Reason.TOO_SOON),
        (schedule(nightly()), replace(MET, last_sleep_began_at=DUE - 599), DUE, Step.SKIP, Reason.TOO_SOON),
        (schedule(nightly()), replace(MET, last_sleep_began_at=DUE - 600, last_fired_at=DUE - DAY), DUE, Step.FIRE, Reason.DUE),
        (schedule(nightly(), min_interval_seconds=0), replace(MET, last_fired_at=DUE), DUE, Step.FIRE, Reason.DUE),
        (schedule(nightly()), replace(MET, cooling_until=DUE + 1), DUE, Step.SKIP, Reason.COOLING_DOWN),
        (schedule(nightly()), replace(MET, cooling_until=DUE), DUE, Step.FIRE, Reason.DUE),
        (
            schedule(nightly(), concurrency="queue"),
            replace(MET, **ENDED, queued=QUEUED, cooling_until=DUE + 9),
            DUE,
            Step.WAIT,
            Reason.COOLING_DOWN,
        ),
        (
            schedule(nightly(), concurrency="replace"),
            replace(MET, **ASLEEP, cooling_until=DUE + 1),
            DUE,
            Step.SKIP,
            Reason.COOLING_DOWN,
        ),
        # While a sleep is active.
        (schedule(nightly()), replace(MET, **ASLEEP), DUE, Step.SKIP, Reason.SLEEP_ACTIVE),
        (schedule(nightly(), concurrency="queue"), replace(MET, **ASLEEP), DUE, Step.WAIT, Reason.SLEEP_ACTIVE),
        (schedule(nightly(), concurrency="replace"), replace(MET, **ASLEEP), DUE, Step.REPLACE, Reason.DUE),
        (
            schedule(nightly(), concurrency="replace"),
            replace(MET, **ASLEEP | {"last_sleep_began_at": DUE - 5}),
            DUE,
            Step.SKIP,
            Reason.TOO_SOON,
        ),
        (
            schedule(nightly(), concurrency="replace"),
            replace(MET, **ASLEEP, pending_experiences=0),
            DUE,
            Step.SKIP,
            Reason.NOTHING_PENDING,
        ),
        # Traffic.
        (schedule(TOKENS), replace(MET, pending_tokens=999), DUE, Step.WAIT, Reason.NOT_DUE),
        (schedule(TOKENS), replace(MET, pending_tokens=1000), DUE, Step.FIRE, Reason.DUE),
        (schedule(COUNT), MET, DUE, Step.WAIT, Reason.NOT_DUE),
        (schedule(COUNT), replace(MET, pending_experiences=10), DUE, Step.FIRE, Reason.DUE),
        (schedule(IDLE), replace(MET, seconds_since_request=599), DUE, Step.WAIT, Reason.NOT_DUE),
        (schedule(IDLE), replace(MET, seconds_since_request=600), DUE, Step.FIRE, Reason.DUE),
        (schedule(IDLE), replace(MET, seconds_since_request=5, requests_per_second=0.1), DUE, Step.FIRE, Reason.DUE),
        (schedule(IDLE), replace(MET, seconds_since_request=5, requests_per_second=0.11), DUE, Step.WAIT, Reason.NOT_DUE),
        (schedule(IDLE), replace(MET, seconds_since_request=600, pending_experiences=0), DUE, Step.WAIT, Reason.NOT_DUE),
        (
            schedule(IDLE),
            replace(MET, seconds_since_request=600, pending_experiences=0, pending_needed=False),
            DUE,
            Step.WAIT,
            Reason.NOT_DUE,
        ),
        # What stands in the way of traffic is waited for.
        (schedule(TOKENS, suspend=True), replace(MET, pending_tokens=1000), DUE, Step.WAIT, Reason.SUSPENDED),
        (schedule(TOKENS, blackout=[WINDOW]), replace(MET, pending_tokens=1000), DUE, Step.WAIT, Reason.BLACKOUT),
        (schedule(TOKENS), replace(MET, pending_tokens=1000, last_fired_at=DUE - 9), DUE, Step.WAIT, Reason.TOO_SOON),
        (schedule(TOKENS), replace(MET, pending_tokens=1000, cooling_until=DUE + 1), DUE, Step.WAIT, Reason.COOLING_DOWN),
        (schedule(COUNT), replace(MET, pending_experiences=10, cooling_until=DUE + 1), DUE, Step.WAIT, Reason.COOLING_DOWN),
        (schedule(IDLE), replace(MET, seconds_since_request=600, cooling_until=DUE + 1), DUE, Step.WAIT, Reason.COOLING_DOWN),
        (schedule(IDLE), replace(MET, seconds_since_request=600, cooling_until=DUE), DUE, Step.FIRE, Reason.DUE),
        *(
            (schedule(TOKENS, concurrency=way), replace(MET, pending_tokens=1000, **ASLEEP), DUE, Step.WAIT, Reason.SLEEP_ACTIVE)
            for way in ("forbid", "queue", "replace")
        ),
        # A cron time that is missed keeps nothing else from firing.
        (schedule(nightly(), TOKENS), replace(MET, pending_tokens=1000), DUE + DAY / 2, Step.FIRE, Reason.DUE),
        # One that has waited in the queue.
        (
            schedule(nightly(), concurrency="queue"),
            replace(MET, queued=QUEUED, **ASLEEP),
            DUE + HOUR,
            Step.WAIT,
            Reason.SLEEP_ACTIVE,
        ),
        (schedule(nightly(), concurrency="queue"), replace(MET, queued=QUEUED, **ENDED), DUE + 9 * HOUR, Step.FIRE, Reason.DUE),
        (
            schedule(nightly(), concurrency="queue", blackout=LATER),
            replace(MET, queued=QUEUED, **ENDED),
            DUE + HOUR,
            Step.WAIT,
            Reason.BLACKOUT,
        ),
        (
            schedule(nightly(), concurrency="queue", min_interval_seconds=6 * HOUR),
            replace(MET, queued=QUEUED, **ENDED),
            DUE + HOUR,
            Step.WAIT,
            Reason.TOO_SOON,
        ),
        (
            schedule(nightly(), concurrency="queue"),
            replace(MET, queued=QUEUED, **ENDED, pending_experiences=0),
            DUE + HOUR,
            Step.SKIP,
            Reason.NOTHING_PENDING,
        ),
        (schedule(nightly(), suspend=True), replace(MET, queued=QUEUED, **ENDED), DUE + HOUR, Step.SKIP, Reason.SUSPENDED),
        # The schedule was changed meanwhile.
        (schedule(nightly()), replace(MET, queued=QUEUED, **ASLEEP), DUE + HOUR, Step.SKIP, Reason.SLEEP_ACTIVE),
        # The sleep that is being replaced has not ended yet; another one has just begun instead.
        (schedule(nightly(), concurrency="replace"), replace(MET, queued=QUEUED, **ASLEEP), DUE + HOUR, Step.REPLACE, Reason.DUE),
        (
            schedule(nightly(), concurrency="replace"),
            replace(MET, queued=QUEUED, sleep_active=True, last_sleep_began_at=DUE + HOUR - 5),
            DUE + HOUR,
            Step.WAIT,
            Reason.TOO_SOON,
        ),
    ],
)
def test_what_a_look_calls_for(spec: ScheduleSpec, state: State, now: float, step: Step, reason: Reason) -> None:
    # One that is queued was considered.
    state = replace(state, considered_at=DUE) if state.queued else state
    assert looked(spec, state, now) == (step, reason)


def key(decision: Decision) -> str | None:
    return decision.occurrence.key if decision.occurrence else None


def keys(decision: Decision) -> list[tuple[str, Reason]]:
    return [(skip.occurrence.key, skip.reason) for skip in decision.skipped]


def test_the_key_of_an_occurrence_does_not_depend_on_who_finds_it_nor_when() -> None:
    berlin = schedule(nightly(zone="Europe/Berlin"))
    state = replace(MET, created_at=seconds("2026-03-28T12:00Z"))
    found = {decide(berlin, state, seconds(at)).occurrence for at in ("2026-03-29T01:00Z", "2026-03-29T01:17:03.5Z")}
    assert [occurrence.key for occurrence in found if occurrence] == ["cron:2026-03-29T01:00:00+00:00"]
    # Named by two expressions, on two walls: one occurrence.
    both = schedule(nightly("0 1 * * *"), nightly(zone="Europe/Berlin"))
    decision = decide(both, state, seconds("2026-03-29T01:00Z"))
    assert key(decision) == "cron:2026-03-29T01:00:00+00:00"
    assert not decision.skipped
    for kind, trigger in (("token_budget", TOKENS), ("experience_count", COUNT), ("idle", IDLE)):
        busy = replace(MET, pending_tokens=5000, pending_experiences=50, seconds_since_request=DAY, fired=7)
        for now in (DUE, DUE + 0.3):
            decision = decide(schedule(trigger), busy, now)
            assert key(decision) == f"{kind}:7"
            assert decision.number == 7


def test_after_an_absence_one_sleep_begins_and_the_rest_is_told_as_missed() -> None:
    hourly = schedule(nightly("0 * * * *"), starting_deadline_seconds=2 * HOUR)
    decision = decide(hourly, replace(MET, created_at=seconds("2026-06-01T00:30Z")), seconds("2026-06-01T04:10Z"))
    assert decision.step is Step.FIRE
    assert key(decision) == "cron:2026-06-01T04:00:00+00:00"
    assert keys(decision) == [
        ("cron:2026-06-01T01:00:00+00:00", Reason.DEADLINE_MISSED),
        ("cron:2026-06-01T02:00:00+00:00", Reason.DEADLINE_MISSED),
        ("cron:2026-06-01T03:00:00+00:00", Reason.SUPERSEDED),
    ]
    assert not decision.older_missed


def test_a_long_absence_is_told_in_part() -> None:
    decision = decide(schedule(nightly("* * * * *")), replace(MET, created_at=DUE - 365 * DAY), DUE)
    assert decision.step is Step.FIRE
    assert len(decision.skipped) == MOST_TOLD - 1
    assert decision.older_missed


def test_of_times_in_time_the_latest_outside_blackouts_counts() -> None:
    hourly = schedule(nightly("0 * * * *"), blackout=[{"start": "04:00", "end": "04:05"}])
    decision = decide(hourly, replace(MET, created_at=seconds("2026-06-01T02:30Z")), seconds("2026-06-01T04:10Z"))
    assert keys(decision)[-1] == ("cron:2026-06-01T04:00:00+00:00", Reason.BLACKOUT)
    assert keys(decision)[0] == ("cron:2026-06-01T03:00:00+00:00", Reason.DEADLINE_MISSED)  # 70 minutes
    patient = hourly.model_copy(update={"starting_deadline_seconds": 2 * HOUR})
    decision = decide(patient, replace(MET, created_at=seconds("2026-06-01T02:30Z")), seconds("2026-06-01T04:10Z"))
    assert key(decision) == "cron:2026-06-01T03:00:00+00:00"


def test_the_queue_has_one_place_and_the_latest_has_it() -> None:
    hourly = schedule(nightly("0 * * * *"), concurrency="queue")
    state = replace(
        MET, created_at=seconds("2026-06-01T00:30Z"), sleep_active=True, last_sleep_began_at=seconds("2026-06-01T00:00Z")
    )
    told = []
    for hour in (1, 2, 3):
        decision = decide(hourly, state, seconds(f"2026-06-01T0{hour}:00:05Z"))
        told += keys(decision)
        state = kept(state, decision)
    assert told == [(f"cron:2026-06-01T0{hour}:00:00+00:00", Reason.SUPERSEDED) for hour in (1, 2)]
    state = replace(state, queued=Occurrence(**asdict(state.queued)))
    decision = decide(hourly, replace(state, sleep_active=False), seconds("2026-06-01T03:20Z"))
    assert decision.step is Step.FIRE
    assert key(decision) == "cron:2026-06-01T03:00:00+00:00"
    state = kept(replace(state, sleep_active=True), decision)
    assert state.queued is None
    assert state.fired == 1
    assert looked(hourly, state, seconds("2026-06-01T03:21Z")) == (Step.WAIT, Reason.NOT_DUE)


def test_a_replaced_sleep_is_cancelled_and_the_occurrence_fires_when_it_has_ended() -> None:
    spec = schedule(nightly(), concurrency="replace")
    state = replace(MET, **ASLEEP)
    for late in (1, 6, 11):  # the cancelling takes a while
        decision = decide(spec, state, DUE + late)
        assert decision.step is Step.REPLACE
        assert key(decision) == KEY
        assert decision.queued
        assert not decision.skipped
        state = kept(state, decision)
    decision = decide(spec, replace(state, sleep_active=False), DUE + 16)
    assert decision.step is Step.FIRE
    assert key(decision) == KEY
    assert kept(state, decision).queued is None


@pytest.mark.parametrize(
    ("spec", "now", "next_at"),
    [
        (schedule(nightly()), "2026-06-01T02:30Z", "2026-06-02T02:30Z"),
        (schedule(nightly()), "2026-06-01T02:29:59Z", "2026-06-01T02:30Z"),
        (schedule(nightly(zone="Europe/Berlin")), "2026-03-28T12:00Z", "2026-03-29T01:00Z"),
        (schedule(nightly(), nightly("0 5 * * *"), TOKENS), "2026-06-01T03:00Z", "2026-06-01T05:00Z"),
        (schedule(TOKENS, IDLE), "2026-06-01T03:00Z", None),
        (schedule(nightly(), suspend=True), "2026-06-01T03:00Z", None),
        (schedule(nightly("* * * * *"), blackout=[{"start": "22:00", "end": "06:30"}]), "2026-06-01T22:00Z", "2026-06-02T06:30Z"),
        (
            schedule(nightly(), blackout=[{"start": "02:00", "end": "03:00", "days": ["tue"]}]),
            "2026-06-01T12:00Z",
            "2026-06-03T02:30Z",
        ),
        (schedule(nightly(), blackout=[WINDOW]), "2026-06-01T12:00Z", None),
        # In the hour that is shown twice, within a window whose end was shown before.
        (
            schedule(nightly("*/10 * * * *"), blackout=[{"start": "02:00", "end": "02:30", "timezone": "Europe/Berlin"}]),
            "2026-10-25T00:55Z",
            "2026-10-25T01:30Z",
        ),
    ],
)
def test_when_the_next_cron_time_is(spec: ScheduleSpec, now: str, next_at: str | None) -> None:
    decision = decide(spec, replace(MET, created_at=seconds(now), considered_at=seconds(now)), seconds(now))
    assert decision.next_at == (None if next_at is None else seconds(next_at))


class Registry:
    """What a controller keeps of a schedule, with the two unique indexes; and a deployment that sleeps for a while."""

    def __init__(self, created_at: float, sleep_seconds: float) -> None:
        self.state = replace(MET, created_at=created_at)
        self.sleep_seconds = sleep_seconds
        self.fired: dict[str, Occurrence] = {}
        self.numbers: set[int] = set()
        self.skipped: dict[str, Reason] = {}

    def read(self, now: float) -> State:
        began = self.state.last_sleep_began_at
        active = began is not None and now < began + self.sleep_seconds
        self.state = replace(self.state, sleep_active=active)
        return self.state

    def commit(self, state: State, decision: Decision, now: float) -> bool:
        """In one transaction, which fails where a key or number is there already."""
        fires = [decision.occurrence] if decision.step is Step.FIRE and decision.occurrence else []
        written = [occurrence.key for occurrence in (*fires, *(skip.occurrence for skip in decision.skipped))]
        if not self.fired.keys().isdisjoint(written) or not self.skipped.keys().isdisjoint(written):
            return False
        if fires and decision.number in self.numbers:
            return False
        self.skipped |= {skip.occurrence.key: skip.reason for skip in decision.skipped}
        self.state = kept(state, decision)
        if decision.step is Step.REPLACE:  # it ends at once
            self.state = replace(self.state, last_sleep_began_at=now - self.sleep_seconds)
        for occurrence in fires:
            self.fired[occurrence.key] = occurrence
            self.numbers.add(decision.number)
            self.state = replace(self.state, last_sleep_began_at=now)
        return True


def occurrences(spec: ScheduleSpec, after: float, until: float) -> set[str]:
    found = (takewhile(lambda at: at <= until, cron.after(trigger, after)) for trigger in spec.crons)
    return {f"cron:{datetime.fromtimestamp(at, UTC).isoformat()}" for times in found for at in times}


CHANCE = st.integers(0, 2**32).map(Random)
YEAR = seconds("2026-01-01T00:00Z"), seconds("2027-01-01T00:00Z")
ZONES = st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe"])


@settings(deadline=None, max_examples=3)
@given(ZONES, st.sampled_from(["30 2 * * *", "15 1 * * *", "0,50 2 * * *"]), CHANCE)
def test_over_a_year_every_cron_time_fires_exactly_once_if_looks_are_denser_than_the_deadline(
    zone: str, expr: str, chance: Random
) -> None:
    spec = schedule(nightly(expr, zone), starting_deadline_seconds=50 * MINUTE, min_interval_seconds=0)
    registry, now = Registry(YEAR[0], sleep_seconds=0), YEAR[0]
    next_at = decide(spec, registry.read(now), now).next_at
    while next_at is not None and now < YEAR[1]:
        # Between two occurrences looks do nothing: go on to about the next one, and look around it.
        now = max(now, next_at - HOUR) + chance.uniform(1, 50 * MINUTE)
        decision = decide(spec, registry.read(now), now)
        next_at = decision.next_at
        if decision.step is not Step.WAIT or chance.random() < 0.5:  # a WAIT need not be kept
            assert registry.commit(registry.state, decision, now)
    assert set(registry.fired) == occurrences(spec, YEAR[0], now)
    assert len(registry.fired) >= 365
    assert not registry.skipped


STEPS = st.lists(st.floats(0.1, 2.5 * HOUR), min_size=1, max_size=25)
SPECS = st.builds(
    lambda exprs, zone, way, gap, deadline, window, tokens: schedule(
        *(nightly(expr, zone) for expr in exprs),
        *([TOKENS] if tokens else []),
        concurrency=way,
        min_interval_seconds=gap,
        starting_deadline_seconds=deadline,
        blackout=[{"start": "01:30", "end": "02:45", "timezone": zone}] if window else [],
    ),
    st.lists(st.sampled_from(["30 2 * * *", "*/20 * * * *", "5 1-3 * * *", "0 */2 * * *"]), min_size=1, max_size=2),
    ZONES,
    st.sampled_from(["forbid", "queue", "replace"]),
    st.sampled_from([0.0, 600.0, 2 * HOUR]),
    st.sampled_from([60.0, HOUR, DAY]),
    st.booleans(),
    st.booleans(),
)
STARTS = st.sampled_from([seconds("2026-03-28T22:10:30Z"), seconds("2026-10-24T22:10:30Z"), seconds("2026-10-03T12:00Z")])


@settings(deadline=None, max_examples=30)
@given(SPECS, STARTS, STEPS, st.sampled_from([0.0, 30 * MINUTE, 5 * HOUR]), CHANCE)
def test_every_cron_time_is_fired_or_told_as_skipped_once_and_none_twice(
    spec: ScheduleSpec, start: float, steps: list[float], sleep_seconds: float, chance: Random
) -> None:
    """Whenever somebody looks, with restarts in between (a look whose outcome is lost), a deployment that sleeps, and tokens too."""
    registry, now = Registry(start, sleep_seconds), start
    begun: list[float] = []
    for step in steps:
        now += step
        state = replace(registry.read(now), pending_tokens=chance.choice([0, 1000]))
        decision = decide(spec, state, now)
        if chance.random() < 0.2:
            continue  # it died before it could act
        assert registry.commit(state, decision, now), "the look offered what was there already"
        begun += [now] if decision.step is Step.FIRE else []
    last = registry.state.considered_at or start
    told = {*registry.fired, *registry.skipped, *([registry.state.queued.key] if registry.state.queued else [])}
    assert {key for key in told if key.startswith("cron:")} == occurrences(spec, start, last)
    assert not registry.fired.keys() & registry.skipped.keys()
    assert all(later - earlier >= spec.min_interval_seconds for earlier, later in pairwise(begun))
    times = [occurrence.at for occurrence in registry.fired.values() if occurrence.trigger == "cron"]
    assert times == sorted(set(times))


@settings(deadline=None, max_examples=30)
@given(SPECS, STARTS, STEPS, CHANCE)
def test_of_two_looks_at_one_state_only_one_can_fire(spec: ScheduleSpec, start: float, steps: list[float], chance: Random) -> None:
    """Neither has written when the other reads: they name what is due alike, and the indexes refuse the second."""
    registry, now = Registry(start, sleep_seconds=0), start
    for step in steps:
        now += step
        late = now + chance.uniform(0, 5 * MINUTE)
        state = replace(registry.read(now), pending_tokens=chance.choice([0, 1000]))
        recount = replace(state, pending_tokens=chance.choice([state.pending_tokens, 1000]))
        first, second = decide(spec, state, now), decide(spec, recount, late)
        assert registry.commit(state, first, now)
        if first.step is second.step is Step.FIRE and first.occurrence and second.occurrence:
            if first.occurrence.trigger == second.occurrence.trigger and not occurrences(spec, now, late):
                assert key(first) == key(second)
            assert not registry.commit(recount, second, late)
    assert len(registry.fired) == registry.state.fired


@settings(deadline=None, max_examples=30)
@given(SPECS, STARTS, st.lists(st.floats(-HOUR, 12 * HOUR), min_size=2, max_size=5))
def test_decisions_go_forward_in_time(spec: ScheduleSpec, start: float, looks: list[float]) -> None:
    """Of one and the same state: the later the look, the later what it fires and what comes next. A clock put back repeats nothing."""
    decided = [decide(spec, replace(MET, created_at=start), start + look) for look in sorted(looks)]
    for earlier, later in pairwise(decided):
        assert start <= earlier.considered_at <= later.considered_at
        if earlier.next_at is not None and later.next_at is not None:  # all in sight may be blacked out
            assert earlier.considered_at < earlier.next_at <= later.next_at
        if earlier.occurrence and later.occurrence and earlier.occurrence.trigger == later.occurrence.trigger == "cron":
            assert earlier.occurrence.at <= later.occurrence.at
        repeated = decide(spec, kept(replace(MET, created_at=start), later), earlier.considered_at)
        assert not repeated.skipped or repeated.skipped[-1].occurrence == later.queued
        assert repeated.occurrence in (None, later.queued)
