"""Files that survive a crash: each appears whole and on disk, or not at all."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path


def write_whole(path: Path, content: bytes | str) -> None:
    """Write a file beside its place, put it on disk, then rename it to its place."""
    staging = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    staging.write_bytes(content.encode() if isinstance(content, str) else content)
    to_disk(staging)
    staging.replace(path)
    to_disk(path.parent)


def to_disk(path: Path) -> None:
    """What is in the file, or which names are in the folder, outlives a power cut from here on."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
