"""Requests that may be repeated: one with an `Idempotency-Key` is done once, and its answer is given again.

    the same key, the same request     the first one's answer, with `idempotency-replayed: true`
    the same key, another request      422 idempotency_key_reused
    the same key, still running        409 idempotency_in_progress, which may be tried again
    ..., what it told of is gone       410 experience_gone: that it was done stays known, what it said does not

Keys are each caller's own and are forgotten after a day. An API key that opens nothing (any more) is not heeded here: the routes refuse
it. Not kept: answers that say "not now" (401, 429, 5xx), streams, what the model says, and answers with a secret in them (a new key is
shown once). An answer that tells an experience is linked to it, and goes when that one's body does (forgetting.py). Consumes requests,
produces their answers; waits for nothing.
"""

from __future__ import annotations

import base64
import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from fastapi.security.utils import get_authorization_scheme_param
from sqlalchemy import delete, select
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.access import Caller
from services.errors import Problem
from services.forgetting import ANSWER_GONE, GONE
from services.keys import Keys
from services.tables import Database, ExperienceRow, Repeatable

HEADER, REPLAYED = "idempotency-key", b"idempotency-replayed"
METHODS = frozenset({"POST", "PATCH", "DELETE"})
PREFIX = "/v1/"
NEVER = ("/v1/chat/", "/v1/completions", "/v1/api_keys", "/v1/webhook_endpoints", "/v1/experiences/batches")
"""Whose answers are not kept; batches remember the key themselves, because nothing here holds what is as long as they are."""
LONGEST_KEY = 255
KEPT_SECONDS = 86_400.0
LOST_SECONDS = 600.0
"""After which a request that never got its answer counts as lost with its controller."""
MOST_BYTES = 1 << 20
"""Of an answer that is kept."""
TELLING = {"experience": "id", "experience.feedback": "experience"}
"""Objects with what was said in them, or about it, and the field that names the experience."""
NOT_KEPT = frozenset({HTTPStatus.UNAUTHORIZED, HTTPStatus.TOO_MANY_REQUESTS})


@dataclass(frozen=True)
class Answer:
    """As it was sent."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes


class Repeats:
    """Stands behind whatever names requests and reads bodies, before the routes."""

    def __init__(self, app: ASGIApp, database: Database, keys: Keys) -> None:
        self.app, self.database, self.keys = app, database, keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        given = Headers(scope=scope).get(HEADER) if scope["type"] == "http" else None
        heeded = given is not None and repeatable(scope["method"], scope["path"])
        if given is None or not heeded or not await run_in_threadpool(self._opens, scope):
            await self.app(scope, receive, send)
            return
        if not 0 < len(given) <= LONGEST_KEY:
            problem = Problem(400, "bad_idempotency_key", f"Idempotency-Key: give 1 to {LONGEST_KEY} characters")
            await problem.response(Request(scope))(scope, receive, send)
            return
        message = await receive()
        key = _sha256(self.keys.hash(Headers(scope=scope).get("authorization", "")), given)
        request = _sha256(scope["method"], scope["path"], scope["query_string"].decode("latin-1"), message.get("body", b"").hex())
        before = await run_in_threadpool(self._begin, key, request)
        if isinstance(before, Problem):
            await before.response(Request(scope))(scope, receive, send)
        elif before is not None:
            await _send(before, send)
        else:
            await self._run(scope, _again(message, receive), send, key)

    def _opens(self, scope: Scope) -> bool:
        """Whether who asks has a key, now: one that was revoked is told nothing of what it once was."""
        scheme, key = get_authorization_scheme_param(Headers(scope=scope).get("authorization"))
        return scheme.lower() == "bearer" and isinstance(self.keys.caller(key, ""), Caller)

    async def _run(self, scope: Scope, receive: Receive, send: Send, key: str) -> None:
        heard = _Heard(send)
        try:
            await self.app(scope, receive, heard)
        finally:
            await run_in_threadpool(self._end, key, heard.answer())

    def _begin(self, key: str, request: str) -> Answer | Problem | None:
        """What came of the request before; None where this is the first one, which is now known to run."""
        now = time.time()
        with self.database.write() as tx:
            tx.execute(delete(Repeatable).where(Repeatable.created_at < now - KEPT_SECONDS))
            row = tx.get(Repeatable, key, with_for_update=True)
            if row is None or (row.status is None and row.created_at < now - LOST_SECONDS):
                tx.merge(Repeatable(key=key, request_sha256=request, created_at=now, status=None, headers={}, body=None))
                return None
            if row.request_sha256 != request:
                return Problem(422, "idempotency_key_reused", "Idempotency-Key: it was used for another request; choose a new one")
            if row.status is None:
                headers = {"x-should-retry": "true", "Retry-After": "1"}
                return Problem(409, "idempotency_in_progress", "The first request with this key still runs.", headers=headers)
            if row.body is None:
                return Problem(410, "experience_gone", "This was done; the experience that it told of is gone since.")
            kept = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in row.headers["sent"]]
            return Answer(row.status, [*kept, (REPLAYED, b"true")], base64.b64decode(row.body or ""))

    def _end(self, key: str, answer: Answer | None) -> None:
        """Keep the answer, or let the request be made again."""
        with self.database.write() as tx:
            row = tx.get(Repeatable, key)
            if row is None:
                return
            if answer is None or answer.status >= HTTPStatus.INTERNAL_SERVER_ERROR or answer.status in NOT_KEPT:
                tx.delete(row)
                return
            row.experience = experience_in(answer)
            if row.experience is not None and not _says_something(tx, row.experience):
                row.status, row.headers, row.body = ANSWER_GONE["status"], {}, None
                return
            sent = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in answer.headers]
            row.status, row.headers, row.body = answer.status, {"sent": sent}, base64.b64encode(answer.body).decode()


class _Heard:
    """Passes an answer on, and keeps it where it is short and whole."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._head: Message | None = None
        self._body, self._whole = bytearray(), False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._head = message
        elif message["type"] == "http.response.body" and len(self._body) <= MOST_BYTES:
            self._body += message.get("body", b"")
            self._whole = not message.get("more_body", False)
        await self._send(message)

    def answer(self) -> Answer | None:
        if self._head is None or not self._whole or len(self._body) > MOST_BYTES:
            return None
        return Answer(self._head["status"], list(self._head["headers"]), bytes(self._body))


def repeatable(method: str, path: str) -> bool:
    """Whether an `Idempotency-Key` is heeded there."""
    return method in METHODS and path.startswith(PREFIX) and not path.startswith(NEVER)


def experience_in(answer: Answer) -> str | None:
    """The experience whose text an answer may hold."""
    try:
        told = json.loads(answer.body)
    except ValueError:
        return None  # no JSON, or nothing at all: it tells none
    kind = told.get("object") if isinstance(told, dict) else None
    found = told.get(TELLING[kind]) if kind in TELLING else None
    return found if isinstance(found, str) else None


def _says_something(tx: Session, experience: str) -> bool:
    """Held until the answer is kept: an erasure that comes meanwhile waits, and finds it."""
    status = tx.scalar(select(ExperienceRow.status).where(ExperienceRow.id == experience).with_for_update(read=True))
    return status is not None and status not in GONE


def _sha256(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _again(first: Message, receive: Receive) -> Callable[[], Any]:
    """What was received already, then the rest."""
    before = [first]

    async def replay() -> Message:
        return before.pop() if before else await receive()

    return replay


async def _send(answer: Answer, send: Send) -> None:
    await send({"type": "http.response.start", "status": answer.status, "headers": answer.headers})
    await send({"type": "http.response.body", "body": answer.body})
