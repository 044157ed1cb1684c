"""What stands before the routes: a name on every request, an end to long bodies and to long waits, and no text that nothing could write
down."""

from __future__ import annotations

import asyncio
import logging
import re
import time
import uuid
from collections.abc import Collection
from http import HTTPStatus

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from circadian.metrics import STATUS_ASLEEP
from services import naming, readable
from services.errors import ASLEEP, REQUEST_ID, Problem
from services.metrics import Metrics

log = logging.getLogger(__name__)
GIVEN_ID = re.compile(r"[A-Za-z0-9_.:-]{1,128}")
"""What a client may call its request; anything else is replaced."""
MOST_DIGITS = 18
"""Of a promised length that is read as a number at all."""
API = "/v1/"
"""How the paths of the API begin."""


class RequestId:
    """Echoes `x-request-id`, or makes one up, under which all is logged; says how often the key may still ask, where that is limited;
    counts what was answered; leaves a client that does not take its answer, and with it what makes the answer."""

    def __init__(self, app: ASGIApp, metrics: Metrics, seconds: float) -> None:
        self.app, self.metrics, self.seconds = app, metrics, seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        given, began = Headers(scope=scope), time.monotonic()
        request_id = given[REQUEST_ID] if GIVEN_ID.fullmatch(given.get(REQUEST_ID, "")) else f"req_{uuid.uuid4().hex}"
        scope.setdefault("state", {})["request_id"] = request_id
        naming.begin(request_id, given.get("traceparent", ""))

        async def named(message: Message) -> None:
            if message["type"] == "http.response.start":
                begun.append(request_id)
                headers = MutableHeaders(scope=message)
                headers[REQUEST_ID] = request_id
                headers.update(scope["state"].get("rate_headers", {}))
                self.metrics.answered(scope["method"], _route(scope), _status(scope, message["status"]), time.monotonic() - began)
            try:
                async with asyncio.timeout(self.seconds):
                    await send(message)
            except TimeoutError:
                left.append(request_id)
                answering.cancel()
                await asyncio.sleep(0)

        answering, begun, left = current_task(), list[str](), list[str]()
        try:
            await self.app(scope, receive, named)
        except asyncio.CancelledError:
            if not left:
                raise
            answering.uncancel()
            log.warning("%s %s: the client does not take its answer", scope["method"], scope["path"])
        except Exception:
            # Its answer, 500, is made outside of all middlewares and does not pass by here.
            if not begun:
                route = _route(scope) or (API if scope["path"].startswith(API) else None)
                self.metrics.answered(scope["method"], route, str(HTTPStatus.INTERNAL_SERVER_ERROR), time.monotonic() - began)
            raise


def _route(scope: Scope) -> str | None:
    """Its template; None where nothing was routed, or had not been yet."""
    return getattr(scope.get("route"), "path", None)


def _status(scope: Scope, status: int) -> str:
    """As it is counted."""
    return STATUS_ASLEEP if scope["state"].get("problem") == ASLEEP else str(status)


def current_task() -> asyncio.Task[object]:
    task = asyncio.current_task()
    assert task is not None
    return task


class BodyCheck:
    """Reads a body before anything looks at it, and refuses one that is too long (as soon as that shows), takes too long or is no text.

    `streamed`: paths whose routes read a longer one themselves, piece by piece, and check it as they do.
    """

    def __init__(self, app: ASGIApp, most: int, seconds: float, streamed: Collection[str] = ()) -> None:
        self.app, self.most, self.seconds, self.streamed = app, most, seconds, streamed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body: bytes | Problem | None = unreadable_address(scope) if scope["type"] == "http" else None
        streamed = body is None and scope["type"] == "http" and scope["method"] == "POST" and scope["path"] in self.streamed
        if scope["type"] != "http" or streamed:
            await self.app(scope, receive, send)
            return
        try:
            async with asyncio.timeout(self.seconds):
                body = body or await self._read(scope, receive)
        except TimeoutError:
            body = too_slow(self.seconds)
        problem = body if isinstance(body, Problem) else readable.fault(body or b"")
        if problem:
            await problem.response(Request(scope))(scope, receive, send)
        if problem or body is None:
            return
        whole: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def replay() -> Message:
            return whole.pop() if whole else await receive()

        await self.app(scope, replay, send)

    async def _read(self, scope: Scope, receive: Receive) -> bytes | Problem | None:
        """The whole body; None where the client has gone."""
        promised = Headers(scope=scope).get("content-length", "")
        if promised.isdigit() and (len(promised) > MOST_DIGITS or int(promised) > self.most):
            return too_large(self.most)
        body, more = bytearray(), True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            body += message.get("body", b"")
            more = message.get("more_body", False)
            if len(body) > self.most:
                return too_large(self.most)
        return bytes(body)


def too_large(most: int) -> Problem:
    return Problem(413, "too_large", f"The body is longer than {most} bytes; send less at once.")


def too_slow(seconds: float) -> Problem:
    headers = {"Connection": "close"}
    return Problem(408, "request_timeout", f"The body did not come within {seconds:g} s; send it faster.", headers=headers)


def unreadable_address(scope: Scope) -> Problem | None:
    """NUL is in no name and no id, and not every database can look for it."""
    if "\x00" in scope["path"] or b"%00" in scope["query_string"]:
        return Problem(400, "malformed_address", "The path or the query has the character NUL in it; leave it out.")
    return None
