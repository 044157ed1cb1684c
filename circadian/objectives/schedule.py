"""The learning rate over the steps of a task."""

from __future__ import annotations


def lr_at(step: int, steps: int, lr: float) -> float:
    """The learning rate of a step: constant over the first half, then down linearly, so that it would be zero at `steps`."""
    return lr * min(1.0, 2 * (steps - step) / steps)
