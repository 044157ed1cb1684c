"""Small versions with random experts, as Hugging Face reads them and as a vLLM engine serves them."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from random_base import Family, write_base
from transformers import PreTrainedTokenizerFast

from circadian.memory.folder import read_record
from circadian.memory.graft import Grafted
from circadian.memory.state import ExpertId, ExpertState, MemoryState
from circadian.memory.version import found_version, load_tokenizer, load_version, save_version
from circadian.specs import Level, MemorySpec

T = TypeVar("T")
SPEC = MemorySpec(levels=(Level(period=8, experts=2, rank=8), Level(period=64, experts=4, rank=8)), layers=(1, 2, 3))
FAST, SEALED, STUDENT = ExpertId(0, 0), ExpertId(1, 0), ExpertId(1, 1)
"""One expert for each thing a view can hear, so that base, awake, rested and student are four different models."""
EXPERTS = (FAST, SEALED, STUDENT)
VIEWS = ("base", "awake", "rested", "student")
LONG = 300
"""Tokens; a block of the prefix cache is 128 on CPU, so a shorter prompt would never be read from it."""
WRITTEN = 4
"""Tokens that are written after a prompt where predictions are compared."""


@dataclass(frozen=True)
class EngineWorld:
    """A version with three written experts, and its tokenizer."""

    folder: Path
    tokenizer: PreTrainedTokenizerFast

    def grown(self, seed: int) -> Grafted:
        """The version's model with three experts of random weights: an open fast one, a sealed and an open slow one."""
        return grow(load_version(self.folder), seed)

    def prompts(self, rows: int, length: int, seed: int = 0) -> torch.Tensor:
        """Random tokens, [rows, length]."""
        return torch.randint(6, len(self.tokenizer), (rows, length), generator=torch.Generator().manual_seed(seed))


def grow(model: Grafted, seed: int) -> Grafted:
    """Fill three experts of a model with random weights large enough that no two views or seeds agree."""
    generator = torch.Generator().manual_seed(seed)
    for layer in model.memory_layers.values():
        for where in EXPERTS:
            for tensor in layer.levels[where.level].slices(where.expert).values():
                tensor.copy_(0.5 * torch.randn(tensor.shape, generator=generator))
    reserved, opened, sealed = ExpertState.RESERVED, ExpertState.OPEN, ExpertState.SEALED
    model.memory_state = MemoryState(((opened, reserved), (sealed, opened, reserved, reserved)))
    return model


def make_world(home: Path, family: Family) -> EngineWorld:
    """A base, a first version of it with an empty memory, and one with written experts."""
    found_version(str(write_base(home / "base", family)), None, SPEC, home / "v0")
    record = read_record(home / "v0").model_copy(update={"id": "v1", "parent": "v0"})
    save_version(home / "v1", grow(load_version(home / "v0"), seed=0), record, home / "v0")
    return EngineWorld(home / "v1", load_tokenizer(home / "v1"))


@dataclass(frozen=True)
class Asked:
    """What an engine wrote after a prompt."""

    tokens: list[int]
    logprobs: list[dict[int, float]]
    """Of the likeliest tokens in each place, nats."""
    from_cache: int
    """Tokens of the prompt that were read from the prefix cache."""


async def ask(engine: Any, prompt: list[int]) -> Asked:
    """Let an engine write greedily. Unlike log-probs of a prompt, those of written tokens are read through the prefix cache."""
    from vllm import SamplingParams

    output = await engine.generate(prompt, SamplingParams(max_tokens=WRITTEN, temperature=0.0, logprobs=20, ignore_eos=True))
    places = [{token: entry.logprob for token, entry in place.items()} for place in output.outputs[0].logprobs]
    return Asked(list(output.outputs[0].token_ids), places, output.num_cached_tokens)


@torch.no_grad()
def deviation(model: Grafted, prompt: list[int], view: Any, asked: Asked) -> float:
    """Nats at most between an engine's log-probs of what it wrote and the model's."""
    expected = torch.log_softmax(model(input_ids=torch.tensor([prompt + asked.tokens]), view=view).logits[0].float(), dim=-1)
    rows = expected[len(prompt) - 1 : -1]
    return max(
        abs(float(row[token]) - logprob)
        for row, place in zip(rows, asked.logprobs, strict=True)
        for token, logprob in place.items()
    )


@dataclass(frozen=True)
class LiveEngine:
    """An engine, the event loop that it lives on, and what it wrote before anything was delivered to it."""

    engine: Any
    run: Callable[[Coroutine[Any, Any, T]], T]
    world: EngineWorld
    as_loaded: dict[str, list[Asked]]

    def ask_twice(self, model: Grafted, view: str) -> list[Asked]:
        """Asked for the same long prompt two times in a view, and back to what is awake."""
        prompt = self.world.prompts(1, LONG)[0].tolist()
        self.run(self.engine.set_view(model.memory_state.view(view)))
        asked = [self.run(ask(self.engine, prompt)) for _ in range(2)]
        self.run(self.engine.set_view(None))
        return asked
