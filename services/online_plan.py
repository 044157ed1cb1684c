"""What to do next about a fast memory that learns online, and which experiences make a chunk: pure functions. `online.py` takes the step
and asks again.

              tokens reach the period       the learner is done      replicas do not serve it
    waiting ----------------------> LEARN ------------------> COMMIT -------------------------> DELIVER -> waiting
       ^                                                                                                     |
       +---- EMPTY (another version serves: a dawn, whose version has an empty fast level) <------------------+

A night owns the fast memory: while one is active nothing is learned and nothing is committed (STAND_STILL ends the learner, whose CPUs
the night needs), and until its own fast memory takes the place of this one, this one goes on being delivered to replicas that lack it.
Every step is safe to take twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum


@dataclass(frozen=True)
class Met:
    """An experience that the fast memory has not learned yet."""

    id: str
    tokens: int


def next_chunk(waiting: Sequence[Met], period: int) -> tuple[str, ...]:
    """The ids of the first experiences that hold `period` tokens or more together, none fewer than it takes; nothing before there are.

    An experience is learned whole: what one is longer than the period belongs to its chunk, and the next chunk counts from zero.
    """
    tokens = 0
    for place, experience in enumerate(waiting):
        tokens += experience.tokens
        if tokens >= period:
            return tuple(met.id for met in waiting[: place + 1])
    return ()


class OnlineStep(StrEnum):
    WAIT = "wait"
    EMPTY = "empty"
    """The fast memory belongs to a version that serves no more: begin with an empty one."""
    LEARN = "learn"
    COMMIT = "commit"
    DELIVER = "deliver"
    STAND_STILL = "stand_still"


@dataclass(frozen=True)
class OnlineSituation:
    """Everything the next step depends on."""

    active_version: str
    version: str
    """To which the fast memory belongs."""
    chunks: int
    """That are committed."""
    serves: frozenset[str] = frozenset()
    """The versions that replicas say they serve; a slow one says nothing."""
    due: bool = False
    """The tokens since the last chunk have reached the period."""
    learner: bool = False
    """A learner of ours is there."""
    learning: bool = False
    learned: bool = False
    """What it was learning is done, well or not."""
    stuck: bool = False
    """The chunk at hand cannot be learned."""
    night: bool = False
    dusk: bool = False
    """The night serves with its own fast memory, or is about to."""


def label(version: str, chunks: int) -> str:
    """What answers with a fast memory are from."""
    return f"{version}+w{chunks}" if chunks else version


def is_label(said: str, version: str, chunks: int) -> bool:
    """Is it the version, or the version with a fast memory that came before this many chunks or with them?"""
    return said in {label(version, number) for number in range(chunks + 1)}


def plan(now: OnlineSituation) -> OnlineStep:
    """The next step."""
    ours = now.version == now.active_version
    lacks = ours and bool(now.serves - {label(now.version, now.chunks)})
    if now.night:
        if now.learner:
            return OnlineStep.STAND_STILL
        return OnlineStep.DELIVER if lacks and not now.dusk else OnlineStep.WAIT
    if not ours:
        return OnlineStep.EMPTY
    if now.learned:
        return OnlineStep.COMMIT
    if lacks:
        return OnlineStep.DELIVER
    if now.learning or now.stuck or not now.due:
        return OnlineStep.WAIT
    return OnlineStep.LEARN
