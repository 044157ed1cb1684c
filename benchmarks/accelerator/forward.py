"""What memory costs a decoder's forward: the base, the base with memory, and the base with a LoRA, in turns.

    base, base_again     twice, so that the noise of a ratio is seen
    memory-E             E sealed experts and the fast one, all heard, by the graft (models.py)
    packed-E             the same in two products a layer, as an engine has them
    aligned-E            the same with rows of zeros below the first product's, so that it has a multiple of ALIGNED
    lora-R               a LoRA of one expert's rank on the MLPs of the layers that carry memory
    lora-R-everywhere    of all layers, as peft places it
    lora-ER              as many of them as experts, stacked to one of rank E R, in the layers that carry memory (fewest and most E)

`eager`: as Hugging Face calls it, where a GPU waits for Python; `graph`: one CUDA graph, as an engine replays it. `floor_ms`: the bytes of
the weights over the copy's rate, or the operations over the product's, whichever is more: no version is faster. `bytes`: of the weights
that a token meets.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from benchmarks.accelerator.kit import Work, captured, interleaved, release, summary
from benchmarks.accelerator.models import adapted, base_model, fill, grafted, packed
from benchmarks.accelerator.plan import Plan, Read
from circadian.memory.graft import Grafted
from circadian.memory.state import MemoryState
from circadian.specs import Level, MemorySpec

BASE, AGAIN = "base", "base_again"
ALIGNED = 64
"""Rows: an odd number of them makes a product slow."""
Models = dict[str, PreTrainedModel]
UNMASKED = {"full_attention": None}
"""Attention's mask as the model would make it: none, causal where there is more than one token, all of the past where there is one."""


class Past:
    """Keys and values of tokens that were read before, random; a step writes its own into the last place and leaves no other trace."""

    def __init__(self, model: PreTrainedModel, rows: int, tokens: int) -> None:
        config = model.config
        shape = (config.num_hidden_layers, 2, rows, config.num_key_value_heads, tokens + 1, config.head_dim)
        self._held = torch.randn(shape, device=model.device, dtype=model.dtype)

    def update(self, keys: Tensor, values: Tensor, layer: int, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """What transformers asks of a cache."""
        held = self._held[layer]
        held[0, :, :, -1:].copy_(keys)
        held[1, :, :, -1:].copy_(values)
        return held[0], held[1]


def spec_of(plan: Plan, experts: int) -> MemorySpec:
    """Of the default layers."""
    return MemorySpec(levels=(Level(period=1024, experts=1, rank=plan.rank), Level(period=8192, experts=experts, rank=plan.rank)))


def sealed(experts: int) -> MemoryState:
    """The fast expert open, all others sealed."""
    return MemoryState.parse([["open"], ["sealed"] * experts])


def measure(plan: Plan, device: torch.device, dtype: torch.dtype, rates: dict[str, float]) -> dict[str, Any]:
    """By read."""
    models, by = contenders(plan, device, dtype)
    found: dict[str, Any] = {"lora": by}
    memory = [model for model in models.values() if isinstance(model, Grafted)]
    found["layers"] = list(memory[0].grafted_layers)
    found["bytes"] = {name: _touched(model) for name, model in models.items()}
    for read in plan.reads:
        works = {name: forward(model, inputs(model, read)) for name, model in models.items()}
        ways = {"eager": works}
        if device.type == "cuda":
            ways["graph"] = {name: captured(work) for name, work in works.items()}
        found[read.name] = {way: summary(interleaved(mine, device, plan.rounds), BASE) for way, mine in ways.items()}
        if rates:
            found[read.name]["floor_ms"] = {name: _floor(model, read, rates) for name, model in models.items()}
        del works, ways
        release(device)
    return found


def contenders(plan: Plan, device: torch.device, dtype: torch.dtype) -> tuple[Models, str]:
    """All of them, on one base's weights, and whose LoRA it is."""
    base = base_model(plan.shape, device, dtype)
    models: Models = {BASE: base, AGAIN: base}
    for experts in plan.experts:
        models[f"memory-{experts}"] = fill(grafted(base, spec_of(plan, experts)), sealed(experts))
    for experts in plan.experts:
        grafted_model = models[f"memory-{experts}"]
        assert isinstance(grafted_model, Grafted)
        models[f"packed-{experts}"] = packed(base, grafted_model)
        models[f"aligned-{experts}"] = packed(base, grafted_model, ALIGNED)
        layers = grafted_model.grafted_layers
    for name, rank, where in (
        (f"lora-{plan.rank}", plan.rank, layers),
        (f"lora-{plan.rank}-everywhere", plan.rank, None),
        *((f"lora-{plan.rank * experts}", plan.rank * experts, layers) for experts in (plan.experts[0], plan.experts[-1])),
    ):
        models[name], by = adapted(base, rank, where)
        models[name].requires_grad_(False)
    return models, by


def inputs(model: PreTrainedModel, read: Read) -> dict[str, Any]:
    """Fixed random tokens; nothing in a forward of them waits for the device, so that it can be captured."""
    ids = torch.randint(model.config.vocab_size, (read.rows, read.tokens), device=model.device)
    given: dict[str, Any] = {
        "input_ids": ids,
        "position_ids": (torch.arange(read.tokens, device=model.device) + read.past)[None],
        "attention_mask": UNMASKED,
        "use_cache": bool(read.past),
        "logits_to_keep": 1,
    }
    if read.past:
        given["past_key_values"] = Past(model, read.rows, read.past)
    if isinstance(model, Grafted):
        given["view"] = model.mask("awake")
    return given


def forward(model: PreTrainedModel, given: dict[str, Any]) -> Work:
    """One forward."""

    def work() -> Tensor:
        with torch.no_grad():
            return model(**given).logits

    return work


def _touched(model: PreTrainedModel) -> int:
    """Bytes of the weights that a token meets: all but the embeddings, of which it meets one row, and the output layer."""
    weights = {
        tensor.data_ptr(): tensor.numel() * tensor.element_size()
        for name, tensor in model.named_parameters(remove_duplicate=False)  # an output layer may be the embeddings again
        if "embed_tokens" not in name
    }
    return sum(weights.values())


def _floor(model: PreTrainedModel, read: Read, rates: dict[str, float]) -> float:
    """Milliseconds. A weight is two operations a token, the output layer's only of the tokens that are answered."""
    size, head = _touched(model), model.config.vocab_size * model.config.hidden_size
    weights = size // model.dtype.itemsize
    inner = weights - head
    operations = 2 * read.rows * (inner * read.tokens + head)
    return round(1000 * max(size / rates["copy_bytes_per_second"], operations / rates["bf16_operations_per_second"]), 4)
