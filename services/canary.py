"""A version that answers a share of the clients: whom, and what becomes of it. Pure functions; rollouts.py and api/wake.py do it.

**How slow it is** is told beside the active version in the same time, as a ratio of geometric means, of typical answers: one of twenty that
takes a hundred times as long as the others moves it by a quarter, and not sixfold. Of an answer that is given whole it is the seconds until
it is there, of a stream those until its first piece; what failed, or was refused, has no pace. The two kinds are compared each with its
own: clients who stream are no measure for one who does not. What the kinds do not level out is whom chance has given it: a client who
names himself and asks for long answers counts on one side alone, which is why a canary may be three times as slow unless told otherwise.
"""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from circadian.specs import CanarySpec

WHOLE = 2**32
LEAST_SECONDS = 0.001
"""Answers that are faster count as this: below it is the machine that is measured, and not the version."""


class Verdict(StrEnum):
    WAIT = "wait"
    PROMOTE = "promote"
    WITHDRAW = "withdraw"


class Side(StrEnum):
    """Whose answer it was."""

    CANARY = "canary"
    ACTIVE = "active"


class Kind(StrEnum):
    """How it was given."""

    WHOLE = "whole"
    STREAM = "stream"


@dataclass(frozen=True)
class Pace:
    """How long answers took: sums, so that controllers can add theirs."""

    answers: int = 0
    log_seconds: float = 0.0

    @classmethod
    def of(cls, seconds: float) -> Pace:
        """Of one answer."""
        return cls(1, math.log(max(seconds, LEAST_SECONDS)))

    def __add__(self, other: Pace) -> Pace:
        return Pace(self.answers + other.answers, self.log_seconds + other.log_seconds)

    @property
    def seconds(self) -> float | None:
        """Of a typical answer."""
        return math.exp(self.log_seconds / self.answers) if self.answers else None


Paces = Mapping[tuple[Kind, Side], Pace]


def canary_key(deployment: str) -> str:
    """Under which the fleet finds the replica of a deployment's canary."""
    return f"{deployment}.canary"


def is_asked(rollout: str, percent: float, client: str | None) -> bool:
    """Is this client answered by the canary? One that names itself always is, or never; others by chance."""
    if client is None:
        return random.random() * 100.0 < percent
    place = int.from_bytes(hashlib.sha256(f"{rollout}/{client}".encode()).digest()[:4], "big")
    return place / WHOLE * 100.0 < percent


def judge(spec: CanarySpec, requests: int, errors: int, seconds: float, paces: Paces) -> tuple[Verdict, str]:
    """What becomes of it, and why. requests, errors: of the canary so far; seconds: since it began to answer."""
    enough = requests >= spec.min_requests
    failed = f"{errors} of its {requests} requests failed"
    if enough and errors > spec.max_error_rate * requests:
        return Verdict.WITHDRAW, failed
    slower = slowdown(spec.min_requests, paces)
    if spec.max_slowdown is not None and slower is not None and slower > spec.max_slowdown:
        why = f"its answers take {slower:.1f} times as long as those of the active version; max_slowdown is {spec.max_slowdown:g}"
        return Verdict.WITHDRAW, why
    if seconds < spec.seconds:
        return Verdict.WAIT, "its time is not over"
    return (Verdict.PROMOTE, "it has held") if enough or not errors else (Verdict.WITHDRAW, failed)


def slowdown(least: int, paces: Paces) -> float | None:
    """How many times as long as the active version's the canary's answers take, of the kind where that is most; None while neither kind
    has so many answers of both."""
    ratios = []
    for kind in Kind:
        ours, theirs = paces.get((kind, Side.CANARY), Pace()), paces.get((kind, Side.ACTIVE), Pace())
        if min(ours.answers, theirs.answers) >= least and ours.seconds and theirs.seconds:
            ratios.append(ours.seconds / theirs.seconds)
    return max(ratios, default=None)


def kept(paces: Paces) -> dict[str, Any]:
    """As a rollout's row keeps them."""
    return {f"{kind}.{side}": [pace.answers, pace.log_seconds] for (kind, side), pace in paces.items()}


def read(row: Mapping[str, Any]) -> Paces:
    """What `kept` has kept."""
    return {(kind, side): Pace(*row[name]) for kind in Kind for side in Side if (name := f"{kind}.{side}") in row}


def added(paces: Paces, more: Paces) -> Paces:
    return {key: paces.get(key, Pace()) + more.get(key, Pace()) for key in {**paces, **more}}


def told(paces: Paces) -> dict[str, Any]:
    """As clients see them."""
    return {
        kind.value: {
            side.value: {"answers": pace.answers, "seconds": pace.seconds}
            for side in Side
            for pace in [paces.get((kind, side), Pace())]
        }
        for kind in Kind
    }
