"""What `helm test` runs, run against a service: it is content with a good one, and says what is wrong with another."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tests.helm.chart import CHART

KEY = "ck_operator"
DEPLOYMENT = "dep_1"


class Service(BaseHTTPRequestHandler):
    """Answers as the routes of the service do, but for what `broken` names."""

    broken: dict[str, int] = {}
    asked: list[str]

    def do_GET(self) -> None:
        known = self.headers.get("Authorization") == f"Bearer {KEY}"
        status = 200 if self.path == "/readyz" or known else 401
        self._answer(status, {"data": [{"id": DEPLOYMENT}]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self._answer(200 if body == {"deployment": DEPLOYMENT, "dry_run": True} else 422, {})

    def _answer(self, status: int, body: object) -> None:
        self.asked.append(f"{self.command} {self.path}")
        data = json.dumps(body).encode()
        self.send_response(self.broken.get(self.path, status))
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *arguments: object) -> None:
        """Nowhere."""


@contextmanager
def service(**broken: int) -> Iterator[tuple[str, list[str]]]:
    """Where it is, and what it was asked."""
    handler = type("Handler", (Service,), {"broken": {f"/{path}": status for path, status in broken.items()}, "asked": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", handler.asked
    finally:
        server.shutdown()
        server.server_close()


def smoke(url: str, secrets: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"CIRCADIAN_URL": url, "CIRCADIAN_SECRETS_FOLDER": str(secrets)}
    script = (CHART / "files" / "smoke.py").read_text()
    return subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=120)


def test_a_good_service_passes(tmp_path: Path) -> None:
    (tmp_path / "api_key").write_text(f"{KEY}\n")
    with service() as (url, asked):
        done = smoke(url, tmp_path)
    assert done.returncode == 0, done.stderr
    assert asked == ["GET /readyz", "GET /v1/models", "GET /v1/models", "GET /v1/deployments", "POST /v1/sleeps"]


def test_without_a_key_its_door_is_tried_alone(tmp_path: Path) -> None:
    with service() as (url, asked):
        assert smoke(url, tmp_path).returncode == 0
    assert asked == ["GET /readyz", "GET /v1/models"]


def test_what_is_wrong_is_said(tmp_path: Path) -> None:
    (tmp_path / "api_key").write_text(KEY)
    with service(readyz=503) as (url, _):
        assert "GET /readyz: 503, not (200,)" in smoke(url, tmp_path).stderr
    (tmp_path / "api_key").write_text("ck_another")
    with service() as (url, _):
        assert "GET /v1/models: 401, not (200,)" in smoke(url, tmp_path).stderr


def test_an_open_door_is_a_failure(tmp_path: Path) -> None:
    with service(**{"v1/models": 200}) as (url, _):
        assert "GET /v1/models: 200, not (401,)" in smoke(url, tmp_path).stderr
