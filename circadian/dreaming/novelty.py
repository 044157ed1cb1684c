"""The extra random expert: while a dream is written, every router hears one more expert, whose weights nobody has learned.

    "every router activates one extra, random expert: novelty, unrelated knowledge mixed in on purpose"   (method.md, section 5)

It stands in a free place of level 0, which is empty once the day was consolidated, and is heard in the dreamer's view only. Its A and B are
random; B is scaled, layer by layer, so that what the expert adds has `strength` times the root mean square of the residual stream there,
measured on what the dreamer reads. (Unscaled it does nothing, or drowns everything: the stream's size differs by an order of magnitude
between layers and models.) No part of it is ever learned or kept.

B rows, T tokens, D model width.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from circadian.memory.graft import Grafted, View
from circadian.memory.layer import Expert
from circadian.memory.state import ExpertId, Mask, MemoryState

NOVEL_LEVEL = 0


def with_novelty(state: MemoryState, view: Mask) -> tuple[MemoryState, ExpertId, Mask]:
    """The states with the novel expert's place open, the place, and the dreamer's view: this one and the novel expert."""
    opened, where = state.opened(NOVEL_LEVEL)
    return opened, where, tuple(heard or one == where for heard, one in zip(view, opened.ids(), strict=True))


@torch.no_grad()
def novel_expert(model: Grafted, ids: Tensor, view: View, where: ExpertId, strength: float, seed: int) -> dict[str, Tensor]:
    """The expert's tensors by name, for every layer that carries memory. ids [B, T]: what the dreamer reads, padded on the right with 0."""
    seen: dict[int, tuple[Tensor, Tensor]] = {}
    hooks = []
    for i in model.memory_layers:
        layer = model.model.layers[i]
        hooks.append(layer.mlp.register_forward_pre_hook(_reads(seen, i)))
        hooks.append(layer.register_forward_hook(_writes(seen, i)))
    try:
        model.hidden(ids.to(model.device), view)
    finally:
        for hook in hooks:
            hook.remove()
    generator = torch.Generator().manual_seed(seed)
    tensors: dict[str, Tensor] = {}
    real = (ids != 0).to(model.device)
    for i, layer in model.memory_layers.items():
        read, stream = (states[real].float() for states in seen[i])
        fresh = layer.fresh(where, generator)
        fresh["B"] = torch.randn(fresh["B"].shape, generator=generator).to(fresh["B"])
        added = Expert(fresh).float()(read.to(fresh["A"].device), torch.ones((), device=fresh["A"].device))
        fresh["B"] *= strength * _rms(stream) / max(_rms(added), 1e-12)
        tensors |= {f"layers.{i}.levels.{where.level}.experts.{where.expert}.{part}": tensor for part, tensor in fresh.items()}
    return tensors


def _rms(states: Tensor) -> float:
    return float(states.square().mean().sqrt())


def _reads(seen: dict[int, tuple[Tensor, Tensor]], i: int) -> Any:
    def hook(module: object, args: tuple[Tensor, ...]) -> None:
        seen[i] = (args[0], args[0])

    return hook


def _writes(seen: dict[int, tuple[Tensor, Tensor]], i: int) -> Any:
    def hook(module: object, args: object, output: Any) -> None:
        seen[i] = (seen[i][0], output[0] if isinstance(output, tuple) else output)

    return hook
