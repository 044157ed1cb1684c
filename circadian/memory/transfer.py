"""Knowledge on its way: which experts teach, which one learns, which are free afterwards.

    consolidation into level l   level l-1 teaches what it holds, a fresh expert of level l learns it, and level l-1 is emptied
    merge in level l             two sealed experts of a full level teach, one of them is written anew to hold what both did, and the
                                 other is free: what the paper leaves open
    seed in level l              other models teach, a fresh expert of the level learns it, and nothing is emptied
    dreams in level l            level 0, which has learned the night's dreams, teaches; a fresh expert of the level learns them, and
                                 level 0 is emptied

All are the same learning with other masks. What is on its way is taught by the *awake* mask, what stays by the *rested* mask, and the
student hears what stays and the expert that is written. In a merge the two teachers are one: the level as it is. In a seed what is
on its way is no part of the memory, and all that sleep has written stays.

M experts over all levels.
"""

from __future__ import annotations

from typing import Self

from circadian.memory.state import ExpertId, ExpertState, Mask, MemoryState
from circadian.specs import Spec

Place = tuple[int, int]
"""Level and expert."""
SEED, DREAMS = "teachers", "dreams"
"""The names of a transfer from other models, and of one from dreams."""


class Transfer(Spec):
    """One transfer; masks are [M], places are (level, expert)."""

    name: str
    experts: list[list[str]]
    """The state of every expert while it lasts: the written one is open."""
    into: Place
    awake: Mask
    rested: Mask
    student: Mask
    emptied: tuple[Place, ...]
    """Masked and free afterwards."""
    rewrites: bool = False
    """The written expert holds something that teaches."""

    @classmethod
    def consolidation(cls, state: MemoryState, level: int) -> Self:
        """From the next faster level into a fresh expert; what is faster than that is not heard. Raises LevelFull."""
        opened, where = state.opened(level)
        used = [
            place for place in opened.ids() if place.level == level - 1 and opened[place] in (ExpertState.OPEN, ExpertState.SEALED)
        ]
        return cls(
            name=f"level-{level}",
            experts=opened.names(),
            into=(where.level, where.expert),
            awake=tuple(
                heard and place.level >= level - 1 for heard, place in zip(opened.view("awake", level), opened.ids(), strict=True)
            ),
            rested=opened.view("rested", level),
            student=opened.view("student", level),
            emptied=tuple((place.level, place.expert) for place in used),
        )

    @classmethod
    def merge(cls, state: MemoryState, first: ExpertId, second: ExpertId) -> Self:
        """Of two sealed experts of one level, into the first of them. Raises ValueError for any others."""
        if first.level != second.level or first == second or any(state[w] is not ExpertState.SEALED for w in (first, second)):
            raise ValueError(f"experts {first} and {second} cannot be merged: give two sealed experts of one level")
        whole = state.view("rested", first.level)
        without = state.without(state.without(whole, first), second)
        return cls(
            name=f"merge-{first.level}-{first.expert}-{second.expert}",
            experts=state.reopened(first).names(),
            into=(first.level, first.expert),
            awake=whole,
            rested=whole,
            student=tuple(heard or place == first for heard, place in zip(without, state.ids(), strict=True)),
            emptied=((second.level, second.expert),),
            rewrites=True,
        )

    @classmethod
    def seed(cls, state: MemoryState, level: int) -> Self:
        """From other models into a fresh expert. Raises LevelFull."""
        opened, where = state.opened(level)
        rested = state.view("rested")
        return cls(
            name=SEED,
            experts=opened.names(),
            into=(where.level, where.expert),
            awake=rested,
            rested=rested,
            student=tuple(heard or place == where for heard, place in zip(rested, opened.ids(), strict=True)),
            emptied=(),
        )

    @classmethod
    def dreams(cls, state: MemoryState, level: int) -> Self:
        """From level 0, past the levels between, into a fresh expert. Raises LevelFull."""
        opened, where = state.opened(level)
        return cls(
            name=DREAMS,
            experts=opened.names(),
            into=(where.level, where.expert),
            awake=opened.view("awake"),
            rested=opened.view("rested"),
            student=opened.view("student"),
            emptied=tuple(
                (place.level, place.expert) for place in opened.ids() if place.level == 0 and opened[place] is ExpertState.OPEN
            ),
        )

    @property
    def state(self) -> MemoryState:
        """While it lasts."""
        return MemoryState.parse(self.experts)

    @property
    def where(self) -> ExpertId:
        """The expert that is written."""
        return ExpertId(*self.into)

    @property
    def teachers(self) -> dict[str, Mask]:
        """The mask of each; the base's hears nothing, and whoever is anchored in it writes as the rested self."""
        return {"awake": self.awake, "rested": self.rested, "base": (False,) * len(self.rested), "anchored": self.rested}

    @property
    def sources(self) -> tuple[Place, ...]:
        """The experts whose knowledge moves."""
        return (self.into, *self.emptied) if self.rewrites else self.emptied

    def after(self) -> MemoryState:
        """The written expert sealed, the emptied ones free."""
        return self.state.sealed(self.where).freed([ExpertId(*place) for place in self.emptied])


def due(state: MemoryState, periods: tuple[int, ...], before: int, after: int) -> list[int]:
    """The levels into which a night consolidates, fast to slow.

    Into level 1 always: a night is the boundary of level 0. Into level l + 1 when the tokens met since the deployment was founded
    pass a multiple of level l's period between the last night (`before`) and this one (`after`).
    """
    return [1, *(level + 1 for level in range(1, len(state.experts) - 1) if before // periods[level] < after // periods[level])]
