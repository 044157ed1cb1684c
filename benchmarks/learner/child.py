"""One contender in a process of its own: `python -m benchmarks.learner.child REQUEST ANSWER`, two JSON files.

At every point: build, teach (timed cold, with nothing warmed up), one step to warm up, then the timed steps. Bytes are resident memory
of this process: `library` before any model, `before` when the model stands and before the first step, `peak` from then to the last step.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from benchmarks.learner.measure import forget_peak, peak, peak_of_life, release, resident, seconds
from benchmarks.learner.points import Contender, Point, Shape, rows_of


class Runner(Protocol):
    """A contender at a point."""

    learned: int
    """Parameters that learn."""

    def teach(self) -> None: ...

    def step(self) -> float: ...

    def lesson_bytes(self) -> int: ...


@dataclass(frozen=True)
class Measured:
    """One contender at one point."""

    teach_seconds: tuple[float, float]
    """Of all rows, by the wall and of computing; next to nothing where the teacher speaks in the step."""
    step_seconds: list[tuple[float, float]]
    tokens: int
    """Of all rows, padding not counted."""
    library_bytes: int
    before_bytes: int
    peak_bytes: int
    life_peak_bytes: int
    lesson_bytes: int
    learned_parameters: int
    first_loss: float


def load(contender: Contender) -> Callable[[Point], Runner]:
    """A contender's maker; imports what it needs and no more, so that the others' libraries are not in its memory."""
    if contender == "circadian":
        return import_module("benchmarks.learner.ours").Circadian
    return partial(import_module("benchmarks.learner.trl_rivals").Trl, contender)


def measure(make: Callable[[Point], Runner], point: Point, steps: int, warm: bool, library: int) -> Measured:
    runner = make(point)
    release()
    before = resident()
    forget_peak()
    teach = seconds(runner.teach)
    loss = runner.step() if warm else 0.0
    timed = [seconds(runner.step) for _ in range(steps)]
    return Measured(
        teach_seconds=teach,
        step_seconds=timed,
        tokens=sum(len(row.ids) for row in rows_of(point)),
        library_bytes=library,
        before_bytes=before,
        peak_bytes=peak(),
        life_peak_bytes=peak_of_life(),
        lesson_bytes=runner.lesson_bytes(),
        learned_parameters=runner.learned,
        first_loss=loss,
    )


def point_of(fields: dict[str, Any]) -> Point:
    """The inverse of asdict."""
    return Point(**{**fields, "shape": Shape(**fields["shape"])})


def main(request: Path, answer: Path) -> None:
    asked = json.loads(request.read_text())
    make = load(asked["contender"])
    library = resident()
    found = []
    for fields in asked["points"]:
        measured = measure(make, point_of(fields), asked["steps"], asked["warm"], library)
        found.append(asdict(measured))
        answer.write_text(json.dumps(found))
        release()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
