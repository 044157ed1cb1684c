"""A model of a few thousand weights, and dreams for it."""

from __future__ import annotations

import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from circadian.experience import Row
from circadian.specs.dreaming import AdapterSpec

SPEC = AdapterSpec(rank=4, alpha=8.0, lr=5e-3, epochs=3, batch=2, max_grad_norm=0.5)
VOCABULARY = 61


def small_model() -> Qwen3ForCausalLM:
    """Random weights, the same every time."""
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        dtype="float32",
    )
    return Qwen3ForCausalLM(config).eval()


def dream(seed: int, rows: int) -> list[Row]:
    """Random texts of different lengths, tokens of different weight."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(4, 12, (rows,), generator=generator).tolist()
    texts = [tuple(torch.randint(1, VOCABULARY, (length,), generator=generator).tolist()) for length in lengths]
    return [Row(text, (0.0, *(1.0 + i % 2 for i in range(len(text) - 1)))) for text in texts]


DREAMS = [dream(1, 3), dream(2, 6), dream(3, 4)]
