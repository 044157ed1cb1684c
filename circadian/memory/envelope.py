"""What a delivery is from outside: its format, how it is made of raw tensors, how it is refused, and its receipt. delivery.py has its
invariants, and what a receiver does with it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from safetensors import SafetensorError

from circadian.memory.raw import RawTensor, checksum, read_raw, write_raw
from circadian.memory.state import MemoryState

FORMAT = "circadian-delivery-1"


class DeliveryRefused(Exception):
    """The delivery does not check out; the receiver is unchanged."""


@dataclass(frozen=True)
class Receipt:
    """What the receiver proves: the version it now is and the checksum of the experts it read back."""

    version: str
    checksum: str
    bytes: int
    milliseconds: float


def pack_raw(tensors: Mapping[str, RawTensor], state: MemoryState, version: str, *, whole: str | None = None) -> bytes:
    """A delivery of these tensors that makes `version`, with `state` as the state of every expert after it; for `whole` see delivery.pack.
    The same arguments make the same bytes."""
    meta = {"format": FORMAT, "version": version, "experts": json.dumps(state.names()), "checksum": checksum(tensors)}
    if whole is not None:
        meta["memory_sha256"] = whole
    return write_raw(tensors, meta)


def opened(payload: bytes) -> tuple[dict[str, str], dict[str, RawTensor]]:
    """Metadata and tensors of a delivery. Raises DeliveryRefused."""
    try:
        meta, tensors = read_raw(payload)
    except (SafetensorError, ValueError) as error:
        raise DeliveryRefused(f"not a safetensors delivery: {error}") from error
    if meta.get("format") != FORMAT or not {"version", "experts", "checksum"} <= meta.keys():
        raise DeliveryRefused(f"delivery format {meta.get('format')!r} with {sorted(meta)}, expected {FORMAT!r}")
    return meta, tensors
