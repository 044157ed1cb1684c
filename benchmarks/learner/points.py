"""What is measured at: models by shape, and the token rows of a step.

    toy           the nursery model that ships: D 128, 4 layers, V 482
    qwen3-0.6b    Qwen3-0.6B's shape with random weights: D 1024, 28 layers, V 151,936, tied embeddings
    curve         a shape small enough to be swept: D 512, 4 layers, V 8,192

    recipe        rows as the default recipe makes them on a first night: two fifths are short questions whose answer is taught, the
                  rest documents that the nursery model might write from nothing, a quarter of them passages, taught as a whole
    equal         rows of one length, taught from the second quarter on: nothing to gain from packing

Torch-free, so that the parent process stays small.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, replace
from typing import Literal

from circadian.objectives.rows import TaughtRow
from circadian.specs import SeedingSpec

Mixture = Literal["recipe", "equal"]
Contender = Literal["circadian", "trl_gkd", "trl_distillation", "trl_distillation_default", "trl_self"]
QUESTION_TOKENS, ANSWER_TOKENS = (8, 10), 2
"""Of the nursery's questions, with the marks of a chat; of its answers, with the end."""
STATEMENT_TOKENS, PASSAGE_TOKENS = (9, 13), (16, 48)
RECIPE = SeedingSpec()
CUE_SHARE = 4
"""A row of the `equal` mixture is taught but for one part in so many."""


@dataclass(frozen=True)
class Shape:
    """A Qwen3 model."""

    name: str
    width: int
    layers: int
    heads: int
    kv_heads: int
    head_width: int
    mlp_width: int
    vocabulary: int
    tied: bool


@dataclass(frozen=True)
class Point:
    """One measurement: which model, how many rows, which layers carry memory, and how many experts are sealed already."""

    shape: Shape
    mixture: Mixture
    rows: int
    tokens: int = 0
    """Of a row, in the `equal` mixture."""
    memory_from: int | None = None
    """Memory in all decoder layers from here on; None is the default spec: the upper half, every fourth layer of it in a base of more
    than eight."""
    sealed: int = 0
    """Sealed experts that teacher and student hear besides; on a first night there are none."""

    @property
    def name(self) -> str:
        """As it stands in the result."""
        size = f"{self.rows}x{self.tokens}" if self.mixture == "equal" else f"{self.rows}-rows"
        memory = f"/memory-from-layer-{self.memory_from}" if self.memory_from is not None else ""
        return f"{self.shape.name}/{self.mixture}-{size}{memory}"


TOY = Shape("toy", 128, 4, 4, 4, 32, 256, 482, tied=False)
QWEN = Shape("qwen3-0.6b", 1024, 28, 16, 8, 128, 3072, 151_936, tied=True)
CURVE = Shape("curve", 512, 4, 8, 8, 64, 1536, 8192, tied=True)


def vocabulary(size: int) -> Shape:
    """The curve's shape with another vocabulary."""
    return replace(CURVE, vocabulary=size)


def rows_of(point: Point, seed: int = 0) -> list[TaughtRow]:
    """The step's rows; their tokens are random, their lengths are what counts."""
    rng = random.Random(f"{point.mixture}/{point.rows}/{point.tokens}/{seed}")
    return [_row(point, number, rng) for number in range(point.rows)]


def _row(point: Point, number: int, rng: random.Random) -> TaughtRow:
    def text(length: int) -> tuple[int, ...]:
        return tuple(rng.randrange(5, point.shape.vocabulary) for _ in range(length))

    if point.mixture == "equal":
        return TaughtRow(text(point.tokens), point.tokens // CUE_SHARE, "awake", "day")
    if number % 5 < 2:
        cue = rng.randint(*QUESTION_TOKENS)
        return TaughtRow(text(cue + ANSWER_TOKENS), cue, "awake", "day")
    passage = number % 20 in (4, 9, 14)  # a quarter of the three fifths that are documents
    return TaughtRow(text(rng.randint(*(PASSAGE_TOKENS if passage else STATEMENT_TOKENS))), 1, "rested", "free")


def meetings_of_a_row(spec: SeedingSpec = RECIPE, later: bool = False) -> float:
    """How often a row is met after it was taught, on average over the first night of the default recipe, or over a later one, which has
    rows of earlier nights to teach besides.

    A row is taught when it is written: the teacher's rows and its documents once, the student's at every refresh.
    """
    refreshes = math.ceil(spec.steps / spec.refresh_steps)
    return spec.steps * spec.rows / (_teachers_rows(spec, later) + spec.student_rows * refreshes)


def kept_rows(spec: SeedingSpec = RECIPE) -> int:
    """Rows whose lessons a later night of the default recipe keeps at once: the teachers', and the student's last ones."""
    return _teachers_rows(spec, later=True) + spec.student_rows


def _teachers_rows(spec: SeedingSpec, later: bool) -> int:
    return spec.teacher_rows * (2 if later else 1) + spec.free_run_rows
