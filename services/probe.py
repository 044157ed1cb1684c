"""Does Ray answer? Asked at most every few seconds, however often the service is asked how it is."""

from __future__ import annotations

import threading
import time

import httpx

from services.settings import Settings

ANSWER_SECONDS = 2.0
"""A probe must answer soon, whatever the cluster does."""
FRESH_SECONDS = 5.0
"""An answer counts this long."""


class RayProbe:
    """Called from many threads; one of them asks, the others wait for its answer."""

    def __init__(self, settings: Settings) -> None:
        self.url = f"{settings.ray_dashboard}/api/version"
        self._lock = threading.Lock()
        self._asked_at = float("-inf")
        self._answer = ""

    def look(self) -> str:
        with self._lock:
            if time.monotonic() - self._asked_at > FRESH_SECONDS:
                self._answer, self._asked_at = self._ask(), time.monotonic()
            return self._answer

    def _ask(self) -> str:
        try:
            # Any answer will do: whether we may ask it things is shown where we do.
            httpx.get(self.url, timeout=ANSWER_SECONDS)
        except httpx.HTTPError as error:
            return f"unavailable: {type(error).__name__}"
        return "ok"
