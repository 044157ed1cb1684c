"""Base models with random weights, for every test that needs one that is not trained."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from circadian.nursery.text import build_tokenizer
from circadian.nursery.train import build_model
from circadian.nursery.world import World
from circadian.specs import NurserySpec

Family = Literal["qwen3", "llama"]
FAMILIES: tuple[Family, ...] = ("qwen3", "llama")
"""Every architecture that has a graft."""


def write_base(folder: Path, family: Family = "qwen3", **size: int) -> Path:
    """A base model and the nursery's tokenizer in a folder; size as in NurserySpec, whose heads a Llama shares in pairs."""
    tokenizer, spec = build_tokenizer(World(0)), NurserySpec(**size)
    model = build_model(spec, tokenizer) if family == "qwen3" else _llama(spec, tokenizer)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _llama(spec: NurserySpec, tokenizer: PreTrainedTokenizerFast) -> PreTrainedModel:
    """With grouped heads and tied embeddings, which the nursery's Qwen3 has not."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=spec.width,
        intermediate_size=spec.mlp_width,
        num_hidden_layers=spec.layers,
        num_attention_heads=spec.heads,
        num_key_value_heads=spec.heads // 2,
        head_dim=spec.head_width,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        dtype="float32",
    )
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.mul_(3)  # as drawn, nothing in the model would change its predictions visibly
    return model
