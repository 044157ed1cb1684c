"""The memory grafted onto Hugging Face decoders: Qwen3 and Llama.

A grafted class is the native class with a `MemoryLayer` added to the MLP of the chosen layers. Names of base weights do not change
(`model.layers.3.mlp.up_proj.weight` stays), memory sits at `model.layers.3.mlp.memory.*`. The mask is an *input* of every forward:

    model(input_ids=ids, view="rested")            a named view, the same for all rows
    model(input_ids=ids, view=mask)                a mask [M], or one for each row [B, M] or each token [B, T, M]

so teacher and student are one set of weights read in several ways. `lower` and `upper` are the two halves of the same forward, so
that several views can share the frozen layers below the first memory.

B rows, T tokens, D model width, V vocabulary, M experts over all levels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn
from transformers import LlamaForCausalLM, PretrainedConfig, PreTrainedModel, Qwen3ForCausalLM
from transformers.masking_utils import create_causal_mask
from transformers.models.llama.modeling_llama import LlamaMLP
from transformers.models.qwen3.modeling_qwen3 import Qwen3MLP

from circadian.memory.layer import Expert, MemoryLayer
from circadian.memory.state import ExpertId, Mask, MemoryState, ViewName
from circadian.specs import MemorySpec

View = ViewName | Mask | Tensor
SHALLOW = 8
"""Layers up to which a base carries memory in each layer of its upper half, unless told otherwise."""
STRIDE = 4
"""Of the upper half of a deeper base every fourth layer does: in each of 28 layers 16 experts are a fifth of Qwen3-0.6B's weights, which
every token would have to read (docs/serving-speed.md)."""


class NoGraft(ValueError):
    """The base model's architecture cannot carry the memory."""


class Heard:
    """The mask of the forward that is running, shared by the memory layers of one model."""

    def __init__(self) -> None:
        self._mask: Tensor | None = None

    @property
    def mask(self) -> Tensor:
        if self._mask is None:
            raise RuntimeError("a grafted MLP was called outside its model's forward; call the model with view=...")
        return self._mask

    @contextmanager
    def during(self, mask: Tensor) -> Iterator[None]:
        before, self._mask = self._mask, mask
        try:
            yield
        finally:
            self._mask = before


class _GraftedMLP(nn.Module):
    """MLP(x) + memory(x)."""

    memory: MemoryLayer
    heard: Heard

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + self.memory(x, self.heard.mask)


class GraftedQwen3MLP(_GraftedMLP, Qwen3MLP):
    """A Qwen3 MLP with memory beside it."""


class GraftedLlamaMLP(_GraftedMLP, LlamaMLP):
    """A Llama MLP with memory beside it."""


@dataclass(frozen=True)
class Trunk:
    """What `lower` computed: hidden [B, T, D], and what the upper layers need besides."""

    hidden: Tensor
    kwargs: dict[str, Any]


