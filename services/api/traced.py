"""A span for each request under /v1, in the client's trace where it brings one, else in one of its own.

After OpenTelemetry's conventions for HTTP servers, but for what they would tell of clients: paths (there are names and ids in them),
queries, addresses and agents are left out. A span is named by the route's template, and ends when the answer has been sent, or its client
has gone.
"""

from __future__ import annotations

from http import HTTPStatus

from opentelemetry.trace import Span, SpanKind, Status, StatusCode
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.metrics import METHODS
from services.trace_context import TraceContext, parse, within
from services.tracing import Tracing, parent_of

TRACED = "/v1/"
"""Probes and pages are not."""
OTHER, NAMELESS = "_OTHER", "HTTP"
"""A method that is none of HTTP's, as an attribute, and in a span's name."""
GONE = "client_gone"


class Traced:
    """Stands before all else, so that what is logged, too, is of the trace."""

    def __init__(self, app: ASGIApp, tracing: Tracing) -> None:
        self.app, self.tracer = app, tracing.tracer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].startswith(TRACED):
            await self.app(scope, receive, send)
            return
        method = scope["method"] if scope["method"] in METHODS else OTHER
        known = {"http.request.method": method, "url.scheme": scope["scheme"], "network.protocol.version": scope["http_version"]}
        span = self.tracer.start_span(NAMELESS if method == OTHER else method, parent_of(brought(scope)), SpanKind.SERVER, known)
        told: list[int] = []

        async def noted(message: Message) -> None:
            if message["type"] == "http.response.start":
                told.append(message["status"])
            await send(message)

        error: str | None = None
        try:
            with within(self.tracer, span):
                await self.app(scope, receive, noted)
        except Exception as raised:
            # It is answered for outside of all middlewares, with 500; its words are not told.
            error = type(raised).__name__
            raise
        finally:
            _end(span, scope, method, told[0] if told else None, error)


def brought(scope: Scope) -> TraceContext | None:
    """By the client. Two contexts are none."""
    given = Headers(scope=scope).getlist("traceparent")
    return parse(given[0]) if len(given) == 1 else None


def _end(span: Span, scope: Scope, method: str, status: int | None, error: str | None) -> None:
    route = getattr(scope.get("route"), "path", None)
    if route is not None:
        span.update_name(f"{NAMELESS if method == OTHER else method} {route}")
        span.set_attribute("http.route", route)
    if status is None and error is not None:
        status = int(HTTPStatus.INTERNAL_SERVER_ERROR)
    if status is not None:
        span.set_attribute("http.response.status_code", status)
    if status is None or status >= HTTPStatus.INTERNAL_SERVER_ERROR or error is not None:
        span.set_attribute("error.type", error or (GONE if status is None else str(status)))
        span.set_status(Status(StatusCode.ERROR))
    span.end()
