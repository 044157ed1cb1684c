"""The dreams of a night, read from the files that its stages left in its home (pipelines/dreaming.py), while it runs and after it.

    dreaming/<round>/curriculum.jsonl   where every context stood, and which were drawn
    dreaming/<round>/dreams.jsonl       what was dreamt
    dreaming/<round>/weighed.jsonl      what each dream's gradient scored, and whether it is tried out
    dreaming/<round>/tried.jsonl        how well an instance that learned it knows its context, and whether it is rewarded

A file is there whole or not at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pipelines.stages import read_lines
from services.tables import Json

FINAL = "final"
"""The last round; before it they are numbered."""


def rounds(home: Path) -> list[str]:
    """Those that have begun, in order."""
    folder = home / "dreaming"
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    numbers = sorted((name for name in names if name.isdecimal()), key=int)
    return numbers + [name for name in names if name == FINAL]


def dreams(home: Path) -> list[Json]:
    """Every dream, in the order in which they were dreamt. What is not known of it yet is None."""
    found = []
    for name in rounds(home):
        folder = home / "dreaming" / name
        weighed, tried = (_by_dream(folder / f"{file}.jsonl") for file in ("weighed", "tried"))
        for line in _lines(folder / "dreams.jsonl"):
            weight, result = weighed.get(line["id"], {}), tried.get(line["id"], {})
            found.append(
                {"id": line["id"], "round": name}
                | {key: line[key] for key in ("context", "source", "trust", "kind", "text")}
                | {"gradient_score": weight.get("score"), "fate": weight.get("fate")}
                | {key: result.get(key) for key in ("score", "undreamt", "rewarded")}
            )
    return found


def curriculum(home: Path) -> list[Json]:
    """Every round's contexts, those that were in most need of dreams last."""
    return [{"round": name} | line for name in rounds(home) for line in _lines(home / "dreaming" / name / "curriculum.jsonl")]


def compared(dreams: Sequence[Json]) -> list[Json]:
    """Those of which it is known how their instance stands beside the undreamt one; either may have broken."""
    return [dream for dream in dreams if dream["score"] is not None and dream["undreamt"] is not None]


def _by_dream(path: Path) -> dict[str, Json]:
    return {line["dream"]: line for line in _lines(path)}


def _lines(path: Path) -> list[Json]:
    return read_lines(path) if path.exists() else []
