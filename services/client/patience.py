"""When a request is sent again. Pure but for the jitter: no clock, no network.

the service says `x-should-retry: false`       never
it says `x-should-retry: true`                 yes
429 and 503 with `Retry-After`                 yes, after that time, unless it is longer than `longest_seconds`
502 and 504, and a connection that broke       yes, where repeating is harmless (GET, or an Idempotency-Key)
nothing listens, or no answer came in time     never: that is told at once
"""

from __future__ import annotations

import random
from dataclasses import dataclass

import httpx

SAID_BY_SERVICE = frozenset({429, 503})
SAID_BY_PROXIES = frozenset({502, 504})
NEVER = (httpx.ConnectError, httpx.TimeoutException, httpx.UnsupportedProtocol)


@dataclass(frozen=True)
class Patience:
    """How often a request is sent, and how long is waited in between."""

    attempts: int = 3
    first_seconds: float = 0.5
    """Doubled after each attempt."""
    longest_seconds: float = 20.0
    """Between two attempts, whoever asks for longer."""

    def wait(self, attempt: int, repeatable: bool, outcome: httpx.Response | httpx.TransportError) -> float | None:
        """Seconds until attempt number `attempt` is followed by another one; None: it was the last."""
        if attempt >= self.attempts:
            return None
        backoff = min(self.longest_seconds, self.first_seconds * 2 ** (attempt - 1)) * random.uniform(0.75, 1.0)
        if isinstance(outcome, httpx.TransportError):
            return backoff if repeatable and not isinstance(outcome, NEVER) else None
        if outcome.is_success or (said := outcome.headers.get("x-should-retry")) == "false":
            return None
        given = _seconds(outcome.headers.get("retry-after"))
        if said == "true" or (outcome.status_code in SAID_BY_SERVICE and given is not None):
            wanted = backoff if given is None else given
            return wanted if wanted <= self.longest_seconds else None
        return backoff if repeatable and outcome.status_code in SAID_BY_PROXIES else None


def _seconds(given: str | None) -> float | None:
    """Of a Retry-After header; the service writes seconds, never a date."""
    return float(given) if given is not None and given.isdecimal() else None
