"""A test input, asked in many ways: under every symmetry, each example left out once, as it is and permuted; the answers are turned back
and vote."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from benchmarks.seal.data import Pair, Puzzle
from benchmarks.seal.grids import SYMMETRIES, Cells, Change, read_grid
from benchmarks.seal.items import PERMUTATIONS, Item, cells, permuted

ATTEMPTS = 2


@dataclass(frozen=True)
class Query:
    """One way to ask."""

    item: Item
    change: Change
    """That was done to it."""

    def back(self, answer: str) -> Cells | None:
        """What an answer to it says of the test input, if it says anything."""
        grid = read_grid(answer)
        return None if grid is None else self.change.back(grid)


def queries(puzzle: Puzzle, test: Pair, most: int, rng: Random) -> list[Query]:
    """The first `most` ways to ask for a test input; those that change least come first."""
    pairs, found = cells(puzzle.train), []
    for copy in range(PERMUTATIONS):
        for symmetry in SYMMETRIES:
            for out in range(len(pairs)):
                item = Item((*pairs[:out], *pairs[out + 1 :]), test.input, test.output).changed(symmetry)
                if copy:
                    item, colours = permuted(item, rng)
                    found.append(Query(item, symmetry.then(colours)))
                else:
                    found.append(Query(item, symmetry))
    return found[:most]


def attempts(said: Sequence[Cells | None]) -> list[Cells]:
    """The grids that were said most often, at most two; of two as frequent ones the one that was said first."""
    counts = Counter(grid for grid in said if grid is not None)
    return [grid for grid, _ in counts.most_common(ATTEMPTS)]


def right(said: Sequence[Cells | None], test: Pair) -> bool:
    return test.output in attempts(said)
