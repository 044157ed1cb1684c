"""What those who ask an engine get, as plain data: they need no vLLM themselves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

Endpoint = Literal["chat", "completion"]


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
