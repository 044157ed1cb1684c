"""What a night may spend, and whether it has: pure functions. The watcher ends a night that has spent too much (nights.py).

    wall seconds   from the submission of the first attempt on, but for the time in which the sleep was paused or in line again
    GPU seconds    the wall seconds, times all GPUs that the recipe's learners and rollout workers hold
    tokens         of the experiences that the night is begun on: what would be too much waits for the next one (selection.py)

A sleep that an operator retries begins its budget anew. What it spends is counted as if the GPUs were held for the whole night, which is
what a night that another one waits for costs.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from circadian.specs import PositiveInt, Seconds, Spec
from services.tables import Json, Sleep

TOO_LONG, EXCEEDED, NO_CAPACITY = "night_too_long", "budget_exceeded", "no_capacity"


class Budget(Spec):
    """The most that a night may spend."""

    max_gpu_seconds: Seconds | None = None
    """Of all its GPUs together. A night without GPUs spends none."""
    max_tokens: PositiveInt | None = None
    """Of the experiences that it takes; the others wait for the next sleep."""
    max_wall_seconds: Seconds | None = None
    """From its first submission on, pauses left out."""


class Spent(Spec):
    """What a night has spent."""

    wall_seconds: Annotated[float, Field(ge=0.0)]
    gpu_seconds: Annotated[float, Field(ge=0.0)]

    def told(self) -> Json:
        return {name: round(value, 3) for name, value in self.model_dump().items()}


def gpus(recipe: Json) -> float:
    """That a night holds: learners and rollout workers are there at the same time. recipe: as it is stored, perhaps by another release."""
    return sum(part["workers"] * part["gpus_per_worker"] for part in (recipe["learner"], recipe["rollouts"]))


def cpus(recipe: Json) -> float:
    """The same of CPUs of the cluster."""
    return sum(part["workers"] * part["cpus_per_worker"] for part in (recipe["learner"], recipe["rollouts"]))


def spent(sleep: Sleep, now: float) -> Spent:
    """By a sleep, until it ended or now."""
    if sleep.began_at is None:
        return Spent(wall_seconds=0.0, gpu_seconds=0.0)
    until = min(moment for moment in (sleep.paused_at, sleep.pending_since, sleep.finished_at, now) if moment is not None)
    wall = max(0.0, until - sleep.began_at - sleep.paused_seconds)
    return Spent(wall_seconds=wall, gpu_seconds=wall * gpus(sleep.recipe))


def stood_still(sleep: Sleep, now: float) -> None:
    """It goes on now: what it stood still for is counted, and is over."""
    since = min((moment for moment in (sleep.paused_at, sleep.pending_since) if moment is not None), default=now)
    if sleep.began_at is not None:
        sleep.paused_seconds += max(0.0, now - since)
    sleep.paused_at = sleep.pending_since = None


def overrun(sleep: Sleep, night_seconds: float, now: float) -> tuple[str, str] | None:
    """The code and the words of the limit that a night has passed, if it has passed one; `night_seconds` is the operator's."""
    budget, so_far = Budget.model_validate(sleep.budget), spent(sleep, now)
    for name, limit, value in (
        ("max_wall_seconds", budget.max_wall_seconds, so_far.wall_seconds),
        ("max_gpu_seconds", budget.max_gpu_seconds, so_far.gpu_seconds),
    ):
        if limit is not None and value > limit:
            unit = name.removeprefix("max_").replace("_", " ").replace("gpu", "GPU")
            return (
                EXCEEDED,
                f"budget.{name}: the night may spend {limit:g} {unit} and has spent {value:.1f}; ask again with more of them",
            )
    if so_far.wall_seconds > night_seconds:
        return TOO_LONG, f"the night took longer than {night_seconds} s"
    if sleep.pending_since is not None and now - sleep.pending_since > night_seconds:
        return NO_CAPACITY, f"the cluster did not begin the night's job within {night_seconds} s; {sleep.waiting or 'it waited'}"
    return None
