"""What a night's events make of its trace: a table of nights, and what is kept of the rows of both databases."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from collector import Collector, collector
from sqlalchemy import func, select, update
from stored import Stored

from services import registry
from services.night_trace import MOST_BONDS, MOST_MOMENTS, MOST_SPANS, Origin, lives, met_in, night_spans, rollout_spans
from services.states import SleepStatus
from services.tables import Event, ExperienceRow, Rollout, Sleep, Taken, UntoldTrace, Version
from services.trace_context import TraceContext, begun, parse
from services.traces import Traces
from services.tracing import Told, Tracing

NIGHT = TraceContext("a" * 32, "b" * 16)
WORDS = "the word that nobody may read is heptagon"
QUEUED, SUBMITTED = ("sleep.queued", {}), ("sleep.started", {"attempt": 1})
DONE = ("sleep.succeeded", {"outcome": "promoted"})
Line = tuple[str, dict[str, Any]]


def begin(stage: str) -> Line:
    return "sleep.stage_started", {"stage": stage}


def seal(stage: str) -> Line:
    return "sleep.stage_finished", {"stage": stage, "outputs": {"said": WORDS}}


def events(*lines: Line) -> list[Event]:
    """One a second."""
    return [
        Event(id=f"evt_{n}", sleep="slp_1", seq=n, created_at=float(n), type=kind, message=WORDS, data=data)
        for n, (kind, data) in enumerate(lines, 1)
    ]


def sleep(**more: Any) -> Sleep:
    row: dict[str, Any] = {"id": "slp_1", "deployment": "dep_1", "parent_version": "ver_0", "trace": str(NIGHT)} | more
    return Sleep(**row)


def told(*lines: Line, life: int = 0, versions: Sequence[Version] = ()) -> list[Told]:
    return night_spans(sleep(), life, events(*lines), [], versions)


def shape(spans: Sequence[Told]) -> list[tuple[str, str, float, float, str | None]]:
    """Name, parent's name, start, end and error of each, by start."""
    names = {span.context: span.name for span in spans}
    rows = [(span.name, names.get(span.parent, ""), span.start, span.end, span.error) for span in spans if span.context]  # type: ignore[arg-type]
    return sorted(rows, key=lambda row: (row[2], -row[3], row[0]))


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        pytest.param(
            [QUEUED, SUBMITTED, begin("collect"), seal("collect"), begin("dawn"), seal("dawn"), DONE],
            [
                ("night", "", 1, 7, None),
                ("wait", "night", 1, 2, None),
                ("attempt", "night", 2, 5, None),
                ("collect", "attempt", 3, 4, None),
                ("dawn", "night", 5, 6, None),
            ],
            id="a night",
        ),
        pytest.param(
            [QUEUED, ("sleep.cancelling", {}), ("sleep.cancelled", {})],
            [("night", "", 1, 3, None)],
            id="cancelled before it began",
        ),
        pytest.param(
            [
                QUEUED,
                SUBMITTED,
                begin("gate"),
                ("sleep.retrying", {"error": {"code": "night_failed", "message": WORDS}}),
                ("sleep.started", {"attempt": 2}),
                begin("gate"),
                ("sleep.failed", {"error": {"code": "too_late", "message": WORDS}}),
            ],
            [
                ("night", "", 1, 7, "too_late"),
                ("wait", "night", 1, 2, None),
                ("attempt", "night", 2, 4, "night_failed"),
                ("gate", "attempt", 3, 4, "unfinished"),
                ("attempt", "night", 5, 7, "too_late"),
                ("gate", "attempt", 6, 7, "unfinished"),
            ],
            id="attempts that fail",
        ),
        pytest.param(
            [
                QUEUED,
                SUBMITTED,
                begin("gate"),
                ("sleep.pausing", {}),
                ("sleep.paused", {"stage": "gate"}),
                ("sleep.resumed", {}),
                ("sleep.started", {"attempt": 2}),
                begin("gate"),
                seal("gate"),
                DONE,
            ],
            [
                ("night", "", 1, 10, None),
                ("wait", "night", 1, 2, None),
                ("attempt", "night", 2, 5, None),
                ("gate", "attempt", 3, 5, None),
                ("attempt", "night", 7, 10, None),
                ("gate", "attempt", 8, 9, None),
            ],
            id="a pause",
        ),
        pytest.param(
            [QUEUED, begin("collect"), SUBMITTED, seal("collect"), DONE],
            [
                ("night", "", 1, 5, None),
                ("wait", "night", 1, 2, None),
                ("attempt", "night", 2, 5, None),
                ("collect", "attempt", 2, 4, None),
            ],
            id="a job that spoke before the cluster did",
        ),
        pytest.param(
            [QUEUED, SUBMITTED, begin("gate"), begin("gate"), seal("gate"), seal("gate"), seal("never begun"), begin(""), DONE],
            [
                ("night", "", 1, 9, None),
                ("wait", "night", 1, 2, None),
                ("attempt", "night", 2, 9, None),
                ("gate", "attempt", 3, 4, "unfinished"),
                ("gate", "attempt", 4, 5, None),
                ("", "attempt", 8, 9, "unfinished"),
            ],
            id="lines of two processes at once",
        ),
    ],
)
def test_a_night_is_told_by_its_events(lines: list[Line], expected: list[tuple[Any, ...]]) -> None:
    spans = told(*lines)
    assert shape(spans) == expected
    assert len({span.context for span in spans}) == len(spans)
    assert {span.context.trace_id for span in spans} == {NIGHT.trace_id}
    assert spans[0].context == NIGHT
    assert spans == told(*lines), "twice the same"
    assert "heptagon" not in repr(spans)


