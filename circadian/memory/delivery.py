"""One delivery of experts, from a learner to a model that is answering.

Invariants:
  1. Only experts travel, as safetensors bytes; the base never does, and nothing is pickled.
  2. A delivery names the version it makes, the state of every expert after it, and the checksum of its tensors.
  3. The receiver checks the checksum before it writes, writes in place, reads back what it wrote and checks again.
  4. Experts that the delivered state leaves reserved or pruned are erased by the receiver: they need not travel, and the receiver holds
     afterwards exactly what the version's folder holds.
  5. A delivery that names the checksum of the whole memory after it proves that too: a receiver on another parent, whose other experts
     are not those that the sender meant, refuses.
  6. A delivery that does not check out changes nothing and raises DeliveryRefused.
  7. Whoever answers from a prefix cache resets or salts it after a delivery (the receiver's engine, not this module).
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from circadian.memory.envelope import DeliveryRefused, Receipt, opened, pack_raw
from circadian.memory.raw import parse_name
from circadian.memory.state import ExpertId, MemoryState, written_experts
from circadian.memory.tensors import MemoryLayers, as_raw, checksum, expert_tensors, from_raw, write_tensors


def pack(
    layers: MemoryLayers,
    experts: Iterable[ExpertId],
    state: MemoryState,
    version: str,
    dtype: torch.dtype | None = None,
    *,
    whole: str | None = None,
) -> bytes:
    """A delivery of these experts that makes `version`, with `state` as the state of every expert after it.

    `whole` is the checksum of all written experts after the delivery, in the receiver's dtype: a version's `memory_sha256` where the
    receiver serves it in its own dtype. None where the sender does not know it, and then only what travels is proven.
    """
    return pack_tensors(expert_tensors(layers, experts, dtype), state, version, whole=whole)


def pack_tensors(tensors: dict[str, Tensor], state: MemoryState, version: str, *, whole: str | None = None) -> bytes:
    """The same from tensors that are at hand already. The same arguments make the same bytes."""
    return pack_raw(as_raw(tensors), state, version, whole=whole)


def receive(layers: MemoryLayers, payload: bytes) -> tuple[Receipt, MemoryState]:
    """Check, write in place, read back, check again.

    Returns the receipt and the state of every expert after the delivery, which the caller makes the receiver's. Raises DeliveryRefused.
    """
    started = time.perf_counter()
    meta, found = opened(payload)
    tensors = from_raw(found)
    try:
        state = MemoryState.parse(json.loads(meta["experts"]))
    except (ValueError, TypeError) as error:
        raise DeliveryRefused(f"delivery of {meta['version']}: its states of experts cannot be read: {error}") from error
    reason = _objection(layers, meta, tensors, state)
    if reason:
        raise DeliveryRefused(f"delivery of {meta['version']}: {reason}")
    travelled = {parse_name(name)[1] for name in tensors}
    erased = {where for where in state.ids() if where not in written_experts(state) and _holds_something(layers, where)}
    before = expert_tensors(layers, sorted(travelled | erased))
    try:
        write_tensors(layers, tensors)
        read_back = checksum(expert_tensors(layers, sorted(travelled)))
        if read_back != meta["checksum"]:
            raise DeliveryRefused(f"delivery of {meta['version']}: read back {read_back[:12]}, promised {meta['checksum'][:12]}")
        for where in erased:
            for layer in layers.values():
                layer.erase(where)
        _check_whole(layers, meta, state)
    except BaseException:  # whatever went wrong, the receiver stays what it was
        write_tensors(layers, before)
        raise
    milliseconds = (time.perf_counter() - started) * 1000
    return Receipt(meta["version"], read_back, len(payload), milliseconds), state


def _holds_something(layers: MemoryLayers, where: ExpertId) -> bool:
    return any(bool(tensor.any()) for layer in layers.values() for tensor in layer.bank(where.level).slices(where.expert).values())


def _check_whole(layers: MemoryLayers, meta: Mapping[str, str], state: MemoryState) -> None:
    """Refuse where the memory as it now lies is not the one that the sender meant. Reads only."""
    promised = meta.get("memory_sha256")
    if promised is None:
        return
    held = checksum(expert_tensors(layers, written_experts(state)))
    if held != promised:
        raise DeliveryRefused(
            f"delivery of {meta['version']}: the whole memory would be {held[:12]}, promised {promised[:12]}; "
            "deliver to a receiver that holds the version's parent, in the same dtype"
        )


def _objection(layers: MemoryLayers, meta: Mapping[str, str], tensors: Mapping[str, Tensor], state: MemoryState) -> str:
    """Why this delivery cannot be written here, or nothing. Reads only."""
    if checksum(tensors) != meta["checksum"]:
        return f"checksum {checksum(tensors)[:12]}, promised {meta['checksum'][:12]}"
    if any([len(row) for row in state.experts] != layer.sizes for layer in layers.values()):
        return f"its states are for levels of {[len(row) for row in state.experts]} experts, which this memory has not"
    try:
        experts = sorted({parse_name(name)[1] for name in tensors})
    except (KeyError, ValueError) as error:
        return str(error)
    if not set(experts) <= set(state.ids()):
        return f"experts {experts} do not all exist here"
    held = expert_tensors(layers, experts)
    if held.keys() != tensors.keys():
        return f"its tensors are not those of experts {experts} in this model"
    for name, tensor in tensors.items():
        if tensor.dtype != held[name].dtype:
            return f"{name} is {tensor.dtype}, this model holds {held[name].dtype}; pack the delivery in that dtype"
        if tensor.shape != held[name].shape:
            return f"{name} has shape {tuple(tensor.shape)}, expected {tuple(held[name].shape)}"
    return ""
