"""How long the screening of one experience may take: everything in it that reads a text asks a deadline first."""

from __future__ import annotations

import time


class TooSlow(Exception):
    """The text could not be read to its end in the time it has."""


class Deadline:
    """A moment on the clock of this thread, which stands still while others compute: a busy machine is no reason to refuse a text."""

    def __init__(self, seconds: float) -> None:
        self._at = time.thread_time() + seconds

    def left(self) -> float:
        """Seconds until then; raises TooSlow when there are none."""
        left = self._at - time.thread_time()
        if left <= 0.0:
            raise TooSlow
        return left