@pytest.mark.parametrize("lines", [[], [QUEUED], [QUEUED, SUBMITTED, begin("gate")]])
def test_a_night_that_has_not_ended_is_not_told(lines: list[Line]) -> None:
    assert told(*lines) == []


def test_a_night_without_a_trace_is_not_told() -> None:
    for trace in (None, "", "00-x"):
        assert night_spans(sleep(trace=trace), 0, events(QUEUED, DONE), [], []) == []


def test_each_life_of_a_sleep_is_told_for_itself() -> None:
    lines = [
        QUEUED,
        SUBMITTED,
        ("sleep.failed", {"error": {"code": "x"}}),
        ("sleep.retried", {}),
        ("sleep.started", {"attempt": 2}),
        DONE,
    ]
    assert [len(life) for life in lives(events(*lines))] == [3, 3]
    assert shape(told(*lines)) == [("night", "", 1, 3, "x"), ("wait", "night", 1, 2, None), ("attempt", "night", 2, 3, "x")]
    second = told(*lines, life=1)
    assert shape(second) == [("night", "", 4, 6, None), ("wait", "night", 4, 5, None), ("attempt", "night", 5, 6, None)]
    assert (second[0].parent, second[2].attributes) == (NIGHT, {"circadian.attempt": 2})
    assert not {span.context for span in second} & {span.context for span in told(*lines)}
    assert told(*lines, life=2) == []


def test_a_version_is_told_by_the_life_that_made_it() -> None:
    lines = [QUEUED, ("sleep.failed", {}), ("sleep.retried", {}), SUBMITTED, DONE]

    def version(id: str, at: float) -> Version:
        gates = [{"name": "agreement", "passed": True}, {"name": "lost", "passed": False}]
        return Version(id=id, deployment="dep_1", sleep="slp_1", created_at=at, gates=gates, trace=str(NIGHT.child(id)))

    spans = told(*lines, life=1, versions=[version("ver_1", 1.5), version("ver_2", 4.5)])
    (made,) = [span for span in spans if span.name == "version"]
    assert (made.context, made.start, made.end) == (NIGHT.child("ver_2"), 4.5, 5.0)
    assert made.attributes == {"circadian.version.id": "ver_2", "circadian.version.gates": 2, "circadian.version.gates_passed": 1}


def test_a_long_night_is_told_within_bounds_that_it_tells() -> None:
    many = [line for n in range(MOST_SPANS) for line in (begin(f"stage {n}"), seal(f"stage {n}"))]
    moments: list[Line] = [
        ("sleep.checkpoint_saved", {"step": n, "run": WORDS, "stage": {"no": "name"}}) for n in range(MOST_MOMENTS + 5)
    ]
    spans = told(QUEUED, SUBMITTED, *many, *moments, DONE)
    assert (len(spans), len(spans[0].moments)) == (MOST_SPANS, MOST_MOMENTS)
    assert spans[0].attributes["circadian.sleep.moments_left_out"] == 5
    assert spans[0].moments[3].attributes == {"circadian.step": 3}


def test_links_lead_first_to_what_the_version_keeps_and_are_bounded() -> None:
    def context(n: int) -> str:
        return str(TraceContext(f"{n + 1:032x}", f"{n + 1:016x}"))

    origins = [Origin(f"exp_{n}", context(n), kept=n % 2 == 1) for n in range(2 * MOST_BONDS)]
    bonds, more = met_in([*origins, Origin("exp_of_before", None, True), Origin("exp_of_the_same", context(1), True)])
    assert (len(bonds), more) == (MOST_BONDS, MOST_BONDS)
    assert all(bond.attributes["circadian.experience.kept"] for bond in bonds)
    assert (bonds[0].to, bonds[0].attributes["circadian.experience.count"]) == (parse(context(1)), 2)
    assert met_in([]) == ([], 0)


