"""When a chunk is full, and what a look at a fast memory that learns online calls for, as tables."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.online_plan import Met, OnlineSituation, OnlineStep, is_label, label, next_chunk, plan


def met(*tokens: int) -> list[Met]:
    return [Met(f"exp_{i}", count) for i, count in enumerate(tokens)]


@pytest.mark.parametrize(
    ("tokens", "length"),
    [
        ((), 0),
        ((99,), 0),
        ((100,), 1),
        ((101,), 1),
        ((40, 59), 0),
        ((40, 60), 2),
        ((40, 59, 1), 3),
        ((40, 59, 1, 500), 3),  # no more than it takes
        ((1000, 100), 1),  # longer than several periods: a chunk of its own
    ],
)
def test_a_chunk_is_full_exactly_when_its_tokens_reach_the_period(tokens: tuple[int, ...], length: int) -> None:
    assert next_chunk(met(*tokens), period=100) == tuple(f"exp_{i}" for i in range(length))


@given(st.lists(st.integers(min_value=1, max_value=300), max_size=60))
def test_chunk_by_chunk_everything_is_learned_once_and_in_order(tokens: list[int]) -> None:
    waiting, learned = met(*tokens), []
    while ids := next_chunk(waiting, period=100):
        counts = [experience.tokens for experience in waiting[: len(ids)]]
        assert sum(counts) >= 100 > sum(counts[:-1])
        learned += ids
        waiting = waiting[len(ids) :]
    assert sum(experience.tokens for experience in waiting) < 100
    assert [*learned, *(experience.id for experience in waiting)] == [f"exp_{i}" for i in range(len(tokens))]


QUIET = OnlineSituation(active_version="ver_1", version="ver_1", chunks=2, serves=frozenset({"ver_1+w2"}))
BUSY = replace(QUIET, learner=True, learning=True)
DONE = replace(BUSY, learned=True)
NIGHT = replace(QUIET, night=True)
DAWN = replace(QUIET, active_version="ver_2", serves=frozenset({"ver_2"}))
BEHIND, OLD = {"serves": frozenset({"ver_1", "ver_1+w2"})}, {"serves": frozenset({"ver_1+w1"})}


@pytest.mark.parametrize(
    ("now", "step"),
    [
        (QUIET, OnlineStep.WAIT),
        (replace(QUIET, serves=frozenset()), OnlineStep.WAIT),  # slow, and says nothing
        (replace(QUIET, due=True), OnlineStep.LEARN),
        (replace(QUIET, due=True, stuck=True), OnlineStep.WAIT),
        (replace(QUIET, due=True, **OLD), OnlineStep.DELIVER),  # what is learned is served before more is
        (replace(QUIET, **BEHIND), OnlineStep.DELIVER),
        (BUSY, OnlineStep.WAIT),
        (replace(BUSY, due=True), OnlineStep.WAIT),
        (replace(BUSY, **BEHIND), OnlineStep.DELIVER),
        (DONE, OnlineStep.COMMIT),
        (replace(DONE, due=True, stuck=True), OnlineStep.COMMIT),
        (DAWN, OnlineStep.EMPTY),
        (replace(DAWN, learner=True, learned=True, learning=True), OnlineStep.EMPTY),
        # The night owns the fast memory.
        (NIGHT, OnlineStep.WAIT),
        (replace(NIGHT, due=True), OnlineStep.WAIT),
        (replace(NIGHT, learner=True), OnlineStep.STAND_STILL),
        (replace(NIGHT, learner=True, learning=True, learned=True), OnlineStep.STAND_STILL),
        (replace(NIGHT, **BEHIND), OnlineStep.DELIVER),
        (replace(NIGHT, dusk=True, **BEHIND), OnlineStep.WAIT),
        (replace(NIGHT, active_version="ver_2", serves=frozenset({"ver_1+slp"})), OnlineStep.WAIT),
    ],
)
def test_what_a_look_calls_for(now: OnlineSituation, step: OnlineStep) -> None:
    assert plan(now) is step


def test_a_label_names_the_version_and_the_chunks() -> None:
    assert [label("ver_1", chunks) for chunks in (0, 1, 12)] == ["ver_1", "ver_1+w1", "ver_1+w12"]
    assert [is_label(said, "ver_1", 2) for said in ("ver_1", "ver_1+w1", "ver_1+w2")] == [True] * 3
    assert not any(is_label(said, "ver_1", 2) for said in ("ver_1+w3", "ver_2", "ver_1+slp_1", "ver_2+w1"))
