"""What the serving benchmark serves: a base of Qwen3-0.6B's shape with random weights, and random experts for it.

Speed does not depend on what the weights say, so nothing is downloaded. Experts are sealed as a night does it: by a delivery.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from circadian.memory.delivery import pack_tensors
from circadian.memory.layer import PARTS
from circadian.memory.state import ExpertState, MemoryState
from circadian.specs import MemorySpec

SHAPE: dict[str, Any] = {
    "hidden_size": 1024,
    "intermediate_size": 3072,
    "num_hidden_layers": 28,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "vocab_size": 151_936,
    "tie_word_embeddings": True,
    "max_position_embeddings": 40_960,
    "rope_theta": 1_000_000.0,
}
"""Qwen3-0.6B's."""
SLOW = 1
"""The level whose experts are counted."""


def write_base(folder: Path, dtype: torch.dtype) -> Path:
    """A base model of that shape with random weights in a folder."""
    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        Qwen3ForCausalLM(Qwen3Config(**SHAPE, dtype=str(dtype).removeprefix("torch."))).save_pretrained(folder)
    finally:
        torch.set_default_dtype(before)
    return folder


def sealed(spec: MemorySpec, layers: tuple[int, ...], width: int, experts: int, dtype: torch.dtype) -> bytes:
    """The delivery of a version whose slow level holds this many sealed experts of random content, and nothing else; width D."""
    level, generator = spec.levels[SLOW], torch.Generator().manual_seed(experts)
    shapes = dict(zip(PARTS, ((level.rank, width), (width, level.rank), (1, width), (1,)), strict=True))
    tensors = {
        f"layers.{layer}.levels.{SLOW}.experts.{expert}.{part}": (0.02 * torch.randn(shape, generator=generator)).to(dtype)
        for layer in layers
        for expert in range(experts)
        for part, shape in shapes.items()
    }
    rows = [[ExpertState.RESERVED] * each.experts for each in spec.levels]
    rows[SLOW][:experts] = [ExpertState.SEALED] * experts
    return pack_tensors(tensors, MemoryState(tuple(map(tuple, rows))), f"sealed-{experts}")


def weights(spec: MemorySpec, layers: tuple[int, ...], experts: int) -> dict[str, float]:
    """Weights of so many heard experts against those of the base that a written token reads (decode) and a read one does (prefill)."""
    D, heads, width = SHAPE["hidden_size"], SHAPE["num_attention_heads"] + SHAPE["num_key_value_heads"], SHAPE["head_dim"]
    layer = 2 * D * heads * width + 3 * D * SHAPE["intermediate_size"]
    body = SHAPE["num_hidden_layers"] * layer
    memory = len(layers) * experts * D * (2 * spec.levels[SLOW].rank + 1)
    return {"decode": round(memory / (body + SHAPE["vocab_size"] * D), 4), "prefill": round(memory / body, 4)}
