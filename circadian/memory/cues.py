"""The cue store: the beginnings that a version remembers of its nights, for later nights to ask the rested self to go on from.

A cue is data of the deployment's users, kept as token ids in `cues.json` of the version folder, and lives as long as the version:

    of an exchange   everything up to the answer that was learned, so the question word for word, and earlier turns of the chat
    of other text    at most its first half

The answer that was learned, and the second half of other text, are never in it. Within its own night a text's cuts may be longer
(they help to learn it); `stored` shortens them.

The store is a sample of every cue that was ever met, bounded in bytes of `cues.json` (bottom-k sampling). Each cue has a priority that
is drawn once, by a hash of the night and the cue; the store keeps the smallest priorities up to the first that finds no room, and
remembers that priority as its `cut`. So of the cues that were ever met exactly those below the cut are there:

    every cue has the same chance, whatever its size and its night     the cut is the chance with which each was kept
    the order in which cues and nights come does not matter            the same cues make the same store, bit for bit

A cue that alone would take more than a sixteenth of the room never enters, or a single one could push all others out.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from circadian.memory.folder import CUES_FILE

SHORTEST_CUT = 2
"""Tokens; less of a text than that is not worth remembering."""
LARGEST = 16
"""One cue takes at most the store's bytes divided by this."""
HEADER_BYTES = 128
"""More than all of cues.json but its cues ever takes."""


@dataclass(frozen=True)
class Cue:
    """ids [T]: the beginning of something met on the day before `sleep`; question: it asks, and what follows is an answer."""

    ids: tuple[int, ...]
    sleep: str
    question: bool


@dataclass(frozen=True)
class Store:
    """What a version remembers of its nights: cues, how many were met in all, and the priority below which they were kept."""

    cues: tuple[Cue, ...] = ()
    met: int = 0
    cut: float = 1.0


def stored(ids: tuple[int, ...], whole: int, sleep: str, question: bool) -> Cue | None:
    """What the store may hold of a cue to a row of `whole` tokens; None where too little is left."""
    ids = ids if question else ids[: whole // 2]
    return Cue(ids, sleep, question) if question or len(ids) >= SHORTEST_CUT else None


def read_store(version: Path) -> Store:
    """A version's store; empty for a version that has never slept. One that was written before there was a cut had kept all."""
    path = version / CUES_FILE
    if not path.exists():
        return Store()
    read = json.loads(path.read_text())
    cues = tuple(Cue(tuple(cue["ids"]), cue["sleep"], cue["question"]) for cue in read["cues"])
    return Store(cues, read["met"], read.get("cut", 1.0))


def read_cues(version: Path) -> list[Cue]:
    """The cues a version carries, oldest first."""
    return list(read_store(version).cues)


def join_cues(store: Store, new: Sequence[Cue], limit: int) -> Store:
    """The store after a night that met `new`, in at most `limit` bytes. What was kept before stays in its order."""
    known = {(cue.ids, cue.sleep) for cue in store.cues}
    fresh = [cue for cue in dict.fromkeys(new) if (cue.ids, cue.sleep) not in known]
    drawn = [(cue, priority(cue), len(_line(cue)) + 1) for cue in (*store.cues, *fresh)]
    drawn = [one for one in drawn if one[1] < store.cut and one[2] <= limit // LARGEST]
    room, cut = limit - HEADER_BYTES, store.cut
    for _, own, size in sorted(drawn, key=lambda one: one[1]):
        room -= size
        if room < 0:
            cut = own
            break
    return Store(tuple(cue for cue, own, _ in drawn if own < cut), store.met + len(fresh), cut)


def priority(cue: Cue) -> float:
    """In [0, 1), as good as random. Nobody who writes a cue knows the name of the night that will meet it, so nobody can write one
    that is sure to stay."""
    digest = hashlib.sha256(f"{cue.sleep}/{','.join(map(str, cue.ids))}".encode()).digest()
    return (int.from_bytes(digest[:8]) >> 11) / (1 << 53)


def cues_json(store: Store) -> str:
    """The text of cues.json, one byte a character."""
    return f'{{"met":{store.met},"cut":{store.cut!r},"cues":[{",".join(map(_line, store.cues))}]}}'


def _line(cue: Cue) -> str:
    return json.dumps(asdict(cue), separators=(",", ":"))
