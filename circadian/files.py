"""Files that survive a crash: each appears whole and on disk, or not at all."""

from __future__ import annotations

import hashlib
import os
import uuid
from collections.abc import Callable
from pathlib import Path


def write_whole(path: Path, content: bytes | str, mode: int = 0o666, check: Callable[[], None] | None = None) -> None:
    """Write a file beside its place, put it on disk, then rename it to its place.

    mode: as of `os.open`. check: asked when only the renaming is left; where it raises, the place stays as it was.
    """
    staging = path.with_name(f"{_staged(path)}{uuid.uuid4().hex}")  # machines that share the disk may have equal process ids
    try:
        with open(os.open(staging, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
        to_disk(staging)
        if check is not None:
            check()
        staging.replace(path)
    finally:
        staging.unlink(missing_ok=True)
    to_disk(path.parent)


def take_back(path: Path) -> None:
    """Delete what is written beside a file and not renamed yet: whoever writes it finds nothing to rename, however late."""
    for beside in path.parent.iterdir():
        if beside.name.startswith(_staged(path)):
            beside.unlink(missing_ok=True)


def _staged(path: Path) -> str:
    return f".{path.name}.tmp-"


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
