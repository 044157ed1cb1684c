"""What a night moves from level to level, decided from its parent's folder alone: who asks what a night would do needs no torch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

from circadian.memory.folder import memory_spec, read_record, version_state
from circadian.memory.state import FAST_LEVEL, FIRST_SLOW_LEVEL, ExpertId, LevelFull, MemoryState
from circadian.memory.transfer import Transfer, due
from circadian.specs import NightJob

Move = tuple[Literal["merge"], list[list[int]]] | tuple[Literal["consolidate", "seed", "dream"], int]
"""Two experts that become one, the level that takes up what the next faster one holds, or the one that takes up what other models know,
or what was dreamt."""
TRANSFERS: dict[str, Callable[[MemoryState, int], Transfer]] = {
    "consolidate": Transfer.consolidation,
    "seed": Transfer.seed,
    "dream": Transfer.dreams,
}


def moves(job: NightJob, tokens: int, met: bool = True) -> tuple[list[Move], list[Move]]:
    """What a night over so many new tokens moves, fast to slow, and last what other models teach into the slowest level. A full level that
    is due to hand on does so first; where none is, two of its experts are merged first. Then, for what is dreamt, the same: it goes into
    the slowest level into which tonight anything moves.

    met: the fast level learns something.

    Raises LevelFull where the recipe refuses to merge, or there are no two experts to merge.
    """
    parent = Path(job.parent)
    record, spec = read_record(parent), memory_spec(parent)
    state = version_state(parent)
    nights = {(expert.level, expert.expert): len(expert.nights) for expert in record.lineage}
    planned: dict[bool, list[Move]] = {False: [], True: []}
    todo: list[tuple[Literal["consolidate", "seed", "dream"], int]] = []
    if met and job.recipe.consolidation:
        state, _ = state.opened(FAST_LEVEL)
        periods = tuple(level.period for level in spec.levels)
        todo += [("consolidate", level) for level in due(state, periods, record.tokens, record.tokens + tokens)]
    if job.recipe.teachers:
        todo.append(("seed", len(spec.levels) - 1))
    if job.recipe.dreaming:
        todo.append(("dream", max([FIRST_SLOW_LEVEL, *(level for _, level in todo)])))
    while todo:
        kind, level = todo.pop(0)
        try:
            state.opened(level)
        except LevelFull:
            due_too = [move for move in todo if move == ("consolidate", level + 1)]
            if due_too:  # tonight, and then there is room
                todo = [*due_too, (kind, level), *(move for move in todo if move not in due_too)]
                continue
            if job.recipe.when_full == "refuse" or len(state.experts[level]) < 2:
                if kind == "dream" and planned[False]:  # what was met and taught has its place; what may be dreamt has none
                    break
                raise
            fewest = sorted((place for place in nights if place[0] == level), key=lambda place: (nights[place], place))[:2]
            merge = Transfer.merge(state, *(ExpertId(*place) for place in sorted(fewest)))
            planned[kind == "dream"].append(("merge", [list(place) for place in sorted(fewest)]))
            state = merge.after()
            nights[merge.into] = sum(nights.pop(place) for place in fewest)
        if kind == "dream":
            state, _ = state.opened(FAST_LEVEL)
        transfer = TRANSFERS[kind](state, level)
        planned[kind == "dream"].append((kind, level))
        nights[transfer.into] = sum(nights.pop(place, 0) for place in transfer.emptied) or 1
        state = transfer.after()
    return planned[False], planned[True]
