"""Batches of experiences as files: on disk before anybody is told so, read line by line, gone when the last one is taken in.

Until then the folder holds texts as they were sent, not redacted yet: like the home, it is its owner's alone.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from circadian.files import to_disk

SUFFIX, PART = ".ndjson", ".part"


class TooMuch(Exception):
    """The batch is longer than it may be; the text says by which measure."""


def batch_file(folder: Path, batch: str) -> Path:
    return folder / f"{batch}{SUFFIX}"


class Spool:
    """A batch that arrives. Use as a context manager: what is not `done` leaves nothing."""

    def __init__(self, folder: Path, batch: str, most_bytes: int, most_lines: int) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.path, self._part = batch_file(folder, batch), folder / f"{batch}{PART}"
        self._most_bytes, self._most_lines = most_bytes, most_lines
        self.bytes, self._ends, self._last = 0, 0, b"\n"
        self._digest = hashlib.sha256()
        self._file = os.fdopen(os.open(self._part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")

    def add(self, chunk: bytes) -> None:
        """Raises TooMuch, as soon as that shows."""
        if not chunk:
            return
        self.bytes, self._ends, self._last = self.bytes + len(chunk), self._ends + chunk.count(b"\n"), chunk[-1:]
        if self.bytes > self._most_bytes:
            raise TooMuch(f"it is longer than {self._most_bytes} bytes")
        if self.lines > self._most_lines:
            raise TooMuch(f"it has more than {self._most_lines} lines")
        self._digest.update(chunk)
        self._file.write(chunk)

    def done(self) -> Path:
        """All of it has arrived: it outlives a power cut from here on."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._part.rename(self.path)
        to_disk(self.path.parent)
        return self.path

    @property
    def lines(self) -> int:
        return self._ends + (self._last != b"\n")

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._file.close()
        self._part.unlink(missing_ok=True)


@dataclass(frozen=True)
class Line:
    """A line as it was sent."""

    number: int
    """From 1 on."""
    text: bytes | None
    """Without its end; None where it is longer than a line may be."""
    end: int
    """Offset in the file, bytes, of what comes after it."""


def lines(path: Path, number: int, offset: int, count: int, most: int) -> list[Line]:
    """The next lines behind a cursor (`number` lines, `offset` bytes), at most `count`; none longer than `most` bytes is held."""
    found: list[Line] = []
    with path.open("rb") as file:
        file.seek(offset)
        while len(found) < count and (text := file.readline(most + 1)):
            whole = text.endswith(b"\n") or len(text) <= most
            while not text.endswith(b"\n") and (more := file.readline(most + 1)):
                text = more
            found.append(Line(number + len(found) + 1, text.strip() if whole else None, file.tell()))
    return found
