"""Whose work a log line tells of: the request's id and its trace (W3C Trace Context), on every line that is written for it."""

from __future__ import annotations

import logging
from contextvars import ContextVar

from services.trace_context import here, trace_id

FORMAT = "%(asctime)s %(levelname)s %(name)s%(asked)s %(message)s"
_asked: ContextVar[str] = ContextVar("asked", default="")


def begin(request_id: str, traceparent: str) -> None:
    """What is logged from here on, in this task and in threads and tasks that it starts, is for this request: of the trace that is
    recorded, or, where none is, of the client's own."""
    trace = trace_id(here()) or trace_id(traceparent)
    _asked.set(f" [{request_id}{f' trace={trace}' if trace else ''}]")


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
