"""Shared by all tests: quick ones first, and a base model that costs nothing."""

from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from circadian.nursery.text import build_tokenizer
from circadian.nursery.train import build_model
from circadian.nursery.world import World
from circadian.specs import NurserySpec


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that start an engine come last, so that a slip is seen in seconds."""
    items.sort(key=lambda item: item.get_closest_marker("engine") is not None)


@pytest.fixture(scope="session", params=["qwen3", "llama"])
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small random base model of each architecture that has a graft."""
    folder = tmp_path_factory.mktemp(f"base-{request.param}")
    tokenizer = build_tokenizer(World(0))
    if request.param == "qwen3":
        model = build_model(NurserySpec(layers=2), tokenizer)
    else:
        torch.manual_seed(0)
        size = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 2, "head_dim": 32}
        model = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), max_position_embeddings=512, dtype="float32", **size))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
