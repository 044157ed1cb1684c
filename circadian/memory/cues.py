"""The cue store: the beginnings that a version remembers of its nights, for later nights to ask the rested self to go on from.

A cue is data of the deployment's users, kept as token ids in `cues.json` of the version folder, and lives as long as the version:

    of an exchange   everything up to the answer that was learned, so the question word for word, and earlier turns of the chat
    of other text    at most its first half

The answer that was learned, and the second half of other text, are never in it. Within its own night a text's cuts may be longer
(they help to learn it); `stored` shortens them.

The store is a reservoir: each night's cues join, and above the limit a seeded random choice stays, so that every cue ever met has the
same chance to be there.
"""

from __future__ import annotations

import json
import random
from dataclasses import asdict, dataclass
from pathlib import Path

from circadian.memory.version import CUES_FILE

SHORTEST_CUT = 2
"""Tokens; less of a text than that is not worth remembering."""


@dataclass(frozen=True)
class Cue:
    """ids [T]: the beginning of something met on the day before `sleep`; question: it asks, and what follows is an answer."""

    ids: tuple[int, ...]
    sleep: str
    question: bool


def stored(ids: tuple[int, ...], whole: int, sleep: str, question: bool) -> Cue | None:
    """What the store may hold of a cue to a row of `whole` tokens; None where too little is left."""
    ids = ids if question else ids[: whole // 2]
    return Cue(ids, sleep, question) if question or len(ids) >= SHORTEST_CUT else None


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