class Grafted(PreTrainedModel):
    """What the grafted classes add to the native ones. `config.memory` holds `{"spec", "experts"}`."""

    grafted_mlp: type[_GraftedMLP]
    _keys_to_ignore_on_load_missing = [r"\.mlp\.memory\."]

    def __init__(self, config: PretrainedConfig) -> None:
        super().__init__(config)
        self.memory_spec = MemorySpec.model_validate(config.memory["spec"])
        self.memory_state = MemoryState.parse(config.memory["experts"])
        self.grafted_layers = grafted_layers(self.memory_spec, config.num_hidden_layers)
        heard = Heard()
        for i in self.grafted_layers:
            mlp = self.model.layers[i].mlp
            mlp.__class__ = self.grafted_mlp  # keeps the names of the base's weights, which a wrapper would change
            mlp.memory, mlp.heard = MemoryLayer(config.hidden_size, self.memory_spec), heard
        self._heard = heard

    @classmethod
    def from_base(cls, base: Path, config: PretrainedConfig, dtype: torch.dtype) -> Self:
        """The base's weights with an empty memory, whatever states `config.memory` names."""
        model = cls.from_pretrained(base, config=config, dtype=dtype, trust_remote_code=False)
        for layer in model.memory_layers.values():
            for parameter in layer.levels.parameters():
                nn.init.zeros_(parameter)
        return model

    @property
    def memory_layers(self) -> dict[int, MemoryLayer]:
        """The memory by decoder layer."""
        return {i: self.model.layers[i].mlp.memory for i in self.grafted_layers}

    def mask(self, view: View) -> Tensor:
        """A view as a mask [M], [B, M] or [B, T, M] on the model's device."""
        if isinstance(view, str):
            view = self.memory_state.view(view)
        return torch.as_tensor(view, dtype=torch.float32, device=self.device)

    def forward(self, *args: Any, view: View = "awake", **kwargs: Any) -> Any:
        with self._heard.during(self.mask(view)):
            return super().forward(*args, **kwargs)

    def hidden(self, ids: Tensor, view: View, positions: Tensor | None = None) -> Tensor:
        """ids [B, T] -> final hidden states [B, T, D], input of `lm_head`; all layers in one pass, with gradients to whatever has any.
        ids and positions as of `lower`."""
        with self._heard.during(self.mask(view)):
            return self.model(input_ids=ids, position_ids=positions, use_cache=False).last_hidden_state

    @torch.no_grad()
    def lower(self, ids: Tensor, positions: Tensor | None = None) -> Trunk:
        """The frozen layers below the first memory, computed once for all views.

        ids [B, T]: rows padded on the right, or, with positions [B, T] that begin at 0 with every text, several texts a row, none of
        which sees another.
        """
        if positions is None:
            positions = torch.arange(ids.shape[1], device=ids.device)[None]
        trunk = self.trunk(self.model.embed_tokens(ids), positions)
        hidden = trunk.hidden
        for layer in self.model.layers[: self.grafted_layers[0]]:
            hidden = layer(hidden, **trunk.kwargs)
        return Trunk(hidden, trunk.kwargs)

    @torch.no_grad()
    def trunk(self, hidden: Tensor, positions: Tensor) -> Trunk:
        """What `lower` returns, from hidden states [B, T, D] that it computed before."""
        causal = create_causal_mask(
            config=self.config, inputs_embeds=hidden, attention_mask=None, past_key_values=None, position_ids=positions
        )
        kwargs = {
            "attention_mask": causal,
            "position_embeddings": self.model.rotary_emb(hidden, positions),
            "position_ids": positions,
        }
        return Trunk(hidden, kwargs)

    def upper(self, trunk: Trunk, view: View) -> Tensor:
        """The layers from the first memory up, in one view -> final hidden states [B, T, D], input of `lm_head`."""
        hidden = trunk.hidden
        with self._heard.during(self.mask(view)):
            for layer in self.model.layers[self.grafted_layers[0] :]:
                hidden = layer(hidden, **trunk.kwargs)
        return self.model.norm(hidden)

    def open_expert(self, level: int, seed: int) -> ExpertId:
        """Open the level's next free expert (or return the one that is open), freshly initialised, adding nothing yet."""
        before = self.memory_state
        self.memory_state, where = before.opened(level)
        if self.memory_state != before:
            generator = torch.Generator().manual_seed(seed)
            for layer in self.memory_layers.values():
                layer.initialise(where, generator)
        return where

    def seal(self, where: ExpertId) -> None:
        """Freeze an open expert for good."""
        self.memory_state = self.memory_state.sealed(where)

    def prune(self, level: int) -> None:
        """Reset every expert of a level: masked, zero, free again."""
        for layer in self.memory_layers.values():
            for expert in range(layer.sizes[level]):
                layer.erase(ExpertId(level, expert))
        self.memory_state = self.memory_state.pruned(level)

    def begin_writing(
        self, where: ExpertId, fresh: int | None = None, views: Sequence[Mask] | None = None, before: Sequence[Mask] = ()
    ) -> list[Expert]:
        """Freeze everything but one expert and its router row; returns its parameters, layer by layer.

        fresh: seed of an expert that begins anew, apart from what its bank holds; else it begins as it is there.
        views: all that will be read until end_writing(), unless it is awake, rested and student; before: those that will be read
        `as_it_was` besides. Experts that none of them hears are not computed.
        """
        self.requires_grad_(False)
        generator = None if fresh is None else torch.Generator().manual_seed(fresh)
        for layer in self.memory_layers.values():
            start = None if generator is None else layer.fresh(where, generator)
            layer.begin_writing(where, start).requires_grad_(True)
        views = [self.memory_state.view("awake"), self.memory_state.view("student")] if views is None else views
        views = [self.memory_state.without(view, where) for view in views]
        for layer in self.memory_layers.values():
            layer.narrow(*(tuple(any(heard) for heard in zip(*read, strict=True)) for read in (views, [*views, *before])))
        return [layer.writing for layer in self.memory_layers.values() if layer.writing is not None]

    @contextmanager
    def as_it_was(self) -> Iterator[None]:
        """Read the written expert as its bank holds it: what stood in its place before the writing."""
        for layer in self.memory_layers.values():
            layer.as_it_was = True
        try:
            yield
        finally:
            for layer in self.memory_layers.values():
                layer.as_it_was = False

    def end_writing(self) -> None:
        """Put what was learned back into the banks."""
        for layer in self.memory_layers.values():
            layer.end_writing()


class Qwen3MemoryForCausalLM(Grafted, Qwen3ForCausalLM):
    """Qwen3 with memory."""

    grafted_mlp = GraftedQwen3MLP


class LlamaMemoryForCausalLM(Grafted, LlamaForCausalLM):
    """Llama with memory."""

    grafted_mlp = GraftedLlamaMLP


GRAFTS: dict[str, type[Grafted]] = {"qwen3": Qwen3MemoryForCausalLM, "llama": LlamaMemoryForCausalLM}
"""By the base's `model_type`."""


def graft_class(config: PretrainedConfig) -> type[Grafted]:
    """The grafted class for a base's config. Raises NoGraft for an architecture that has none."""
    if config.model_type not in GRAFTS:
        raise NoGraft(f"base model type {config.model_type!r} has no graft; choose a base of type {' or '.join(sorted(GRAFTS))}")
    return GRAFTS[config.model_type]


def grafted_layers(spec: MemorySpec, layers: int) -> tuple[int, ...]:
    """The decoder layers that carry memory in a model of `layers` layers."""
    if spec.layers is None:
        return tuple(reversed(range(layers - 1, layers // 2 - 1, -1 if layers <= SHALLOW else -STRIDE)))
    if spec.layers[-1] >= layers:
        raise NoGraft(f"memory.layers: layer {spec.layers[-1]} does not exist; the base has layers 0 to {layers - 1}")
    return spec.layers


def memory_config(base: PretrainedConfig, spec: MemorySpec) -> PretrainedConfig:
    """The base's config with a fresh memory in it; `model_type` stays the base's, `architectures` names ours.

    It names the layers also where the spec leaves them open, so that a version does not change its meaning with the default.
    """
    spec = spec.model_copy(update={"layers": grafted_layers(spec, base.num_hidden_layers)})
    config = type(base).from_dict(base.to_dict())
    config.architectures = [graft_class(base).__name__]
    config.memory = {"spec": spec.model_dump(mode="json"), "experts": MemoryState.fresh(spec).names()}
    return config
