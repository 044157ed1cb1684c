"""The life of an expert, and which experts a view sees. Plain Python: no torch.

             open_expert            seal
    reserved -----------> open -----------> sealed            (frozen, until its level is merged or its knowledge moves on)
       ^                    |                  |
       |                    | prune            | prune         (only in a level whose knowledge moved on)
       |                    v                  v
       +---- reopened --- pruned <-------------+               (masked, zero, free again)

A *view* is a reading of one set of weights: a mask with one entry per expert, over all levels, fastest level first.
Consolidation moves knowledge from level `into - 1` to level `into`:

    awake    what the deployment knows at dusk: sealed experts everywhere, and open experts of levels faster than `into`
    rested   the same without the levels that are about to be emptied: sealed experts of level `into` and slower
    student  rested, and the expert that is being written in level `into`
    base     no memory at all
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Literal

from circadian.specs import MemorySpec

Mask = tuple[bool, ...]
"""[sum of experts over levels]: True where the expert is heard."""
ViewName = Literal["base", "awake", "rested", "student"]
FAST_LEVEL = 0
FIRST_SLOW_LEVEL = 1


class ExpertState(StrEnum):
    RESERVED = "reserved"
    OPEN = "open"
    SEALED = "sealed"
    PRUNED = "pruned"


class LevelFull(Exception):
    """No expert of the level is free."""


@dataclass(frozen=True, order=True)
class ExpertId:
    """Where an expert lives."""

    level: int
    expert: int


@dataclass(frozen=True)
class MemoryState:
    """The state of every expert: `experts[level][expert]`."""

    experts: tuple[tuple[ExpertState, ...], ...]

    @classmethod
    def fresh(cls, spec: MemorySpec) -> MemoryState:
        return cls(tuple((ExpertState.RESERVED,) * level.experts for level in spec.levels))

    @classmethod
    def parse(cls, names: list[list[str]]) -> MemoryState:
        return cls(tuple(tuple(ExpertState(name) for name in level) for level in names))

    def names(self) -> list[list[str]]:
        return [[state.value for state in level] for level in self.experts]

    def __getitem__(self, where: ExpertId) -> ExpertState:
        return self.experts[where.level][where.expert]

    def ids(self) -> list[ExpertId]:
        """Every expert in mask order."""
        return [ExpertId(level, expert) for level, row in enumerate(self.experts) for expert in range(len(row))]

    def opened(self, level: int) -> tuple[MemoryState, ExpertId]:
        """The level's open expert, opening the first free one if there is none.

        Raises LevelFull when every expert of the level is sealed.
        """
        row = self.experts[level]
        if ExpertState.OPEN in row:
            return self, ExpertId(level, row.index(ExpertState.OPEN))
        for expert, state in enumerate(row):
            if state in (ExpertState.RESERVED, ExpertState.PRUNED):
                where = ExpertId(level, expert)
                return self._with(where, ExpertState.OPEN), where
        raise LevelFull(
            f"all {len(row)} experts of level {level} are sealed; sleep with recipe.when_full `merge`, or deploy the base again with "
            f"memory.levels[{level}].experts larger than {len(row)}"
        )

    def sealed(self, where: ExpertId) -> MemoryState:
        """The open expert frozen for good."""
        if self[where] is not ExpertState.OPEN:
            raise ValueError(f"expert {where} is {self[where]}, only an open expert can be sealed")
        return self._with(where, ExpertState.SEALED)

    def reopened(self, where: ExpertId) -> MemoryState:
        """A sealed expert open, to be written anew."""
        if self[where] is not ExpertState.SEALED:
            raise ValueError(f"expert {where} is {self[where]}, only a sealed expert can be written anew")
        return self._with(where, ExpertState.OPEN)

    def freed(self, places: Iterable[ExpertId]) -> MemoryState:
        """These experts masked and free again."""
        state = self
        for where in places:
            state = state._with(where, ExpertState.PRUNED)
        return state

    def pruned(self, level: int) -> MemoryState:
        """Every open or sealed expert of the level masked and free again."""
        used = (ExpertState.OPEN, ExpertState.SEALED)
        row = tuple(ExpertState.PRUNED if state in used else state for state in self.experts[level])
        return replace(self, experts=(*self.experts[:level], row, *self.experts[level + 1 :]))

    def view(self, name: ViewName, into: int = FIRST_SLOW_LEVEL) -> Mask:
        """The mask of a named view for a consolidation into level `into`."""
        return tuple(self._heard(where, name, into) for where in self.ids())

    def without(self, view: Mask, where: ExpertId) -> Mask:
        """The same view with one expert switched off: what does it know that no other does?"""
        return tuple(heard and other != where for heard, other in zip(view, self.ids(), strict=True))

    def _heard(self, where: ExpertId, view: ViewName, into: int) -> bool:
        state, slow = self[where], where.level >= into
        if view == "base" or state in (ExpertState.RESERVED, ExpertState.PRUNED):
            return False
        if state is ExpertState.SEALED:
            return slow or view == "awake"
        return view == ("student" if slow else "awake")

    def _with(self, where: ExpertId, state: ExpertState) -> MemoryState:
        row = tuple(state if i == where.expert else old for i, old in enumerate(self.experts[where.level]))
        return replace(self, experts=(*self.experts[: where.level], row, *self.experts[where.level + 1 :]))


def written_experts(state: MemoryState) -> list[ExpertId]:
    """The experts that hold something: open or sealed."""
    return [where for where in state.ids() if state[where] in (ExpertState.OPEN, ExpertState.SEALED)]
