"""Tasks that must run as long as the service does: one that dies is seen, logged and started again, a few times."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import Any

from services.settings import Settings

log = logging.getLogger(__name__)
Work = Callable[[], Coroutine[Any, Any, None]]
QUIET_SECONDS = 600.0
"""A task that ran this long before it died counts as one that dies for the first time."""


def pause(settings: Settings, failures: int) -> float:
    """Seconds to wait after so many consecutive failures: doubled each time, bounded."""
    return min(settings.poll_seconds * 2 ** min(failures, 32), settings.longest_pause_seconds)


class Background:
    """Named tasks. `broken` holds those that were given up, and why: the service is not ready then."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.broken: dict[str, str] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def start(self, name: str, work: Work) -> None:
        """Run it unless it runs already."""
        if name in self._tasks:
            return
        self.broken.pop(name, None)
        # It outlives the request that starts it, and so does not log under its name.
        task = asyncio.create_task(self._run(name, work), name=name, context=Context())
        self._tasks[name] = task
        task.add_done_callback(lambda _: self._tasks.pop(name, None))

    async def end(self, name: str) -> None:
        """End one of them, if it runs."""
        if task := self._tasks.get(name):
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def close(self) -> None:
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, name: str, work: Work) -> None:
        """Consumes what the task raises; produces restarts, or an entry in `broken`; ends with the task."""
        failures = 0
        while True:
            started = time.monotonic()
            try:
                return await work()
            except Exception as error:
                # Whatever it was: a task that is simply gone would leave its sleep or its deployment alone, unnoticed.
                log.exception("background task %r died", name)
                failures = 1 if time.monotonic() - started > QUIET_SECONDS else failures + 1
                if failures > self.settings.task_restarts:
                    self.broken[name] = repr(error)
                    return
            await asyncio.sleep(pause(self.settings, failures))
