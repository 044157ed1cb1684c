"""What a night left that is safe to read: an allow-list of names below its home, and nothing else that lies there.

    outcome.json, events.jsonl             how it ended, what it told
    stages/<stage>.json                    manifests
    dreaming/<round>/<file>.jsonl          what was dreamt, and what became of it
    report.*, *.svg, *.png                 reports and pictures

Not among them: the job (it holds texts that are held out), experiences, cues and rows, tensors, deliveries, checkpoints. Links are not
followed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from stat import S_ISREG

from circadian.events import FILE
from circadian.files import sha256
from circadian.night_files import OUTCOME_FILE
from services.tables import Json

JSON, LINES, SVG = "application/json", "application/x-ndjson", "image/svg+xml"
ALLOWED = {
    OUTCOME_FILE: JSON,
    FILE: LINES,
    "stages/*.json": JSON,
    "dreaming/*/curriculum.jsonl": LINES,
    "dreaming/*/dreams.jsonl": LINES,
    "dreaming/*/weighed.jsonl": LINES,
    "dreaming/*/tried.jsonl": LINES,
    "report.json": JSON,
    "report.md": "text/markdown",
    "report.html": "text/html",
    "*.svg": SVG,
    "*.png": "image/png",
}
"""Patterns, each for as many parts of a path as it has, and media types."""
BLOCK = 1 << 16


@dataclass(frozen=True)
class Artifact:
    """A file of a night."""

    name: str
    path: Path
    media_type: str


def artifacts(home: Path) -> list[Artifact]:
    """All that may be read, by name."""
    found = [Artifact(_name(home, path), path, kind) for pattern, kind in ALLOWED.items() for path in home.glob(pattern)]
    return sorted((one for one in found if _plain(home, one.path)), key=lambda one: one.name)


def artifact(home: Path, name: str) -> Artifact | None:
    """The one with this name, if it may be read. Only names that the list has are ever looked up in the folder."""
    parts = name.split("/")
    kinds = [kind for pattern, kind in ALLOWED.items() if _matches(parts, pattern.split("/"))]
    path = home.joinpath(*parts) if kinds else home
    return Artifact(name, path, kinds[0]) if kinds and _plain(home, path) else None


def told(one: Artifact) -> Json:
    """As clients see it. One that is still being written is told as it is now."""
    return {
        "object": "sleep.artifact",
        "id": one.name,
        "name": one.name,
        "bytes": one.path.stat().st_size,
        "sha256": sha256(one.path),
    } | {"media_type": one.media_type}


def opened(one: Artifact) -> tuple[int, Iterator[bytes]]:
    """The bytes that it has now, and no more of one that still grows: their number, and they themselves. Raises OSError."""
    descriptor = os.open(one.path, os.O_RDONLY | os.O_NOFOLLOW)
    size = os.fstat(descriptor).st_size
    return size, _blocks(descriptor, size)


def checkpoints(home: Path) -> list[Json]:
    """The sealed stages, in the order in which they were sealed."""
    found = []
    for path in (home / "stages").glob("*.json"):
        if _plain(home, path):
            manifest = json.loads(path.read_text())
            found.append((path.stat().st_mtime, manifest, sha256(path)))
    return [
        {
            "object": "sleep.checkpoint",
            "id": manifest["stage"],
            "name": manifest["stage"],
            "sealed_at": sealed_at,
            "digest": digest,
            "seconds": manifest["seconds"],
            "files": len(manifest["files"]),
        }
        for sealed_at, manifest, digest in sorted(found, key=lambda one: (one[0], one[1]["stage"]))
    ]


def _blocks(descriptor: int, left: int) -> Iterator[bytes]:
    with os.fdopen(descriptor, "rb") as file:
        while left and (block := file.read(min(BLOCK, left))):
            left -= len(block)
            yield block


def _matches(parts: list[str], pattern: list[str]) -> bool:
    """Part by part, so that no part of a name is a way out of the folder; hidden files are being written."""
    same = len(parts) == len(pattern) and not any(part in ("", ".", "..") or part.startswith(".") or "\0" in part for part in parts)
    return same and all(fnmatchcase(part, wanted) for part, wanted in zip(parts, pattern, strict=True))


def _name(home: Path, path: Path) -> str:
    return path.relative_to(home).as_posix()


def _plain(home: Path, path: Path) -> bool:
    """A file that lies there itself: neither it nor a folder above it is a link."""
    with suppress(OSError, ValueError):
        return S_ISREG(path.lstat().st_mode) and path.resolve() == home.resolve() / path.relative_to(home) and path.name[0] != "."
    return False
