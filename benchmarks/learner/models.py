"""Models with random weights, fp32: the base, and the base with memory as it stands at dusk."""

from __future__ import annotations

import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from benchmarks.learner.points import Point, Shape
from circadian.memory.graft import Grafted, Qwen3MemoryForCausalLM, grafted_layers, memory_config
from circadian.memory.state import ExpertId, MemoryState
from circadian.memory.transfer import Transfer
from circadian.specs import Level, MemorySpec

DEFAULT = MemorySpec()
AWAKE_SCALE = 0.02
"""Of the fast level's random weights: enough that the awake self differs from the rested one."""


def config_of(shape: Shape) -> Qwen3Config:
    return Qwen3Config(
        vocab_size=shape.vocabulary,
        hidden_size=shape.width,
        intermediate_size=shape.mlp_width,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        head_dim=shape.head_width,
        max_position_embeddings=2048,
        tie_word_embeddings=shape.tied,
        dtype="float32",
    )


def base_model(shape: Shape, seed: int = 0) -> Qwen3ForCausalLM:
    torch.manual_seed(seed)
    return Qwen3ForCausalLM(config_of(shape)).eval()


def transfer_of(point: Point) -> Transfer:
    """The consolidation of a night: the fast level is open, the next level's first free expert will be."""
    fast, slow = DEFAULT.levels
    experts = max(slow.experts, point.sealed + 1)
    states = [["open"] * fast.experts, ["sealed"] * point.sealed + ["reserved"] * (experts - point.sealed)]
    return Transfer.consolidation(MemoryState.parse(states), 1)


def memory_layers(point: Point) -> tuple[int, ...]:
    """Which carry memory: the default spec's, or all from a point on."""
    layers = tuple(range(point.memory_from, point.shape.layers)) if point.memory_from is not None else None
    return grafted_layers(MemorySpec(layers=layers), point.shape.layers)


def grafted_model(point: Point, seed: int = 0) -> Grafted:
    """The same base, with memory; the expert to write is fresh."""
    transfer, shape = transfer_of(point), point.shape
    fast, slow = DEFAULT.levels
    levels = (fast, Level(period=slow.period, experts=len(transfer.experts[1]), rank=slow.rank))
    torch.manual_seed(seed)
    model = Qwen3MemoryForCausalLM(memory_config(config_of(shape), MemorySpec(levels=levels, layers=memory_layers(point)))).eval()
    model.memory_state = MemoryState.parse(transfer.experts)
    generator = torch.Generator().manual_seed(seed)
    for layer in model.memory_layers.values():
        for where in (ExpertId(0, 0), *(ExpertId(1, expert) for expert in range(point.sealed)), ExpertId(*transfer.into)):
            layer.initialise(where, generator)
            if where != ExpertId(*transfer.into):
                weights = layer.bank(where.level).slices(where.expert)["B"]
                weights.copy_(torch.randn(weights.shape, generator=generator) * AWAKE_SCALE)
    return model


def learned_parameters(point: Point) -> int:
    """Of the expert that is written, over all its layers: A, B, router row and bias."""
    return len(memory_layers(point)) * (2 * DEFAULT.levels[1].rank * point.shape.width + point.shape.width + 1)
