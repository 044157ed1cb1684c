"""Models with random weights on one device, which share the weights of one base: the base with memory, and the base with a LoRA.

    grafted    circadian's own graft: every level computed apart, as the learner and Hugging Face have it
    packed     the same sum in two products, as an engine computes it (circadian/memory/vllm_heard.py, which needs vLLM)
    adapted    a LoRA on the MLP's matrices, by peft where it is installed, else by `Lora` below, which is the same sum

R rank, N experts, D model width.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel, Qwen3ForCausalLM

from benchmarks.learner.models import AWAKE_SCALE, config_of
from benchmarks.learner.points import Shape
from circadian.memory.graft import Grafted, Qwen3MemoryForCausalLM, memory_config
from circadian.memory.layer import MemoryLayer
from circadian.memory.state import MemoryState
from circadian.specs import MemorySpec

MATRICES = ("gate_proj", "up_proj", "down_proj")
"""What a LoRA adapts."""


@contextmanager
def made_on(device: torch.device, dtype: torch.dtype) -> Iterator[None]:
    """Modules that are built meanwhile lie there and hold that."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with device:
            yield
    finally:
        torch.set_default_dtype(before)


def base_model(shape: Shape, device: torch.device, dtype: torch.dtype, seed: int = 0) -> Qwen3ForCausalLM:
    """Frozen."""
    torch.manual_seed(seed)
    config = config_of(shape)
    config.dtype = dtype
    with made_on(device, dtype):
        return Qwen3ForCausalLM(config).eval().requires_grad_(False)


def grafted(base: Qwen3ForCausalLM, spec: MemorySpec) -> Grafted:
    """The base's own weights, and an empty memory."""
    with made_on(base.device, base.dtype):
        model = Qwen3MemoryForCausalLM(memory_config(base.config, spec))
    return _shared(model, base)


def fill(model: Grafted, state: MemoryState, seed: int = 0) -> Grafted:
    """Random experts in all places that hold something in `state`, which becomes the model's."""
    generator = torch.Generator(model.device).manual_seed(seed)
    for layer in model.memory_layers.values():
        for where in state.ids():
            if state[where] in ("open", "sealed"):
                for part, tensor in layer.bank(where.level).slices(where.expert).items():
                    scale = AWAKE_SCALE if part == "B" else 1 / math.sqrt(model.config.hidden_size)
                    drawn = torch.randn(tensor.shape, generator=generator, device=tensor.device, dtype=torch.float32)
                    tensor.copy_(drawn * scale)
    model.memory_state = state
    return model


def packed(base: Qwen3ForCausalLM, model: Grafted, multiple: int = 1) -> Grafted:
    """The base with all that `model` hears awake, in two products a layer; multiple: as of `Packed`."""
    other = grafted(base, model.memory_spec)
    other.memory_state = model.memory_state
    for i, layer in model.memory_layers.items():
        other.model.layers[i].mlp.memory = Packed(layer, multiple)
    return other


def adapted(base: Qwen3ForCausalLM, rank: int, layers: Sequence[int] | None = None, seed: int = 0) -> tuple[PreTrainedModel, str]:
    """The base with a LoRA on the MLPs of `layers` (None: all), and whose LoRA that is. Only the LoRA has gradients."""
    with made_on(base.device, base.dtype):
        model = Qwen3ForCausalLM(base.config)
    _shared(model, base)
    torch.manual_seed(seed)
    by = _inject(model, rank, layers)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("lora_" in name)
        if "lora_B" in name:
            nn.init.normal_(parameter, std=AWAKE_SCALE)
    return model, by


@contextmanager
def without_adapter(model: PreTrainedModel) -> Iterator[None]:
    """The base alone."""
    layers: list[Any] = [module for module in model.modules() if hasattr(module, "lora_A")]
    for layer in layers:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)


class Lora(nn.Module):
    """A linear layer and what its LoRA adds: `W x + 2 B A x`."""

    def __init__(self, base_layer: nn.Linear, rank: int) -> None:
        super().__init__()
        self.base_layer, self.heard = base_layer, True
        self.lora_A = nn.Linear(base_layer.in_features, rank, bias=False)
        self.lora_B = nn.Linear(rank, base_layer.out_features, bias=False)

    def enable_adapters(self, enabled: bool) -> None:
        """Hear the LoRA, or the linear layer alone."""
        self.heard = enabled

    def forward(self, x: Tensor) -> Tensor:
        y = self.base_layer(x)
        return y + 2 * self.lora_B(self.lora_A(x)) if self.heard else y


class Packed(nn.Module):
    """All experts of a layer's memory as `up [N*R + N, D]`, the router's rows below the experts', and `down [D, N*R]`.

    multiple: of which `up` has rows, the last ones zero; 1 is what an engine has today.
    """

    def __init__(self, memory: MemoryLayer, multiple: int = 1) -> None:
        super().__init__()
        banks = [memory.bank(level) for level in range(len(memory.sizes))]
        self.experts, self.rank = sum(memory.sizes), banks[0].rank
        if any(bank.rank != self.rank for bank in banks):
            raise ValueError("levels of different ranks are not packed here; give all levels one rank")
        wide = self.experts * self.rank
        rows = multiple * math.ceil((wide + self.experts) / multiple)
        self.up = nn.Parameter(banks[0].A.new_zeros(rows, banks[0].A.shape[1]), requires_grad=False)
        self.up[: wide + self.experts].copy_(torch.cat([*(bank.A for bank in banks), *(bank.W for bank in banks)]))
        self.bias = nn.Parameter(self.up.new_zeros(rows), requires_grad=False)
        self.bias[wide : wide + self.experts].copy_(torch.cat([bank.b for bank in banks]))
        self.down = nn.Parameter(torch.cat([bank.B for bank in banks], 1), requires_grad=False)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """x [..., D] -> [..., D]; all experts are heard, whatever the mask says."""
        del mask
        wide = self.experts * self.rank
        z = F.linear(x, self.up, self.bias)
        said, router = z[..., :wide], z[..., wide : wide + self.experts]
        gated = F.silu(said).unflatten(-1, (self.experts, self.rank)) * torch.sigmoid(router).unsqueeze(-1)
        return F.linear(gated.flatten(-2), self.down)


def held_bytes(*models: nn.Module) -> int:
    """Of all weights, each counted once."""
    tensors = {tensor.data_ptr(): tensor for model in models for tensor in (*model.parameters(), *model.buffers())}
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())


def _shared(model: Any, base: Qwen3ForCausalLM) -> Any:
    """The model with the base's weights in the place of its own."""
    model.load_state_dict(base.state_dict(), strict=False, assign=True)
    return model.eval().requires_grad_(False)


def _inject(model: PreTrainedModel, rank: int, layers: Sequence[int] | None) -> str:
    try:
        by = f"peft {version('peft')}"
    except PackageNotFoundError:
        with made_on(model.device, model.dtype):
            for i, layer in enumerate(cast(Any, model).model.layers):
                if layers is None or i in layers:
                    for name in MATRICES:
                        setattr(layer.mlp, name, Lora(getattr(layer.mlp, name), rank))
        return "hand-written"
    from peft import LoraConfig, inject_adapter_in_model

    chosen: dict[str, Any] = {} if layers is None else {"layers_to_transform": list(layers), "layers_pattern": "layers"}
    config = LoraConfig(r=rank, lora_alpha=2 * rank, lora_dropout=0.0, target_modules=list(MATRICES), **chosen)
    with made_on(model.device, model.dtype):
        inject_adapter_in_model(config, model)
    return by
