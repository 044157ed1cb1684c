"""The fast memory of a version as deliveries: into the serving replicas, and out of them again."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor

from circadian.memory.delivery import pack_tensors
from circadian.memory.folder import MEMORY_FILE, version_state
from circadian.memory.state import MemoryState
from circadian.memory.tensors import checksum
from circadian.memory.version import served_dtype


def fast_delivery(version: Path, tensors: Mapping[str, Tensor], state: MemoryState, label: str) -> bytes:
    """What makes a replica of the version, whichever fast memory it holds, answer with this one.

    tensors: the fast level's expert, by name; state: of every expert with it.
    """
    serving = {name: tensor.to(served_dtype(version)) for name, tensor in tensors.items()}
    return pack_tensors(serving, state, label, whole=checksum(load_file(version / MEMORY_FILE) | serving))


def rest_delivery(version: Path) -> bytes:
    """What makes it the version alone again."""
    whole = checksum(load_file(version / MEMORY_FILE))
    return pack_tensors({}, version_state(version), version.name, whole=whole)
