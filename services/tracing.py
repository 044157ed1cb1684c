"""Spans on their way to a collector, by OTLP over HTTP. Off unless OTEL_EXPORTER_OTLP_ENDPOINT names one; then OpenTelemetry's own
variables say how (docs/traces.md).

    of requests            recorded as they happen; they wait in memory, so many at most, and a thread of their own sends them. What does
                           not fit is dropped: no request waits for a collector
    of nights, rollouts    told when they have ended, from the registry (traces.py); who tells them waits, and hears whether they arrived

A collector that is away or slow is logged once, and once more when it takes traces again.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from urllib.parse import urlsplit

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import Event, ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags

from services.trace_context import TraceContext, Value, wanted

log = logging.getLogger(__name__)
NAME = "circadian"
"""Of the service, unless OTEL_SERVICE_NAME says otherwise, and of what instruments it."""
NANOSECONDS = 10**9
SILENCED = ("opentelemetry.exporter.otlp.proto.http.trace_exporter", "opentelemetry.sdk._shared_internal")
"""Loggers that say of every batch, or every span, what is said here once."""


@dataclass(frozen=True)
class Moment:
    """Something that happened during a span. Unix seconds."""

    name: str
    at: float
    attributes: dict[str, Value] = field(default_factory=dict)


@dataclass(frozen=True)
class Bond:
    """Another span that one has to do with, in another trace."""

    to: TraceContext
    attributes: dict[str, Value] = field(default_factory=dict)


@dataclass(frozen=True)
class Told:
    """A span that is over, from `start` to `end` (Unix seconds)."""

    name: str
    context: TraceContext
    parent: TraceContext | None
    start: float
    end: float
    attributes: dict[str, Value] = field(default_factory=dict)
    moments: tuple[Moment, ...] = ()
    bonds: tuple[Bond, ...] = ()
    error: str | None = None
    """A code, where it failed."""


class Collector(OTLPSpanExporter):
    """The collector, as it is reached by the environment's word."""

    def __init__(self) -> None:
        super().__init__()
        self._away = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = super().export(spans)
        away = result is not SpanExportResult.SUCCESS
        if away != self._away:
            self._away = away
            address = urlsplit(self._endpoint)
            where = f"{address.hostname}:{address.port}" if address.port else str(address.hostname)
            if away:
                log.warning("the collector of traces at %s does not take them; that is not said again until it does", where)
            else:
                log.info("the collector of traces at %s takes them again", where)
        return result


class Tracing:
    """Of one controller."""

    def __init__(self, instance: str) -> None:
        own = Resource({"service.name": NAME, "service.version": version(NAME), "service.instance.id": instance})
        self.resource = Resource.create({}).merge(own).merge(OTELResourceDetector().detect())
        for name in SILENCED:
            logging.getLogger(name).setLevel(logging.CRITICAL)
        self._provider = TracerProvider(resource=self.resource, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(Collector()))
        self.tracer = self._provider.get_tracer(NAME, version(NAME))
        self._scope = InstrumentationScope(NAME, version(NAME))
        self._collector = Collector()

    @classmethod
    def from_environment(cls, instance: str) -> Tracing | None:
        """None where no collector is named."""
        return cls(instance) if wanted() else None

    def tell(self, spans: Sequence[Told]) -> bool:
        """Send what is over, and wait, for OTEL_EXPORTER_OTLP_TIMEOUT (10 s) at most; whether it arrived."""
        return self._collector.export([self._readable(told) for told in spans]) is SpanExportResult.SUCCESS

    def close(self, seconds: float) -> None:
        """Send what waits, for so long at most; what has not arrived by then is lost."""
        closing = threading.Thread(target=self._shut_down, daemon=True, name="close traces")
        closing.start()
        closing.join(seconds)

    def _shut_down(self) -> None:
        self._collector.shutdown()
        self._provider.shutdown()

    def _readable(self, told: Told) -> ReadableSpan:
        return ReadableSpan(
            told.name,
            context=_known(told.context),
            parent=_known(told.parent) if told.parent else None,
            resource=self.resource,
            attributes=told.attributes | ({"error.type": told.error} if told.error else {}),
            events=[Event(moment.name, moment.attributes, _nanoseconds(moment.at)) for moment in told.moments],
            links=[Link(_known(bond.to), bond.attributes) for bond in told.bonds],
            kind=SpanKind.INTERNAL,
            status=Status(StatusCode.ERROR) if told.error else Status(),
            start_time=_nanoseconds(told.start),
            end_time=_nanoseconds(max(told.start, told.end)),
            instrumentation_scope=self._scope,
        )


def parent_of(context: TraceContext | None) -> Context:
    """As OpenTelemetry hands it to a span that begins; without one, a trace begins."""
    nobody = Context()
    return nobody if context is None else trace.set_span_in_context(trace.NonRecordingSpan(_known(context, True)), nobody)


def _known(context: TraceContext, remote: bool = False) -> SpanContext:
    flags = TraceFlags(TraceFlags.SAMPLED if context.sampled else TraceFlags.DEFAULT)
    return SpanContext(int(context.trace_id, 16), int(context.span_id, 16), remote, flags)


def _nanoseconds(seconds: float) -> int:
    return int(seconds * NANOSECONDS)
