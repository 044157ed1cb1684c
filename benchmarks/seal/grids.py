"""Grids and what can be done to them so that a puzzle stays a puzzle of the same kind.

    basic     the seven ways to turn and mirror a grid
    size      every cell becomes a block: 2 x 1, 1 x 2, 2 x 2
    chain     turned by 90 or 180 degrees or mirrored, then every cell a block of 2 x 2
    repeat    the grid twice: below, beside, and both

A change is done to inputs and outputs alike, and every one can be taken back. SEAL names the four kinds; what is in each is ours.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Literal

from circadian.dreaming.scorers import grid_of

Cells = tuple[tuple[int, ...], ...]
COLOURS = 10
"""0 is the background, which no permutation moves."""
Augmentation = Literal["basic", "size", "chain", "repeat"]


@dataclass(frozen=True)
class Change:
    """back(forth(grid)) is the grid."""

    forth: Callable[[Cells], Cells]
    back: Callable[[Cells], Cells]

    def then(self, other: Change) -> Change:
        return Change(lambda grid: other.forth(self.forth(grid)), lambda grid: self.back(other.back(grid)))


def turned(grid: Cells, quarters: int) -> Cells:
    """Clockwise."""
    for _ in range(quarters % 4):
        grid = tuple(zip(*grid[::-1], strict=True))
    return grid


def transposed(grid: Cells) -> Cells:
    return tuple(zip(*grid, strict=True))


def enlarged(grid: Cells, down: int, across: int) -> Cells:
    return tuple(tuple(cell for cell in row for _ in range(across)) for row in grid for _ in range(down))


def reduced(grid: Cells, down: int, across: int) -> Cells:
    return tuple(row[::across] for row in grid[::down])


def repeated(grid: Cells, down: int, across: int) -> Cells:
    return tuple(row * across for row in grid * down)


def first(grid: Cells, down: int, across: int) -> Cells:
    """Of a repeated one."""
    return tuple(row[: len(row) // across] for row in grid[: len(grid) // down])


def _turn(quarters: int) -> Change:
    return Change(partial(turned, quarters=quarters), partial(turned, quarters=-quarters))


def _larger(down: int, across: int) -> Change:
    return Change(partial(enlarged, down=down, across=across), partial(reduced, down=down, across=across))


def _repeat(down: int, across: int) -> Change:
    return Change(partial(repeated, down=down, across=across), partial(first, down=down, across=across))


IDENTITY, FLIP = _turn(0), Change(transposed, transposed)
SYMMETRIES = (IDENTITY, *(_turn(n) for n in (1, 2, 3)), *(FLIP.then(_turn(n)) for n in range(4)))
SHAPES = ((2, 1), (1, 2), (2, 2))
CHANGES: dict[Augmentation, tuple[Change, ...]] = {
    "basic": SYMMETRIES[1:],
    "size": tuple(_larger(*shape) for shape in SHAPES),
    "chain": tuple(change.then(_larger(2, 2)) for change in (_turn(1), _turn(2), FLIP)),
    "repeat": tuple(_repeat(*shape) for shape in SHAPES),
}


def recoloured(rng: Random) -> Change:
    """Colours change places, but for the background."""
    there = [0, *rng.sample(range(1, COLOURS), COLOURS - 1)]
    back = [there.index(colour) for colour in range(COLOURS)]
    return Change(partial(_painted, colours=there), partial(_painted, colours=back))


def _painted(grid: Cells, colours: Sequence[int]) -> Cells:
    return tuple(tuple(colours[cell] for cell in row) for row in grid)


def text_of(grid: Cells) -> str:
    return "\n".join(" ".join(map(str, row)) for row in grid)


def read_grid(text: str) -> Cells | None:
    """The grid in an answer, if there is one: rows of one length, of colours."""
    grid = tuple(map(tuple, grid_of(text)))
    whole = len({len(row) for row in grid}) == 1 and all(cell < COLOURS for row in grid for cell in row)
    return grid if whole else None
