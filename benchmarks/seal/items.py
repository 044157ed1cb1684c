"""What a puzzle teaches before it is asked: its examples, each asked in turn, the others shown.

    leave-1-out    every example asked, all others shown                      n of n examples
    leave-2-out    every example asked, all others but one shown              n (n - 1), where at least one is left to be shown
    changes        all of that, as it stands and under every change that was chosen
    permutations   all of that, once as it is and again with colours and the order of the examples permuted

An item of which a grid would be larger than ARC allows is left out; of more than `most` items a random choice stays.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from random import Random

from benchmarks.seal.data import LARGEST, Pair
from benchmarks.seal.grids import CHANGES, IDENTITY, Augmentation, Cells, Change, recoloured, text_of
from benchmarks.seal.words import PUZZLE

PERMUTATIONS = 2
"""Of each item: as it is, and one drawn at random."""


@dataclass(frozen=True)
class Item:
    """A question to one puzzle."""

    shown: tuple[tuple[Cells, Cells], ...]
    asked: Cells
    answer: Cells

    def changed(self, change: Change) -> Item:
        do = change.forth
        return Item(tuple((do(a), do(b)) for a, b in self.shown), do(self.asked), do(self.answer))

    def shuffled(self, rng: Random) -> Item:
        return replace(self, shown=tuple(rng.sample(self.shown, len(self.shown))))

    @property
    def fits(self) -> bool:
        grids = [*(grid for pair in self.shown for grid in pair), self.asked, self.answer]
        return all(len(grid) <= LARGEST and len(grid[0]) <= LARGEST for grid in grids)

    @property
    def question(self) -> str:
        return f"{PUZZLE}{shown_text(self.shown)}\n\nInput:\n{text_of(self.asked)}\nOutput:\n"


def shown_text(pairs: Sequence[tuple[Cells, Cells]]) -> str:
    return "\n\n".join(f"Input:\n{text_of(a)}\nOutput:\n{text_of(b)}" for a, b in pairs)


def cells(pairs: Sequence[Pair]) -> list[tuple[Cells, Cells]]:
    return [(pair.input, pair.output) for pair in pairs]


def left_out(pairs: Sequence[tuple[Cells, Cells]], count: int) -> list[Item]:
    """Items that show all but `count` examples, one of which is asked; none where nothing would be shown."""
    if len(pairs) <= count:
        return []
    places = range(len(pairs))
    return [
        Item(tuple(pairs[i] for i in places if i not in out), *pairs[asked]) for out in combinations(places, count) for asked in out
    ]


def items_of(pairs: Sequence[tuple[Cells, Cells]], chosen: Sequence[Augmentation], most: int, rng: Random) -> list[Item]:
    """All that a puzzle's examples teach with these augmentations."""
    plain = [item for count in (1, 2) for item in left_out(pairs, count)]
    changes = [IDENTITY, *(change for kind in chosen for change in CHANGES[kind])]
    once = [item.changed(change) for change in changes for item in plain]
    every = [item if not copy else permuted(item, rng)[0] for copy in range(PERMUTATIONS) for item in once]
    fitting = [item for item in every if item.fits]
    return fitting if len(fitting) <= most else rng.sample(fitting, most)


def permuted(item: Item, rng: Random) -> tuple[Item, Change]:
    """With other colours, and its examples in another order; and the change of colours."""
    colours = recoloured(rng)
    return item.changed(colours).shuffled(rng), colours
