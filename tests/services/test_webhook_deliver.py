"""Deliveries to a real server: what it can verify, where they go, and that nothing a receiver does holds one up or leads it astray."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import socket
import ssl
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai import InvalidWebhookSignatureError, OpenAI
from pydantic import ValidationError
from standardwebhooks import Webhook, WebhookVerificationError
from webhook_receiver import LONGEST_HANG_SECONDS, LOOPBACK, Answer, Receiver, certified, receiving, says, writes

from services.webhooks.address import Resolver
from services.webhooks.deliver import Attempt, Courier, Message, Verdict, retry_after
from services.webhooks.events import payload
from services.webhooks.reach import Reach
from services.webhooks.signing import Secrets, new_secret

NAME = "hooks.example.com"
EVENT: dict[str, Any] = {
    "object": "event",
    "id": "evt_1",
    "created_at": 1760000000.25,
    "type": "sleep.succeeded",
    "seq": 9,
    "level": "info",
    "message": "the sleep has ended: “gut”",
    "data": {"version": "ver_2"},
}
SECRET = new_secret()
NOW = 1760000000.0


def here(name: str, port: int) -> list[str]:
    return [LOOPBACK]


@contextmanager
def courier(resolve: Resolver = here, **reach: object) -> Iterator[Courier]:
    courier = Courier(Reach.model_validate({"allow_private": True, **reach}), resolve)
    yield courier
    courier.close()


def message(url: str, *secrets: str) -> Message:
    return Message(EVENT["id"], payload(EVENT), url, secrets or (SECRET,))


def delivered(receiver: Receiver, *secrets: str, resolve: Resolver = here, scheme: str = "http", **reach: object) -> Attempt:
    """One attempt at the receiver, by a name that only `resolve` knows."""
    with courier(resolve, **reach) as by:
        return asyncio.run(by.deliver(message(f"{scheme}://{NAME}:{receiver.port}/T0KEN?x=1", *secrets)))


def test_a_delivery_is_verified_by_the_librarys_and_by_openais_client() -> None:
    with receiving() as receiver:
        attempt = delivered(receiver)
    assert (attempt.verdict, attempt.status) == (Verdict.DELIVERED, 204)
    (got,) = receiver.received
    assert (got.path, got.headers["host"]) == ("/T0KEN?x=1", f"{NAME}:{receiver.port}")
    assert got.headers["content-type"] == "application/json"
    assert got.headers["webhook-id"] == "evt_1"
    said = Webhook(SECRET).verify(got.body, got.headers)
    assert said == json.loads(got.body) == {**EVENT, "timestamp": "2025-10-09T08:53:20.250Z"}
    webhooks = OpenAI(api_key="none", base_url="http://127.0.0.1:9").webhooks
    webhooks.verify_signature(got.body, got.headers, secret=SECRET)
    for body, secret in ((got.body + " ", SECRET), (got.body, new_secret())):
        with pytest.raises(InvalidWebhookSignatureError):
            webhooks.verify_signature(body, got.headers, secret=secret)
        with pytest.raises(WebhookVerificationError):
            Webhook(secret).verify(body, got.headers)


def test_after_a_rotation_both_secrets_verify_for_a_day() -> None:
    before = Secrets(SECRET)
    after = before.rotated(NOW)
    assert after.at(NOW + 24 * 3600 - 1) == (after.current, SECRET)
    assert after.at(NOW + 24 * 3600) == (after.current,)
    assert after.rotated(NOW + 1).at(NOW + 2)[1:] == (after.current,)
    assert SECRET not in repr(after)
    with receiving() as receiver:
        delivered(receiver, *after.at(NOW))
    (got,) = receiver.received
    webhooks = OpenAI(api_key="none", base_url="http://127.0.0.1:9").webhooks
    for secret in (after.current, SECRET):
        Webhook(secret).verify(got.body, got.headers)
        webhooks.verify_signature(got.body, got.headers, secret=secret)


def test_each_attempt_has_the_same_id_and_is_signed_at_its_own_time(monkeypatch: pytest.MonkeyPatch) -> None:
    with receiving(says(500)) as receiver:
        delivered(receiver)
        later = time.time() + 3600
        monkeypatch.setattr(time, "time", lambda: later)
        delivered(receiver)
    first, second = (got.headers for got in receiver.received)
    assert first["webhook-id"] == second["webhook-id"]
    assert second["webhook-timestamp"] == str(int(later))
    assert first["webhook-signature"] != second["webhook-signature"]


@pytest.mark.parametrize(
    ("answer", "verdict", "asked"),
    [
        (says(200, b"ok"), Verdict.DELIVERED, None),
        (says(299), Verdict.DELIVERED, None),
        (says(410), Verdict.GONE, None),
        (says(400), Verdict.RETRY, None),
        (says(404), Verdict.RETRY, None),
        (says(500, Retry_After="60"), Verdict.RETRY, None),
        (says(503), Verdict.RETRY, None),
        (says(503, Retry_After="60"), Verdict.RETRY, 60.0),
        (says(429, Retry_After="7"), Verdict.RETRY, 7.0),
        (says(429, Retry_After="soon"), Verdict.RETRY, None),
    ],
)
def test_the_status_decides(answer: Answer, verdict: Verdict, asked: float | None) -> None:
    with receiving(answer) as receiver:
        attempt = delivered(receiver)
    assert (attempt.verdict, attempt.retry_after) == (verdict, asked)
    assert attempt.reason == f"it answered {attempt.status}"


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_a_failure_and_is_not_followed(status: int) -> None:
    with receiving() as inner:
        with receiving(says(status, Location=f"http://{LOOPBACK}:{inner.port}/admin")) as receiver:
            attempt = delivered(receiver)
        assert (attempt.verdict, attempt.status) == (Verdict.RETRY, status)
        assert "redirects are not followed" in attempt.reason
    assert (len(receiver.received), inner.connections) == (1, 0)


def _hangs(handler: BaseHTTPRequestHandler, receiver: Receiver) -> None:
    receiver.over.wait(LONGEST_HANG_SECONDS)


def _trickles(beginning: bytes) -> Answer:
    """Never silent for long, so that only a limit on the whole can end it."""

    def answer(handler: BaseHTTPRequestHandler, receiver: Receiver) -> None:
        handler.wfile.write(beginning)
        while not receiver.over.wait(0.02):
            handler.wfile.write(b"x")

    return answer


@pytest.mark.parametrize(
    "answer",
    [
        _hangs,
        _trickles(b"HTTP/1.1 200 OK\r\nX-Slow: "),
        _trickles(b"HTTP/1.1 200 OK\r\nContent-Length: 60000\r\n\r\n"),
    ],
    ids=["hangs", "trickles headers", "trickles its body"],
)
def test_a_receiver_that_takes_its_time_is_left(answer: Answer) -> None:
    with receiving(answer) as receiver:
        attempt = delivered(receiver, seconds=0.3)
    assert (attempt.verdict, attempt.status) == (Verdict.RETRY, None)
    assert attempt.reason == "there was no whole answer within 0.3 s"


def test_a_name_that_takes_its_time_to_resolve_is_left() -> None:
    with receiving() as receiver:

        def slow(name: str, port: int) -> list[str]:
            receiver.over.wait(LONGEST_HANG_SECONDS)
            return [LOOPBACK]

        attempt = delivered(receiver, resolve=slow, seconds=0.2)
    assert attempt.reason == "there was no whole answer within 0.2 s"
    assert receiver.connections == 0


def test_of_a_long_answer_only_the_beginning_is_read() -> None:
    sent: list[int] = []

    def answer(handler: BaseHTTPRequestHandler, receiver: Receiver) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(10 * 1024**2))
        handler.end_headers()
        try:
            for _ in range(160):
                handler.wfile.write(bytes(64 * 1024))
                sent.append(1)
        finally:
            receiver.over.set()

    with receiving(answer) as receiver:
        attempt = delivered(receiver)
        assert attempt.verdict is Verdict.DELIVERED
        assert receiver.over.wait(LONGEST_HANG_SECONDS)
    assert len(sent) < 160


@pytest.mark.parametrize(
    "answer",
    [
        writes(b""),
        writes(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n", b"x"),
        writes(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nxx"),
        writes(b"SSH-2.0-S3CRET\r\n"),
        writes(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"),
        writes(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 300_000),
    ],
    ids=["nothing", "half a body", "half a chunk", "another protocol", "an upgrade", "endless headers"],
)
def test_a_connection_that_ends_early_or_speaks_no_http_is_a_failure_that_quotes_nothing(answer: Answer) -> None:
    with receiving(answer) as receiver:
        attempt = delivered(receiver)
    assert (attempt.verdict, attempt.status) == (Verdict.RETRY, None)
    assert attempt.reason == "the connection ended before the answer did, or what came was no HTTP"


def test_nobody_there_is_a_failure() -> None:
    with receiving() as receiver:
        pass
    attempt = delivered(receiver)
    assert (attempt.verdict, attempt.status) == (Verdict.RETRY, None)
    assert attempt.reason.startswith("the connection failed: ")


def _changes(*answers: str) -> tuple[Resolver, list[str]]:
    """A name with another address each time it is asked."""
    asked: list[str] = []

    def resolve(name: str, port: int) -> Sequence[str]:
        asked.append(name)
        return [answers[min(len(asked), len(answers)) - 1]]

    return resolve, asked


def test_a_name_that_changes_after_the_check_changes_nothing() -> None:
    resolve, asked = _changes(LOOPBACK, "169.254.169.254")
    with receiving() as receiver:
        attempt = delivered(receiver, resolve=resolve)
    assert attempt.verdict is Verdict.DELIVERED
    assert (asked, len(receiver.received)) == ([NAME], 1)


def test_a_name_that_has_become_private_since_it_was_registered_is_not_sent_to(tmp_path: Path) -> None:
    tls, ca_file = certified(tmp_path, NAME)
    resolve, asked = _changes("93.184.216.34", LOOPBACK)
    with receiving(tls=tls) as receiver, courier(resolve, allow_private=False, ca_file=ca_file) as by:
        url = f"https://{NAME}:{receiver.port}/"
        assert by.target(url).address == "93.184.216.34"
        attempt = asyncio.run(by.deliver(message(url)))
    assert attempt.verdict is Verdict.RETRY
    assert attempt.reason.startswith(f"url: {NAME} resolves to a loopback address")
    assert (len(asked), receiver.connections) == (2, 0)


def test_a_certificate_of_an_unknown_authority_is_refused(tmp_path: Path) -> None:
    tls, _ = certified(tmp_path, NAME)
    with receiving(tls=tls) as receiver:
        attempt = delivered(receiver, scheme="https")
    assert (attempt.verdict, attempt.status) == (Verdict.RETRY, None)
    assert "CERTIFICATE_VERIFY_FAILED" in attempt.reason
    assert (receiver.connections, receiver.received) == (1, [])


def test_the_operators_authority_is_trusted_and_the_name_is_asked_for_and_proved(tmp_path: Path) -> None:
    tls, ca_file = certified(tmp_path, NAME)
    with receiving(tls=tls) as receiver:
        attempt = delivered(receiver, scheme="https", ca_file=ca_file)
    assert attempt.verdict is Verdict.DELIVERED
    assert receiver.asked_for == [NAME]
    assert receiver.received[0].headers["host"] == f"{NAME}:{receiver.port}"


@pytest.mark.parametrize("proved", ["other.example.com", LOOPBACK])
def test_a_certificate_for_another_name_or_for_the_address_is_refused(tmp_path: Path, proved: str) -> None:
    tls, ca_file = certified(tmp_path, proved)
    with receiving(tls=tls) as receiver:
        attempt = delivered(receiver, scheme="https", ca_file=ca_file)
    assert f"Hostname mismatch, certificate is not valid for '{NAME}'" in attempt.reason
    assert receiver.received == []


def test_an_address_in_a_url_is_proved_by_a_certificate_for_it(tmp_path: Path) -> None:
    tls, ca_file = certified(tmp_path, LOOPBACK)
    with receiving(tls=tls) as receiver, courier(ca_file=ca_file) as by:
        attempt = asyncio.run(by.deliver(message(f"https://{LOOPBACK}:{receiver.port}/")))
    assert attempt.verdict is Verdict.DELIVERED
    assert receiver.asked_for == [None]


@pytest.mark.parametrize("newest", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_receiver_that_wants_a_client_certificate_is_a_failure(tmp_path: Path, newest: ssl.TLSVersion) -> None:
    tls, ca_file = certified(tmp_path, NAME)
    tls.verify_mode, tls.maximum_version = ssl.CERT_REQUIRED, newest
    tls.load_verify_locations(ca_file)
    with receiving(tls=tls) as receiver:
        attempt = delivered(receiver, scheme="https", ca_file=ca_file)
    assert (attempt.verdict, attempt.status) == (Verdict.RETRY, None)
    assert re.fullmatch("the connection failed: .+", attempt.reason)


def test_a_receiver_that_breaks_tls_after_the_handshake_is_a_failure(tmp_path: Path) -> None:
    def answer(handler: BaseHTTPRequestHandler, receiver: Receiver) -> None:
        with socket.socket(fileno=os.dup(handler.connection.fileno())) as beneath:
            beneath.sendall(b"no TLS record at all")
            receiver.over.wait(LONGEST_HANG_SECONDS)

    tls, ca_file = certified(tmp_path, NAME)
    with receiving(answer, tls) as receiver:
        attempt = delivered(receiver, scheme="https", ca_file=ca_file)
    assert (attempt.verdict, attempt.status) == (Verdict.RETRY, None)
    assert attempt.reason.startswith("the connection failed: [SSL")


def test_https_to_a_receiver_without_tls_is_a_failure() -> None:
    with receiving() as receiver:
        attempt = delivered(receiver, scheme="https")
    assert (attempt.verdict, attempt.status) == (Verdict.RETRY, None)
    assert attempt.reason.startswith("the connection failed: ")


def test_proxies_and_passwords_of_the_environment_are_ignored(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text(f"machine {NAME} login me password S3CRET\nmachine {LOOPBACK} login me password S3CRET\n")
    monkeypatch.setenv("NETRC", str(netrc))
    with receiving() as proxy, receiving() as receiver:
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://{LOOPBACK}:{proxy.port}")
            monkeypatch.setenv(name.lower(), f"http://{LOOPBACK}:{proxy.port}")
        attempt = delivered(receiver)
    assert attempt.verdict is Verdict.DELIVERED
    assert proxy.connections == 0
    assert "authorization" not in receiver.received[0].headers


def test_neither_path_nor_secret_is_in_a_log_or_where_a_message_is_shown(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with receiving() as receiver:
        delivered(receiver)
    shown = caplog.text + repr(message(f"https://{NAME}/T0KEN"))
    assert "T0KEN" not in shown
    assert SECRET not in shown


def test_receivers_that_hang_do_not_hold_up_another() -> None:
    async def last_while_others_hang(by: Courier) -> tuple[Attempt, list[Attempt]]:
        others = [asyncio.create_task(by.deliver(message(f"http://{NAME}:{stuck.port}/"))) for _ in range(20)]
        async with asyncio.timeout(LONGEST_HANG_SECONDS):
            while len(stuck.received) < len(others):
                await asyncio.sleep(0.01)
        last = await by.deliver(message(f"http://{NAME}:{receiver.port}/"))
        assert not any(other.done() for other in others)
        stuck.over.set()
        return last, await asyncio.gather(*others)

    with receiving(_hangs) as stuck, receiving() as receiver, courier(seconds=LONGEST_HANG_SECONDS) as by:
        last, hung = asyncio.run(last_while_others_hang(by))
    assert last.verdict is Verdict.DELIVERED
    assert {attempt.verdict for attempt in hung} == {Verdict.RETRY}


def test_a_file_of_authorities_that_is_not_there_is_told_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Courier(Reach(ca_file=tmp_path / "none.pem"))
    with pytest.raises(ValidationError):
        Reach(seconds=0.0)


def test_without_an_operators_word_nothing_private_is_reached() -> None:
    by = Courier()
    with socket.create_server((LOOPBACK, 0)) as server:
        attempt = asyncio.run(by.deliver(message(f"https://{LOOPBACK}:{server.getsockname()[1]}/")))
        server.settimeout(0.0)
        with pytest.raises(BlockingIOError):
            server.accept()
    by.close()
    assert "loopback" in attempt.reason


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (None, None),
        ("", None),
        ("0", 0.0),
        (" 120 ", 120.0),
        ("-5", None),
        ("1.5", None),
        ("²", None),
        ("9" * 5000, float("inf")),
        ("Thu, 09 Oct 2025 08:54:20 GMT", 60.0),
        ("Thu, 09 Oct 2025 08:00:00 GMT", 0.0),
        ("Thu, 09 Oct 0001 08:00:00 GMT", 0.0),
        ("09.10.2025", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(text: str | None, seconds: float | None) -> None:
    assert retry_after(text, NOW) == seconds


@settings(max_examples=100, deadline=None)
@given(st.text("0123456789:, -+TuhOctGMTZ", max_size=40))
def test_no_retry_after_is_an_error(text: str) -> None:
    asked = retry_after(text, NOW)
    assert asked is None or asked >= 0.0
