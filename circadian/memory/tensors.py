"""Experts as named tensors: the one format of version files and deliveries, with its checksum.

Names are `layers.<i>.levels.<l>.experts.<e>.<part>`, parts A [R, D], B [D, R], W [1, D], b [1]; safetensors on disk and on the wire.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from circadian.memory.layer import MemoryLayer
from circadian.memory.state import ExpertId, ExpertState, MemoryState

MemoryLayers = Mapping[int, MemoryLayer]
"""The memory of a model by decoder layer: a Hugging Face model's or a vLLM model's, they are the same modules."""


def written_experts(state: MemoryState) -> list[ExpertId]:
    """The experts that hold something: open or sealed."""
    return [where for where in state.ids() if state[where] in (ExpertState.OPEN, ExpertState.SEALED)]


def expert_tensors(layers: MemoryLayers, experts: Iterable[ExpertId], dtype: torch.dtype | None = None) -> dict[str, Tensor]:
    """Copies of the experts' tensors on the CPU, by name. An expert that is being written is read as it stands."""
    tensors = {}
    for where in experts:
        for i, layer in layers.items():
            for part, tensor in _current(layer, where).items():
                tensors[_name(i, where, part)] = tensor.detach().to("cpu", dtype, copy=True).contiguous()
    return tensors


@torch.no_grad()
def write_tensors(layers: MemoryLayers, tensors: Mapping[str, Tensor]) -> None:
    """Write named tensors into the experts' slices, in place.

    Raises KeyError for a name that the memory does not have, ValueError for a wrong shape.
    """
    for name, tensor in tensors.items():
        i, where, part = parse_name(name)
        if i not in layers:
            raise KeyError(f"{name}: decoder layer {i} carries no memory here")
        target = _current(layers[i], where)[part]
        if target.shape != tensor.shape:
            raise ValueError(f"{name}: shape {tuple(tensor.shape)}, expected {tuple(target.shape)}")
        target.copy_(tensor)


def checksum(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, dtypes, shapes and bytes, in the order of names."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().to("cpu").contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def parse_name(name: str) -> tuple[int, ExpertId, str]:
    """The inverse of the naming scheme: decoder layer, expert, part."""
    words = name.split(".")
    if len(words) != 7 or words[0::2][:3] != ["layers", "levels", "experts"]:
        raise KeyError(f"{name!r} is not the name of an expert's tensor")
    return int(words[1]), ExpertId(int(words[3]), int(words[5])), words[6]


def _name(layer: int, where: ExpertId, part: str) -> str:
    return f"layers.{layer}.levels.{where.level}.experts.{where.expert}.{part}"


def _current(layer: MemoryLayer, where: ExpertId) -> dict[str, Tensor]:
    if layer.written == where and layer.writing is not None:
        return dict(layer.writing.named_parameters())
    return layer.bank(where.level).slices(where.expert)
