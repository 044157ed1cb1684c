"""A judge's endpoint: a real HTTP server in a thread, that answers, fails, hangs, or trickles."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Raw:
    """A body as it is."""

    body: str


@contextmanager
def served(*answers: str | Raw | None, seconds: float = 0.0, trickles: float = 0.0) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """An endpoint that gives these answers, the last one for ever: words, a body, or (None) a server error; and what it was asked.

    It answers after `seconds`, and where it trickles, byte by byte with so many seconds in between.
    """
    asked: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))) | {"path": self.path})
            time.sleep(seconds)
            answer = answers[min(len(asked), len(answers)) - 1]
            body = answer.body if isinstance(answer, Raw) else json.dumps({"choices": [{"message": {"content": answer}}]})
            self.send_response(500 if answer is None else 200)
            self.end_headers()
            pieces = [bytes([byte]) for byte in body.encode()] if trickles else [body.encode()]
            with suppress(BrokenPipeError, ConnectionResetError):
                for piece in pieces:
                    self.wfile.write(piece)
                    time.sleep(trickles)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads, server.block_on_close = True, False
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1", asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
