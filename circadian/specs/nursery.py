"""The small models that ship with Circadian."""

from __future__ import annotations

from typing import Literal

from circadian.specs.base import PositiveInt, Spec


class NurserySpec(Spec):
    """A nursery model and its pretraining."""

    world: Literal["toy", "school"] = "toy"
    """What it lives in: circadian/nursery/world.py, or school.py."""
    world_seed: int = 0
    """The world the model lives in."""
    seed: int = 0
    """Of the initial weights and the order of documents."""
    width: PositiveInt = 128
    """Model width D."""
    mlp_width: PositiveInt = 256
    layers: PositiveInt = 4
    heads: PositiveInt = 4
    head_width: PositiveInt = 32
    steps: PositiveInt = 2500
    closed_book_rows: PositiveInt = 96
    """Short documents a step."""
    open_book_rows: PositiveInt = 32
    """Passages a step."""
    muon_lr: float = 0.02
    adam_lr: float = 3e-3
