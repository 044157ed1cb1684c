"""When a delivery is tried again, when it is given up, and when its endpoint is disabled: pure functions from what is known.

    attempt --delivered--> DELIVERED: the endpoint works
       |  ^
       |  +-- next_attempt: a time
       |
       +--next_attempt: GiveUp--> DEAD: several in a row disable the endpoint
       +--gone (410)------------> GONE: disabled at once

The waits grow by a factor each time, and are lengthened by a part that depends on the delivery and the attempt alone: deliveries that
failed together do not come back together, and a controller that dies plans the same time again. With the defaults a delivery is tried
about 13 times: after 10 s, 30 s, 90 s, ... about 6 h, and then every half day for three days.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from circadian.specs import Seconds

LARGEST_EXPONENT = 64
"""Beyond which every wait has long been the longest; floats end much later."""


class Retries(BaseModel):
    """How long and how often."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    first_seconds: Seconds = 10.0
    """From the first attempt to the second."""
    factor: Annotated[float, Field(ge=1.0, le=10.0)] = 3.0
    """Each wait beside the one before."""
    longest_seconds: Seconds = 12 * 3600.0
    """Between two attempts, unless the receiver asks for more."""
    spread: Annotated[float, Field(ge=0.0, le=1.0)] = 0.2
    """Most by which a wait is lengthened at random, as a part of it."""
    longest_asked_seconds: Seconds = 24 * 3600.0
    """Most that a receiver's Retry-After is honoured for."""
    give_up_seconds: Seconds = 3 * 24 * 3600.0
    """After the first attempt nothing is tried any more."""
    dead_in_a_row: Annotated[int, Field(ge=1)] = 5
    """Deliveries that were given up without one between that arrived, which disable an endpoint."""


@dataclass(frozen=True)
class GiveUp:
    """The delivery is dead."""

    reason: str


def next_attempt(
    delivery: str, attempts: int, first_at: float, now: float, retry_after: float | None = None, rules: Retries | None = None
) -> float | GiveUp:
    """When a delivery that failed now, at its `attempts`-th attempt (the first was at `first_at`), is tried again. Unix seconds.

    What a receiver asks for with `retry_after` (seconds) can postpone the attempt, and never hasten it.
    """
    rules = rules or Retries()
    wait = min(rules.first_seconds * rules.factor ** min(max(attempts - 1, 0), LARGEST_EXPONENT), rules.longest_seconds)
    wait = max(wait, min(retry_after or 0.0, rules.longest_asked_seconds))
    at = now + wait * (1.0 + rules.spread * _share(delivery, attempts))
    if at > first_at + rules.give_up_seconds:
        return GiveUp(
            f"{attempts} attempts failed, and the next would come later than {rules.give_up_seconds:.0f} s after the first"
        )
    return at


def _share(delivery: str, attempts: int) -> float:
    """A number from 0 to 1 that looks random, and is the same each time."""
    digest = hashlib.sha256(f"{delivery}:{attempts}".encode()).digest()
    return int.from_bytes(digest[:8]) / 2**64


class End(StrEnum):
    """How a delivery ended."""

    DELIVERED = "delivered"
    DEAD = "dead"
    GONE = "gone"
    """The receiver says that the endpoint is no more."""


@dataclass(frozen=True)
class Standing:
    """What an endpoint's deliveries say about it. One that is enabled again begins anew."""

    dead_in_a_row: int = 0
    disabled: str | None = None
    """Why nothing is sent any more."""


def standing(before: Standing, end: End, rules: Retries | None = None) -> Standing:
    """After one more delivery has ended. A disabled endpoint stays so, whatever was still on its way."""
    rules = rules or Retries()
    if before.disabled is not None:
        return before
    if end is End.DELIVERED:
        return replace(before, dead_in_a_row=0)
    if end is End.GONE:
        return replace(before, disabled="it answered 410: gone; enable it again once it is back")
    dead = before.dead_in_a_row + 1
    if dead < rules.dead_in_a_row:
        return replace(before, dead_in_a_row=dead)
    return Standing(dead, f"{dead} deliveries in a row were given up; enable it again once it answers with 2xx")
