"""What a version folder says of itself, read without torch: its record, its memory's shape, the state of every expert. version.py has what
else is in it, and how it is made and loaded."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from circadian.files import sha256
from circadian.memory.state import MemoryState
from circadian.specs import MemorySpec, VersionRecord

MEMORY_FILE = "memory.safetensors"
RECORD_FILE = "version.json"
CONFIG_FILE = "config.json"
CUES_FILE = "cues.json"
MODEL_FILES = ("*.safetensors", "*.json", "*.model", "*.txt", "*.jinja")
"""Of a model of the hub: what is fetched. No code, no pickles."""


class VersionBroken(Exception):
    """A version folder does not hold what its record says."""


def read_record(folder: Path) -> VersionRecord:
    """What version.json says."""
    path = folder / RECORD_FILE
    if not path.is_file():
        raise VersionBroken(f"{folder} is not a version folder: it has no {RECORD_FILE}")
    return VersionRecord.model_validate_json(path.read_text())


def check_files(folder: Path, names: Iterable[str]) -> None:
    """Raises VersionBroken unless these files, which lie beside the memory, are what the record says."""
    files = read_record(folder).files
    for name in names:
        if not (folder / name).is_file() or sha256(folder / name) != files.get(name):
            raise VersionBroken(
                f"{folder / name} does not match the checksum in {RECORD_FILE}; restore it from a copy of the version"
            )


def memory_spec(folder: Path) -> MemorySpec:
    """The levels of a version, without loading it."""
    return MemorySpec.model_validate(json.loads((folder / CONFIG_FILE).read_text())["memory"]["spec"])


def version_state(folder: Path) -> MemoryState:
    """The state of every expert of a version, without loading it."""
    return MemoryState.parse(json.loads((folder / CONFIG_FILE).read_text())["memory"]["experts"])
