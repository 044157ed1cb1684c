"""How often a key may ask: a moving window of a minute for each, counted by this controller.

With N controllers behind one address a key may ask up to N times as often: the limit protects a controller, it does not bill.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter

from services.access import Caller

MINUTE = 60


@dataclass(frozen=True)
class Rate:
    """Where a key stands."""

    allowed: bool
    limit: int
    remaining: int
    seconds: int
    """Until the whole limit is there again, or, where nothing is left, one more request."""

    def headers(self) -> dict[str, str]:
        """As the IETF's draft names them, and as OpenAI's clients read them."""
        told = {
            "RateLimit-Policy": f'"minute";q={self.limit};w={MINUTE}',
            "RateLimit": f'"minute";r={self.remaining};t={self.seconds}',
            "x-ratelimit-limit-requests": str(self.limit),
            "x-ratelimit-remaining-requests": str(self.remaining),
            "x-ratelimit-reset-requests": f"{self.seconds}s",
        }
        return told if self.allowed else told | {"Retry-After": str(self.seconds)}


class Rates:
    """Counts."""

    def __init__(self, requests_per_minute: int | None) -> None:
        self._usual, self._counter = requests_per_minute, MovingWindowRateLimiter(MemoryStorage())

    def count(self, caller: Caller) -> Rate | None:
        """One request more; None where nothing limits this key."""
        limit = caller.requests_per_minute or self._usual
        if limit is None:
            return None
        item = RateLimitItemPerMinute(limit)
        allowed = self._counter.hit(item, caller.key)
        stands = self._counter.get_window_stats(item, caller.key)
        return Rate(allowed, limit, stands.remaining, max(1, math.ceil(stands.reset_time - time.time())))
