"""A collector of traces: a real OTLP/HTTP receiver in a thread, on 127.0.0.1, that keeps what it is sent and answers as it is told."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest, ExportTraceServiceResponse
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

LONGEST_HANG_SECONDS = 30.0
NANOSECONDS = 1e9


@dataclass(frozen=True)
class Got:
    """A span, as it came."""

    span: Span
    resource: dict[str, Any]

    @property
    def name(self) -> str:
        return self.span.name

    @property
    def trace(self) -> str:
        return self.span.trace_id.hex()

    @property
    def id(self) -> str:
        return self.span.span_id.hex()

    @property
    def parent(self) -> str:
        return self.span.parent_span_id.hex()

    @property
    def attributes(self) -> dict[str, Any]:
        return _plain(self.span.attributes)

    @property
    def failed(self) -> bool:
        return self.span.status.code == Status.StatusCode.STATUS_CODE_ERROR

    @property
    def start(self) -> float:
        return self.span.start_time_unix_nano / NANOSECONDS

    @property
    def end(self) -> float:
        return self.span.end_time_unix_nano / NANOSECONDS

    @property
    def moments(self) -> list[str]:
        return [event.name for event in self.span.events]

    def links(self, kind: str) -> list[tuple[str, str]]:
        """Traces and spans that it is linked to, as this."""
        return [
            (link.trace_id.hex(), link.span_id.hex())
            for link in self.span.links
            if _plain(link.attributes)["circadian.link"] == kind
        ]


@dataclass
class Collector:
    """What has come so far."""

    url: str = ""
    answers: Literal["takes", "refuses", "hangs"] = "takes"
    requests: int = 0
    spans: list[Got] = field(default_factory=list)
    raw: list[bytes] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)
    """The test is done: nobody hangs any longer."""

    def named(self, name: str) -> list[Got]:
        return [span for span in list(self.spans) if span.name == name]

    def of_trace(self, trace: str) -> list[Got]:
        return [span for span in list(self.spans) if span.trace == trace]

    def _take(self, body: bytes) -> None:
        self.raw.append(body)
        sent = ExportTraceServiceRequest.FromString(body)
        for group in sent.resource_spans:
            resource = _plain(group.resource.attributes)
            self.spans += [Got(span, resource) for scope in group.scope_spans for span in scope.spans]


@contextmanager
def collector() -> Iterator[Collector]:
    """One that takes everything, until it is told otherwise."""
    state = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            state.requests += 1
            assert (self.path, self.headers["Content-Type"]) == ("/v1/traces", "application/x-protobuf")
            if state.answers == "hangs":
                state.over.wait(LONGEST_HANG_SECONDS)
                return
            status = 200 if state.answers == "takes" else 400
            if status == 200:
                state._take(gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body)
            answer = ExportTraceServiceResponse().SerializeToString()
            self.send_response(status)
            self.send_header("Content-Type", "application/x-protobuf")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads, server.block_on_close = True, False
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    state.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield state
    finally:
        state.over.set()
        server.shutdown()
        server.server_close()
        thread.join()


def _plain(attributes: Any) -> dict[str, Any]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in attributes}
