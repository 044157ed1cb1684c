"""Named tensors as safetensors holds them: bytes with a type and a shape. Whoever only hands them on needs no torch.

Names of experts' tensors are `layers.<i>.levels.<l>.experts.<e>.<part>`, parts A [R, D], B [D, R], W [1, D], b [1].
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors
from safetensors import SafetensorError, safe_open

from circadian.memory.state import ExpertId

TYPES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U8": "uint8",
    "BOOL": "bool",
}
"""What safetensors calls a type, and what torch and config.json call it."""
CODES = {name: code for code, name in TYPES.items()}
FLOATS = {"float64": "<f8", "float32": "<f4", "float16": "<f2"}
"""Those that numpy knows."""
ALIGNMENT = 8
"""Bytes: where safetensors wants tensors to begin."""
SIZES = {code: 8 if "64" in code else 4 if "32" in code else 2 if "16" in code else 1 for code in TYPES}


@dataclass(frozen=True)
class RawTensor:
    """Little-endian, contiguous."""

    dtype: str
    """As config.json spells it, such as `bfloat16`."""
    shape: tuple[int, ...]
    data: bytes | bytearray | memoryview

    def to(self, dtype: str) -> RawTensor:
        """As another floating-point type, rounded to the nearest, ties to even, as torch does. Raises ValueError for what is none."""
        if dtype == self.dtype:
            return self
        if dtype != "bfloat16" and dtype not in FLOATS:
            raise ValueError(f"{dtype} is no floating-point type that a memory can have")
        with np.errstate(over="ignore"):  # what is too large is infinite there, in torch too
            numbers = self.floats().astype(FLOATS.get(dtype, "<f4"))
        return RawTensor(dtype, self.shape, (numbers if dtype in FLOATS else _shortened(numbers)).tobytes())

    def floats(self) -> np.ndarray:
        """Its numbers, as a row; bfloat16 as float32. Raises ValueError for what is no floating-point type."""
        if self.dtype == "bfloat16":
            return (np.frombuffer(self.data, "<u2").astype("<u4") << 16).view("<f4")
        if self.dtype not in FLOATS:
            raise ValueError(f"{self.dtype} is no floating-point type that a memory can have")
        return np.frombuffer(self.data, FLOATS[self.dtype])


def read_raw(content: bytes) -> tuple[dict[str, str], dict[str, RawTensor]]:
    """Metadata and tensors of a safetensors file. Raises SafetensorError for what is none, also for types that no memory has."""
    tensors = {}
    for name, found in safetensors.deserialize(content):
        if found["dtype"] not in TYPES:
            raise SafetensorError(f"{name} is of type {found['dtype']}, which no memory has")
        tensors[name] = RawTensor(TYPES[found["dtype"]], tuple(found["shape"]), found["data"])
    size = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + size]).get("__metadata__", {}), tensors


def write_raw(tensors: Mapping[str, RawTensor], meta: Mapping[str, str]) -> bytes:
    """A safetensors file. The same arguments make the same bytes, which safetensors itself does not promise: it writes metadata in another
    order each time."""
    header: dict[str, object] = {"__metadata__": dict(meta)}
    ordered = sorted(tensors, key=lambda name: (-SIZES[CODES[tensors[name].dtype]], name))
    end, pieces = 0, []
    for name in ordered:
        tensor = tensors[name]
        begin, end = end, end + math.prod(tensor.shape) * SIZES[CODES[tensor.dtype]]
        header[name] = {"dtype": CODES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [begin, end]}
        pieces.append(tensor.data)
    told = json.dumps(header, sort_keys=True, separators=(",", ":")).encode()
    told += b" " * (-len(told) % ALIGNMENT)
    return b"".join((len(told).to_bytes(8, "little"), told, *pieces))


def read_meta(path: Path) -> dict[str, str]:
    """Metadata of a safetensors file; its tensors are not read. Raises OSError and SafetensorError."""
    with safe_open(path, framework="np") as file:
        return file.metadata() or {}


def checksum(tensors: Mapping[str, RawTensor]) -> str:
    """SHA-256 over names, types, shapes and bytes, in the order of names."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} torch.{tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.data)
    return digest.hexdigest()


def tensor_name(layer: int, where: ExpertId, part: str) -> str:
    """Of one part of an expert in a decoder layer."""
    return f"layers.{layer}.levels.{where.level}.experts.{where.expert}.{part}"


def parse_name(name: str) -> tuple[int, ExpertId, str]:
    """The inverse of the naming scheme: decoder layer, expert, part."""
    words = name.split(".")
    if len(words) != 7 or words[0::2][:3] != ["layers", "levels", "experts"]:
        raise KeyError(f"{name!r} is not the name of an expert's tensor")
    return int(words[1]), ExpertId(int(words[3]), int(words[5])), words[6]


def _shortened(numbers: np.ndarray) -> np.ndarray:
    """float32 as the upper halves of its bits, rounded; what is no number stays none."""
    bits = numbers.view("<u4")
    rounded = ((bits + (0x7FFF + ((bits >> 16) & 1))) >> 16).astype("<u2")
    return np.where(np.isnan(numbers), np.uint16(0x7FC0), rounded).astype("<u2")
