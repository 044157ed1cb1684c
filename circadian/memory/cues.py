"""The cue store: what a version remembers of its nights' questions. Cues only, never what followed them.

`cues.json` in the version folder. It is a reservoir: each night's cues join, and above the limit a seeded random choice stays, so that
every cue ever met has the same chance to be there.
"""

from __future__ import annotations

import json
import random
from dataclasses import asdict, dataclass
from pathlib import Path

from circadian.memory.version import CUES_FILE


@dataclass(frozen=True)
class Cue:
    """ids [T]: the beginning of something met on the day before `sleep`; question: it asks, and what follows is an answer."""

    ids: tuple[int, ...]
    sleep: str
    question: bool


def read_cues(version: Path) -> list[Cue]:
    """The cues a version carries; none for a version that has never slept."""
    path = version / CUES_FILE
    if not path.exists():
        return []
    return [Cue(tuple(cue["ids"]), cue["sleep"], cue["question"]) for cue in json.loads(path.read_text())["cues"]]


def join_cues(old: list[Cue], met_before: int, new: list[Cue], limit: int, seed: int) -> tuple[list[Cue], int]:
    """The reservoir after a night (Vitter's algorithm R), and how many cues were met in all."""
    rng, kept, met = random.Random(f"cues-{seed}-{met_before}"), list(old), met_before
    for cue in new:
        met += 1
        if len(kept) < limit:
            kept.append(cue)
        elif (place := rng.randrange(met)) < limit:
            kept[place] = cue
    return kept, met


def cues_met(version: Path) -> int:
    """How many cues had been met when the version was made."""
    path = version / CUES_FILE
    return int(json.loads(path.read_text())["met"]) if path.exists() else 0


def cues_json(cues: list[Cue], met: int) -> str:
    """The text of cues.json."""
    return json.dumps({"met": met, "cues": [asdict(cue) for cue in cues]})
