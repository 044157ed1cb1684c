"""Experts as named tensors: the one format of version files and deliveries, with its checksum. raw.py has their names, and the same without
torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from circadian.memory import raw
from circadian.memory.layer import MemoryLayer
from circadian.memory.raw import RawTensor, parse_name, tensor_name
from circadian.memory.state import ExpertId

MemoryLayers = Mapping[int, MemoryLayer]
"""The memory of a model by decoder layer: a Hugging Face model's or a vLLM model's, they are the same modules."""


def expert_tensors(layers: MemoryLayers, experts: Iterable[ExpertId], dtype: torch.dtype | None = None) -> dict[str, Tensor]:
    """Copies of the experts' tensors on the CPU, by name. An expert that is being written is read as it stands."""
    tensors = {}
    for where in experts:
        for i, layer in layers.items():
            for part, tensor in _current(layer, where).items():
                tensors[tensor_name(i, where, part)] = tensor.detach().to("cpu", dtype, copy=True).contiguous()
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
    return raw.checksum(as_raw(tensors))


def as_raw(tensors: Mapping[str, Tensor]) -> dict[str, RawTensor]:
    """Their bytes; those of tensors on the CPU are not copied."""
    return {name: _raw(tensor.detach().to("cpu").contiguous()) for name, tensor in tensors.items()}


def _current(layer: MemoryLayer, where: ExpertId) -> dict[str, Tensor]:
    if layer.written == where and layer.writing is not None:
        return dict(layer.writing.named_parameters())
    return layer.bank(where.level).slices(where.expert)


def from_raw(tensors: Mapping[str, RawTensor]) -> dict[str, Tensor]:
    """The inverse of `as_raw`."""
    return {name: _tensor(raw_tensor) for name, raw_tensor in tensors.items()}


def _tensor(given: RawTensor) -> Tensor:
    dtype = getattr(torch, given.dtype)
    if not given.data:
        return torch.empty(given.shape, dtype=dtype)
    return torch.frombuffer(bytearray(given.data), dtype=dtype).reshape(given.shape)


def _raw(tensor: Tensor) -> RawTensor:
    data = tensor.view(-1).view(torch.uint8).numpy().data
    return RawTensor(str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape), data)
