"""Whose work a log line tells of: the request's id and its trace (W3C Trace Context), on every line that is written for it."""

from __future__ import annotations

import logging
import re
from contextvars import ContextVar

FORMAT = "%(asctime)s %(levelname)s %(name)s%(asked)s %(message)s"
TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-.*)?")
"""Version, trace, span, flags; a version ff, and a trace or a span of zeros, are none."""
_asked: ContextVar[str] = ContextVar("asked", default="")


def begin(request_id: str, traceparent: str) -> None:
    """What is logged from here on, in this task and in threads and tasks that it starts, is for this request."""
    trace = TRACEPARENT.fullmatch(traceparent)
    _asked.set(f" [{request_id}{f' trace={trace[1]}' if trace else ''}]")


class Named(logging.Filter):
    """Gives each record `asked`: empty for what no request has asked for."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.asked = _asked.get()
        return True


def configure() -> None:
    """Log to stderr, with names."""
    handler = logging.StreamHandler()
    handler.addFilter(Named())
    logging.basicConfig(level=logging.INFO, format=FORMAT, handlers=[handler])
