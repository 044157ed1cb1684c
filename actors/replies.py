"""What a wake replica answers, as plain data: whoever only asks needs no vLLM."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

Endpoint = Literal["chat", "completion"]


class Reply(NamedTuple):
    """A whole answer: HTTP status, JSON body, and the version that began it (a delivery meanwhile lets a newer one finish it)."""

    status: int
    body: dict[str, Any]
    version: str


@dataclass(frozen=True)
class StreamHead:
    """What is known before the first event of a stream: with a status other than 200 `error` is the whole answer."""

    status: int
    version: str
    error: dict[str, Any] | None = None
