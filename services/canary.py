"""A version that answers a share of the clients: whom, and what becomes of it. Pure functions; rollouts.py and api/wake.py do it."""

from __future__ import annotations

import hashlib
import random
from enum import StrEnum

from circadian.specs import CanarySpec

WHOLE = 2**32


class Verdict(StrEnum):
    WAIT = "wait"
    PROMOTE = "promote"
    WITHDRAW = "withdraw"


def canary_key(deployment: str) -> str:
    """Under which the fleet finds the replica of a deployment's canary."""
    return f"{deployment}.canary"


def is_asked(rollout: str, percent: float, client: str | None) -> bool:
    """Is this client answered by the canary? One that names itself always is, or never; others by chance."""
    if client is None:
        return random.random() * 100.0 < percent
    place = int.from_bytes(hashlib.sha256(f"{rollout}/{client}".encode()).digest()[:4], "big")
    return place / WHOLE * 100.0 < percent


def judge(spec: CanarySpec, requests: int, errors: int, seconds: float) -> Verdict:
    """requests, errors: of the canary so far; seconds: since it began to answer."""
    enough = requests >= spec.min_requests
    if enough and errors > spec.max_error_rate * requests:
        return Verdict.WITHDRAW
    if seconds < spec.seconds:
        return Verdict.WAIT
    return Verdict.PROMOTE if enough or not errors else Verdict.WITHDRAW
