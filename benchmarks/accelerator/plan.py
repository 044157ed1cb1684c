"""What is measured, and how often. Torch-free but for the token rows, so that a plan can be read anywhere.

reads      a decoder forward that answers for the last token of each row: `prompts` rows of `tokens` tokens that are read at once, or
           `answers`, one token a row after `past` tokens that were read before
lessons    the rows of a distillation step (benchmarks/learner/points.py)
"""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.learner.points import QWEN, Point, Shape

QWEN_8B = Shape("qwen3-8b", 4096, 36, 32, 8, 128, 12_288, 151_936, tied=False)
TINY = Shape("tiny", 32, 4, 2, 2, 16, 48, 101, tied=True)
"""For a CPU and a test."""


@dataclass(frozen=True)
class Read:
    """One forward."""

    rows: int
    tokens: int
    past: int = 0

    @property
    def name(self) -> str:
        """As it stands in the result."""
        return f"answers-{self.rows}-after-{self.past}" if self.past else f"prompts-{self.rows}x{self.tokens}"


@dataclass(frozen=True)
class Plan:
    """Of one shape."""

    shape: Shape
    reads: tuple[Read, ...]
    lessons: tuple[Point, ...]
    compared: tuple[int, ...]
    """Tokens whose divergences are computed at once; none: not measured at this shape."""
    deliveries: int
    """Of one expert, and of a whole version."""
    full_deliveries: int
    """Of all weights of the base; none where its file would be too large."""
    rounds: int
    steps: int
    """Rounds of distillation steps, which take longer."""
    experts: tuple[int, ...] = (8, 16, 32)
    """Sealed experts that are heard, beside the fast one."""
    rank: int = 128


def rows(shape: Shape, *counts: int, tokens: int = 256, recipe: int = 32) -> tuple[Point, ...]:
    """Steps of so many rows of one length, and one of the default recipe's."""
    return (*(Point(shape, "equal", count, tokens) for count in counts), Point(shape, "recipe", recipe))


WHOLE = Plan(
    QWEN,
    (Read(1, 1, 128), Read(8, 1, 128), Read(64, 1, 128), Read(1, 128), Read(8, 512)),
    rows(QWEN, 4, 16, 64),
    compared=(2048, 8192),
    deliveries=100,
    full_deliveries=7,
    rounds=15,
    steps=7,
)
LARGE = Plan(
    QWEN_8B,
    (Read(1, 1, 128), Read(8, 1, 128), Read(1, 128), Read(8, 512)),
    rows(QWEN_8B, 4, 16),
    compared=(),
    deliveries=20,
    full_deliveries=0,
    rounds=9,
    steps=5,
)
SMALL = Plan(
    TINY,
    (Read(2, 1, 6), Read(2, 8)),
    rows(TINY, 2, tokens=16, recipe=6),
    compared=(40,),
    deliveries=4,
    full_deliveries=2,
    rounds=2,
    steps=2,
    experts=(2, 3),
    rank=8,
)
PLANS = {plan.shape.name: plan for plan in (WHOLE, LARGE, SMALL)}
