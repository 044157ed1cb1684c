"""The life of an expert, as a table."""

import pytest

from circadian.memory.state import ExpertId, ExpertState, LevelFull, MemoryState
from circadian.specs import Level, MemorySpec

SPEC = MemorySpec(levels=(Level(period=4, experts=1, rank=2), Level(period=8, experts=3, rank=2)))
R, O, S, P = "reserved", "open", "sealed", "pruned"

VIEWS = [
    # experts by level, view, heard
    ([[R], [R, R, R]], "awake", (0, 0, 0, 0)),
    ([[O], [R, R, R]], "awake", (1, 0, 0, 0)),
    ([[O], [R, R, R]], "rested", (0, 0, 0, 0)),
    ([[O], [S, O, R]], "base", (0, 0, 0, 0)),
    ([[O], [S, O, R]], "awake", (1, 1, 0, 0)),
    ([[O], [S, O, R]], "rested", (0, 1, 0, 0)),
    ([[O], [S, O, R]], "student", (0, 1, 1, 0)),
    ([[P], [S, S, R]], "awake", (0, 1, 1, 0)),
    ([[P], [S, P, R]], "rested", (0, 1, 0, 0)),
]


@pytest.mark.parametrize(("experts", "view", "heard"), VIEWS)
def test_a_view_hears_exactly_these_experts(experts: list[list[str]], view: str, heard: tuple[int, ...]) -> None:
    assert MemoryState.parse(experts).view(view) == tuple(bool(h) for h in heard)


def test_a_night_opens_seals_and_prunes() -> None:
    state, fast = MemoryState.fresh(SPEC).opened(0)
    state, slow = state.opened(1)
    assert (fast, slow) == (ExpertId(0, 0), ExpertId(1, 0))
    state = state.sealed(slow).pruned(0)
    assert state.names() == [[P], [S, R, R]]
    assert state.opened(0)[0].names() == [[O], [S, R, R]]
    assert state.opened(1)[1] == ExpertId(1, 1)


def test_opening_twice_gives_the_expert_that_is_open() -> None:
    once, where = MemoryState.fresh(SPEC).opened(1)
    assert once.opened(1) == (once, where)


def test_a_full_level_says_what_to_do() -> None:
    state = MemoryState.parse([[R], [S, S, S]])
    with pytest.raises(LevelFull, match=r"memory\.levels\[1\]\.experts larger than 3"):
        state.opened(1)


def test_only_an_open_expert_can_be_sealed() -> None:
    with pytest.raises(ValueError, match="only an open expert"):
        MemoryState.fresh(SPEC).sealed(ExpertId(1, 0))


def test_without_switches_off_one_expert_only() -> None:
    state = MemoryState.parse([[O], [S, S, R]])
    assert state.without(state.view("awake"), ExpertId(1, 0)) == (True, False, True, False)


def test_names_survive_a_round_trip() -> None:
    state = MemoryState.parse([[O], [S, P, R]])
    assert MemoryState.parse(state.names()) == state
    assert state[ExpertId(1, 1)] is ExpertState.PRUNED
