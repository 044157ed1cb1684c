"""A small version with random experts, as Hugging Face reads it and as a vLLM engine serves it."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from transformers import PreTrainedTokenizerFast

from circadian.memory.graft import Grafted
from circadian.memory.state import ExpertId, ExpertState, MemoryState
from circadian.memory.version import load_version
from circadian.specs import Level, MemorySpec

T = TypeVar("T")
SPEC = MemorySpec(levels=(Level(period=8, experts=2, rank=8), Level(period=64, experts=4, rank=8)), layers=(1, 2, 3))
FAST, SEALED, STUDENT = ExpertId(0, 0), ExpertId(1, 0), ExpertId(1, 1)
"""One expert for each thing a view can hear, so that base, awake, rested and student are four different models."""


@dataclass(frozen=True)
class EngineWorld:
    """A first version with an empty memory, and its tokenizer."""

    folder: Path
    tokenizer: PreTrainedTokenizerFast

    def grown(self, seed: int) -> Grafted:
        """The version's model with three experts of random weights: an open fast one, a sealed and an open slow one."""
        return grow(load_version(self.folder), seed)


def grow(model: Grafted, seed: int) -> Grafted:
    """Fill three experts of a model with random weights large enough that no two views or seeds agree."""
    generator = torch.Generator().manual_seed(seed)
    for layer in model.memory_layers.values():
        for where in (FAST, SEALED, STUDENT):
            for tensor in layer.levels[where.level].slices(where.expert).values():
                tensor.copy_(0.5 * torch.randn(tensor.shape, generator=generator))
    reserved, opened, sealed = ExpertState.RESERVED, ExpertState.OPEN, ExpertState.SEALED
    model.memory_state = MemoryState(((opened, reserved), (sealed, opened, reserved, reserved)))
    return model


@dataclass(frozen=True)
class LiveEngine:
    """An engine and the event loop that it lives on."""

    engine: Any
    run: Callable[[Coroutine[Any, Any, T]], T]
