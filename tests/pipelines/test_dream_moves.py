"""Where what is dreamt goes: the slowest level into which anything moves tonight, and a place is made for it before any work."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from night_world import grown, make_job

from circadian.memory.state import LevelFull, MemoryState
from circadian.memory.transfer import Transfer
from circadian.specs import Level
from pipelines.moves import moves

TWO = (Level(period=64, experts=1, rank=4), Level(period=512, experts=3, rank=4))
THREE = (*TWO, Level(period=4096, experts=2, rank=4))
FULL = [["pruned"], ["sealed", "sealed", "reserved"]]
NIGHTS = [(1, 0, "slp_a"), (1, 1, "slp_b")]


def planned(root: Path, levels: tuple[Level, ...], states: list[list[str]], new: int, before: int = 0, **recipe: Any) -> Any:
    nights = [night for night in NIGHTS if states[1][night[1]] == "sealed"]
    root.mkdir(exist_ok=True)
    parent = grown(root, levels, states, nights, before)
    return moves(make_job(parent, root / "home", [], **recipe), new)


def test_dreams_follow_the_day_into_level_one(tmp_path: Path) -> None:
    states = [["reserved"], ["reserved"] * 3]
    assert planned(tmp_path, TWO, states, 100, dreaming={}) == ([("consolidate", 1)], [("dream", 1)])


def test_dreams_go_where_the_slowest_boundary_is(tmp_path: Path) -> None:
    states = [["reserved"], ["sealed", "reserved", "reserved"], ["reserved"] * 2]
    day, dreams = planned(tmp_path, THREE, states, 100, before=500, dreaming={})
    assert (day, dreams) == ([("consolidate", 1), ("consolidate", 2)], [("dream", 2)])


def test_a_day_that_is_only_dreamt_of_moves_nothing_itself(tmp_path: Path) -> None:
    states = [["reserved"], ["reserved"] * 3]
    assert planned(tmp_path, TWO, states, 100, dreaming={}, consolidation=False) == ([], [("dream", 1)])


def test_a_level_that_the_day_fills_is_merged_before_the_dreams_or_refused(tmp_path: Path) -> None:
    day, dreams = planned(tmp_path / "a", TWO, FULL, 100, dreaming={}, when_full="merge")
    assert day == [("consolidate", 1)]
    assert [kind for kind, _ in dreams] == ["merge", "dream"]
    assert planned(tmp_path / "b", TWO, FULL, 100, dreaming={}) == ([("consolidate", 1)], []), (
        "the day has its place, dreams have none"
    )
    whole = [["pruned"], ["sealed"] * 3]
    with pytest.raises(LevelFull, match="when_full `merge`"):
        planned(tmp_path / "d", TWO, whole, 100, dreaming={}, consolidation=False)
    assert planned(tmp_path / "c", TWO, FULL, 100) == ([("consolidate", 1)], [])


def test_the_transfer_of_dreams_passes_the_levels_between() -> None:
    state = MemoryState.parse([["open"], ["sealed", "reserved"], ["sealed", "reserved"]])
    transfer = Transfer.dreams(state, 2)
    assert (transfer.into, transfer.emptied) == ((2, 1), ((0, 0),))
    assert transfer.awake == (True, True, False, True, False)
    assert transfer.rested == (False, True, False, True, False)
    assert transfer.student == (False, True, False, True, True)
    assert transfer.after().names() == [["pruned"], ["sealed", "reserved"], ["sealed", "sealed"]]
