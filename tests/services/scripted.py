"""A server that says what a test has written down: a real one, in a thread, that answers each request with the next thing of a list."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Says:
    """An answer; `whole` is whether the connection ends as it should. Without a status it is closed before anything is said."""

    status: int | None = 200
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    whole: bool = True

    @property
    def content(self) -> bytes:
        return self.body.encode() if isinstance(self.body, str) else json.dumps(self.body).encode()


@dataclass(frozen=True)
class Asked:
    method: str
    path: str
    headers: dict[str, str]
    body: str


@contextmanager
def scripted(*script: Says) -> Iterator[tuple[str, list[Asked]]]:
    """Its URL, and what it was asked; what comes after the last answer gets that one again."""
    asked: list[Asked] = []

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
            asked.append(Asked(self.command, self.path, {k.lower(): v for k, v in self.headers.items()}, body))
            says = script[min(len(asked), len(script)) - 1]
            if says.status is None:
                return
            self.send_response(says.status)
            length = len(says.content) + (0 if says.whole else 1)
            for name, value in {"Content-Length": str(length), "Connection": "close", **says.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(says.content)

        do_GET = do_POST = do_PATCH = do_DELETE = answer  # noqa: N815  # the names that http.server calls

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads, server.block_on_close = True, False
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