def test_a_rollout_that_was_withdrawn_is_told_with_its_canary() -> None:
    root = TraceContext("c" * 32, "d" * 16)
    row = Rollout(
        id="roll_1",
        deployment="dep_1",
        kind="promotion",
        strategy="canary",
        from_version="ver_0",
        to_version="ver_1",
        status="aborted",
        error=WORDS,
        reason=WORDS,
        started_by="key_1",
        created_at=1.0,
        live_at=2.0,
        finished_at=3.0,
        requests=7,
        errors=1,
        trace=str(root),
    )
    first, canary = rollout_spans(row, Version(id="ver_1", trace=str(NIGHT)))
    assert (first.context, first.start, first.end, first.error) == (root, 1.0, 3.0, "aborted")
    assert [bond.to for bond in first.bonds] == [NIGHT]
    assert (canary.parent, canary.start, canary.attributes) == (
        root,
        2.0,
        {"circadian.canary.requests": 7, "circadian.canary.errors": 1},
    )
    assert "heptagon" not in repr((first, canary))
    assert "key_1" not in repr((first, canary))
    row.finished_at = None
    assert rollout_spans(row, None) == []


# Of rows, on both databases


@pytest.fixture
def sink(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    with collector() as sink:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", sink.url)
        yield sink


@pytest.fixture
def tracing(sink: Collector) -> Iterator[Tracing]:
    tracing = Tracing("ctl_1")
    yield tracing
    tracing.close(1.0)


def ended(stored: Stored, *experiences: str) -> str:
    """A night that was begun on these, and has ended without a version. Returns its sleep."""
    id = stored.asleep("dep_toy", *experiences)
    with stored.lease.write() as tx:
        tx.execute(update(Sleep).where(Sleep.id == id).values(trace=begun()))
        tx.add_all(Taken(sleep=id, experience=one) for one in experiences)
        row = registry.locked_sleep(tx, id)
        registry.append_event(tx, row, "sleep.queued", "")
        registry.append_event(tx, row, "sleep.progress", "", {"step": 1})
        registry.end_sleep(tx, row, SleepStatus.FAILED, WORDS, {"error": {"code": "lost", "message": WORDS}})
    return id


def untold(stored: Stored) -> list[tuple[str, int]]:
    with stored.database.read() as tx:
        return [(row.object, row.failures) for row in tx.scalars(select(UntoldTrace).order_by(UntoldTrace.created_at))]


def test_what_has_ended_is_told_once_and_what_is_refused_is_told_later(stored: Stored, sink: Collector, tracing: Tracing) -> None:
    stored.deployment()
    context = str(TraceContext("e" * 32, "f" * 16))
    met = [stored.met("dep_toy", trace=context), stored.met("dep_toy")]
    nights = [ended(stored, *met), ended(stored)]
    traces = Traces(stored.settings, stored.lease, tracing)
    sink.answers = "refuses"
    assert traces.look() is False
    assert untold(stored) == [(nights[0], 1), (nights[1], 0)]
    assert traces.look() is False
    assert untold(stored) == [(nights[0], 1), (nights[1], 1)], "one that is refused does not keep back the others"
    sink.answers = "takes"
    assert traces.look() is True
    assert (untold(stored), len(sink.named("night"))) == ([], 2)
    (first,) = [span for span in sink.named("night") if span.attributes["circadian.sleep.id"] == nights[0]]
    assert first.links("experience") == [("e" * 32, "f" * 16)]
    assert (first.failed, first.attributes["error.type"], first.moments) == (True, "lost", [])
    assert traces.look() is True
    assert (sink.requests, len(sink.named("night"))) == (4, 2)


def test_what_was_deleted_meanwhile_is_not_told(stored: Stored, sink: Collector, tracing: Tracing) -> None:
    stored.deployment()
    with stored.lease.write() as tx:
        tx.add_all([UntoldTrace(object="slp_gone", deployment="dep_toy"), UntoldTrace(object="roll_gone", deployment="dep_toy")])
    assert Traces(stored.settings, stored.lease, tracing).look() is True
    assert (untold(stored), sink.requests) == ([], 0)


def test_what_nobody_takes_for_too_long_is_given_up(stored: Stored, sink: Collector, tracing: Tracing) -> None:
    stored.deployment()
    ended(stored)
    sink.answers = "refuses"
    with stored.lease.write() as tx:
        tx.execute(update(UntoldTrace).values(created_at=time.time() - stored.settings.trace_patience_seconds - 1.0))
    assert Traces(stored.settings, stored.lease, tracing).look() is False
    assert untold(stored) == []


def test_a_sleep_that_ends_without_a_trace_leaves_nothing_to_tell(stored: Stored) -> None:
    stored.deployment()
    id = stored.asleep("dep_toy")
    with stored.lease.write() as tx:
        registry.end_sleep(tx, registry.locked_sleep(tx, id), SleepStatus.FAILED, "")
        assert tx.scalar(select(func.count()).select_from(UntoldTrace)) == 0
        assert tx.scalar(select(func.count()).select_from(ExperienceRow).where(ExperienceRow.trace.is_not(None))) == 0
