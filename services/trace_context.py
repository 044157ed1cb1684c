"""Where in which trace something happens: W3C Trace Context, as a request brings it and as the registry keeps it.

    version - trace          - span          - flags
    00      - 32 hex digits  - 16 hex digits - 01 where it is recorded

Only OpenTelemetry's interface is known here; what records and sends spans is set up in tracing.py, where an operator has asked for it.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from opentelemetry import trace

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
"""Environment variables that name a collector; without one there are no traces."""
DISABLED = "OTEL_SDK_DISABLED"
TRACEPARENT = re.compile(r"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
"""A version ff, and a trace or a span of zeros, are none."""
FIRST_VERSION = "00"
"""That has nothing behind the flags; later ones may."""
SAMPLED = 1
TRACE_BYTES, SPAN_BYTES = 16, 8
Value = str | bool | int | float
_tracer: ContextVar[trace.Tracer | None] = ContextVar("tracer", default=None)


@dataclass(frozen=True)
class TraceContext:
    """A span of a trace, in lower-case hexadecimal."""

    trace_id: str
    span_id: str
    sampled: bool = True

    def __str__(self) -> str:
        """As a `traceparent`."""
        return f"{FIRST_VERSION}-{self.trace_id}-{self.span_id}-{SAMPLED if self.sampled else 0:02x}"

    def child(self, name: str) -> TraceContext:
        """Of the same trace: the same name always names the same span."""
        digest = hashlib.sha256(f"{self.trace_id}/{self.span_id}/{name}".encode()).digest()[:SPAN_BYTES]
        return TraceContext(self.trace_id, digest.hex(), self.sampled)


def parse(traceparent: str | None) -> TraceContext | None:
    """None where it is none."""
    found = TRACEPARENT.fullmatch(traceparent or "")
    if found is None:
        return None
    version, trace_id, span_id, flags, more = found.groups()
    if version == FIRST_VERSION and more is not None:
        return None
    return TraceContext(trace_id, span_id, bool(int(flags, 16) & SAMPLED))


def trace_id(traceparent: str | None) -> str | None:
    """Of what the registry keeps."""
    found = parse(traceparent)
    return found.trace_id if found else None


def wanted() -> bool:
    """Whether an operator has named a collector of traces."""
    return any(os.environ.get(name) for name in ENDPOINTS) and os.environ.get(DISABLED, "").strip().lower() != "true"


def begun() -> str | None:
    """The context of a trace that begins now, for the registry to keep; None where nobody collects any."""
    if not wanted():
        return None
    return str(TraceContext(secrets.token_hex(TRACE_BYTES), secrets.token_hex(SPAN_BYTES)))


def here() -> str | None:
    """The context of what is done now, for the registry to keep; None outside of any trace."""
    now = trace.get_current_span().get_span_context()
    if not now.is_valid:
        return None
    return str(TraceContext(f"{now.trace_id:032x}", f"{now.span_id:016x}", bool(now.trace_flags & SAMPLED)))


@contextmanager
def within(tracer: trace.Tracer, span: trace.Span) -> Iterator[None]:
    """What is done now, in this task and in threads and tasks that it starts, belongs to the span. An error that passes is not told to
    it: its text may be what somebody said."""
    token = _tracer.set(tracer)
    try:
        with trace.use_span(span, record_exception=False, set_status_on_exception=False):
            yield
    finally:
        _tracer.reset(token)


@contextmanager
def span(name: str, attributes: Mapping[str, Value]) -> Iterator[trace.Span]:
    """A part of what is done now; where that belongs to no trace, nothing is recorded."""
    tracer = _tracer.get()
    if tracer is None:
        yield trace.INVALID_SPAN
        return
    part = tracer.start_span(name, attributes=dict(attributes))
    try:
        with trace.use_span(part, record_exception=False, set_status_on_exception=False):
            yield part
    finally:
        part.end()
