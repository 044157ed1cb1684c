"""What those who ask an engine get, as plain data: they need no vLLM themselves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from circadian.memory.envelope import Receipt

Endpoint = Literal["chat", "completion"]
CLEAR_NATS = 0.25
"""By which the likeliest token is clearly ahead: several times what bfloat16 leaves open."""


class EngineLost(RuntimeError):
    """The engine is dead, or what it holds is not known any more. It will not come back: start another."""


class Read(NamedTuple):
    """A token of a text that an engine has read, and how it was to be expected there."""

    token: int
    logprob: float
    """Nats."""
    first: bool
    """No other token was likelier."""


class Reply(NamedTuple):
    """A whole answer: HTTP status, JSON body, and the version in force when the request was admitted.

    A delivery after that lets a newer version write the rest of it.
    """

    status: int
    body: dict[str, Any]
    version: str


@dataclass(frozen=True)
class StreamHead:
    """What is known before the first event of a stream, `version` being the one in force when the request was admitted.

    With a status other than 200 `error` is the whole answer.
    """

    status: int
    version: str
    error: dict[str, Any] | None = None


class Said(NamedTuple):
    """A token of the answer to the known question (`known_answer.py`)."""

    token: int
    ahead: float
    """Of the next likely token, nats."""


@dataclass(frozen=True)
class Proof(Receipt):
    """The receipt of a replica that answers."""

    answer: tuple[Said, ...] = ()
    """To the known question."""


def agree(answers: Sequence[Sequence[Said]]) -> bool:
    """Does none of these answers contradict the first? Where two part at a token that was hardly ahead in one of them, digits have decided,
    and what comes after says nothing."""
    return all(_together(answers[0], other) for other in answers[1:])


def _together(one: Sequence[Said], other: Sequence[Said]) -> bool:
    for here, there in zip(one, other, strict=False):
        if here.token != there.token:
            return min(here.ahead, there.ahead) < CLEAR_NATS
    return True
