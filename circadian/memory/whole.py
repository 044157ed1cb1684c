"""A version as one delivery, made from its folder alone: for going back, going forward, and promoting any version at any time.

Invariant: any receiver with the same memory (levels, experts, ranks, layers, dtype) becomes exactly that version, whatever it held before:
another lineage, a fast memory, nothing. Every expert that holds something in the version travels; all others the receiver erases
(invariant 4 of delivery.py); afterwards it proves the whole memory (invariant 5), and its receipt's checksum is the version's
`memory_sha256`. A receiver of another memory refuses and is unchanged, except that two memories of as many experts in as many levels do
not differ in a version that holds nothing: from those it takes everything out, whatever their ranks.

The same folder makes the same bytes. A night's own delivery at dawn (pipelines/publish.py) ends in the same memory, but only from the
version's parent.
"""

from __future__ import annotations

import json
from pathlib import Path

from safetensors import SafetensorError

from circadian.memory.envelope import pack_raw
from circadian.memory.folder import CONFIG_FILE, MEMORY_FILE, RECORD_FILE, VersionBroken
from circadian.memory.raw import RawTensor, checksum, parse_name, read_raw
from circadian.memory.signature import Signature
from circadian.memory.state import MemoryState, written_experts
from circadian.specs import VersionRecord


def whole_delivery(folder: Path, signature: Signature | None = None) -> bytes:
    """What makes any receiver of the same memory this version.

    signature: what `verify` found; then nothing goes into the delivery that was not signed, also where the folder has changed since.
    Raises VersionBroken where the folder's files do not fit together, or are not those that were signed.
    """
    record = VersionRecord.model_validate_json(_read(folder, RECORD_FILE, signature))
    config = json.loads(_read(folder, CONFIG_FILE, signature))
    tensors = _memory(folder, record, signature)
    state = MemoryState.parse(config["memory"]["experts"])
    if {parse_name(name)[1] for name in tensors} != set(written_experts(state)):
        raise VersionBroken(
            f"{folder / MEMORY_FILE} does not hold the experts that {CONFIG_FILE} calls written; restore both from a copy of the version"
        )
    serving = {name: tensor.to(config["dtype"]) for name, tensor in tensors.items()}
    return pack_raw(serving, state, record.id, whole=checksum(serving))


def _memory(folder: Path, record: VersionRecord, signature: Signature | None) -> dict[str, RawTensor]:
    try:
        _, tensors = read_raw(_read(folder, MEMORY_FILE, signature))
    except SafetensorError as error:
        raise VersionBroken(f"{folder / MEMORY_FILE} cannot be read ({error}); restore it from a copy of the version") from error
    if checksum(tensors) != record.memory_sha256:
        raise VersionBroken(
            f"{folder / MEMORY_FILE} does not match the checksum in {RECORD_FILE}; restore it from a copy of the version"
        )
    return tensors


def _read(folder: Path, name: str, signature: Signature | None) -> bytes:
    """A file's bytes, read once: those that are checked are those that are used."""
    content = (folder / name).read_bytes()
    if signature is not None and not signature.covers(name, content):
        raise VersionBroken(f"{folder / name} is not what was signed; restore the folder from a copy of the version")
    return content
