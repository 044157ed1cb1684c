"""Clients that are slow, or that send more than they say: what they hold, and for how long."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from in_memory import KEY, Service
from served import Served, served

from services.fleet import Reply
from services.settings import Settings

PATIENCE_SECONDS = 1.0
MOST_BYTES = 1 << 17
CHAT: dict[str, Any] = {"model": "toy", "messages": [{"role": "user", "content": "say oslo"}], "stream": True}


@pytest.fixture(scope="module")
def on_a_socket(tmp_path_factory: pytest.TempPathFactory, base: Path) -> Iterator[Served]:
    home = tmp_path_factory.mktemp("slow") / "home"
    bounds = {"client_seconds": PATIENCE_SECONDS, "most_body_bytes": MOST_BYTES, "poll_seconds": 0.02}
    with served(Settings(home=home, api_key=KEY, **bounds), base) as service:  # type: ignore[arg-type]
        service.deploy()
        yield service


def test_a_body_that_promises_too_much_or_does_not_end_is_refused_before_it_is_read(on_a_socket: Served) -> None:
    head = "POST /v1/experiences HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
    promised = f"{head}content-length: {MOST_BYTES + 1}\r\n\r\n"
    assert said(on_a_socket, promised.encode())[0] == 413
    lied = f"{head}content-length: {'9' * 30}\r\n\r\n"
    assert said(on_a_socket, lied.encode())[0] in (400, 413)
    piece = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
    chunked = f"{head}transfer-encoding: chunked\r\n\r\n".encode() + piece * (MOST_BYTES // 0x10000 + 1)
    assert said(on_a_socket, chunked)[0] == 413


def test_a_body_that_comes_too_slowly_is_not_waited_for(on_a_socket: Served) -> None:
    head = "POST /v1/experiences HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{"
    status, body = said(on_a_socket, head.encode())
    assert (status, body["error"]["code"]) == (408, "request_timeout")
    assert on_a_socket.client.get("/livez").status_code == 200


def test_a_client_that_does_not_read_its_stream_is_left_and_the_replica_with_it(on_a_socket: Served) -> None:
    ended: list[str] = []

    async def stream(*_: Any) -> AsyncIterator[Reply | str]:
        try:
            yield Reply(200, {}, "ver_1")
            while True:
                yield "data: " + "x" * 100_000 + "\n\n"
                await asyncio.sleep(0)
        finally:
            ended.append("closed")

    on_a_socket.fleet.stream = stream  # type: ignore[method-assign]
    body = json.dumps(CHAT).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {KEY}\r\ncontent-length: {len(body)}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", on_a_socket.port)) as client:
        client.sendall(head.encode() + body)
        assert client.recv(12) == b"HTTP/1.1 200"
        Service.until(lambda: ended == ["closed"])
    assert on_a_socket.client.get("/livez").status_code == 200


def said(service: Served, request: bytes) -> tuple[int, dict[str, Any]]:
    """The answer to these bytes, while the sender waits for more."""
    with socket.create_connection(("127.0.0.1", service.port), timeout=60.0) as client:
        with suppress(BrokenPipeError, ConnectionResetError):  # it has answered and left already
            client.sendall(request)
        answer = b""
        while b"\r\n\r\n" not in answer or not answer.endswith(b"}"):
            piece = client.recv(65536)
            if not piece:
                break
            answer += piece
    head, _, body = answer.partition(b"\r\n\r\n")
    status = int(head.split()[1])
    return status, json.loads(body) if body.startswith(b"{") else {}
