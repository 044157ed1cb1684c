"""What stands before the routes: a name on every request, an end to long bodies, and no text that nothing could write down."""

from __future__ import annotations

import json
import re
import time
import uuid
from collections.abc import Collection
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services import naming
from services.errors import REQUEST_ID, Problem, at_fault, malformed
from services.metrics import Metrics

GIVEN_ID = re.compile(r"[A-Za-z0-9_.:-]{1,128}")
"""What a client may call its request; anything else is replaced."""
MOST_DIGITS = 18
"""Of a promised length that is read as a number at all."""
ESCAPED = re.compile(rb"\\u[dD][89a-fA-F]")
"""Of one half of a surrogate pair, in JSON: only a body with one of these has to be looked at."""
HALF = re.compile("[\ud800-\udfff]")
"""Of a pair, alone: no character, and nothing that UTF-8, and so a file, an answer or the database, can hold."""


class RequestId:
    """Echoes `x-request-id`, or makes one up, under which all is logged; says how often the key may still ask, where that is limited;
    counts what was answered."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app, self.metrics = app, metrics

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
                headers = MutableHeaders(scope=message)
                headers[REQUEST_ID] = request_id
                headers.update(scope["state"].get("rate_headers", {}))
                route = getattr(scope.get("route"), "path", None)
                self.metrics.answered(scope["method"], route, message["status"], time.monotonic() - began)
            await send(message)

        await self.app(scope, receive, named)


class BodyCheck:
    """Reads a body before anything looks at it, and refuses one that is too long (as soon as that shows) or is no text.

    `streamed`: paths whose routes read a longer one themselves, piece by piece, and check it as they do.
    """

    def __init__(self, app: ASGIApp, most: int, streamed: Collection[str] = ()) -> None:
        self.app, self.most, self.streamed = app, most, streamed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or (scope["method"] == "POST" and scope["path"] in self.streamed):
            await self.app(scope, receive, send)
            return
        promised = Headers(scope=scope).get("content-length", "")
        body, more = bytearray(), True
        too_long = promised.isdigit() and (len(promised) > MOST_DIGITS or int(promised) > self.most)
        while more and not too_long:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message.get("body", b"")
            more, too_long = message.get("more_body", False), len(body) > self.most
        problem = too_large(self.most) if too_long else not_text(bytes(body))
        if problem:
            await problem.response(Request(scope))(scope, receive, send)
            return
        whole: list[Message] = [{"type": "http.request", "body": bytes(body), "more_body": False}]

        async def replay() -> Message:
            return whole.pop() if whole else await receive()

        await self.app(scope, replay, send)


def too_large(most: int) -> Problem:
    return Problem(413, "too_large", f"The body is longer than {most} bytes; send less at once.")


def not_text(body: bytes) -> Problem | None:
    """What is wrong with a body that is not UTF-8, or has half a surrogate pair in it: the field, where it can be named."""
    try:
        body.decode()
    except UnicodeDecodeError as error:
        return malformed(f"it is not in UTF-8 ({error})")
    if not ESCAPED.search(body):
        return None
    try:
        value = json.loads(body)
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        why = "this text has half of a surrogate pair (\\ud800 to \\udfff), which is no character; leave it out, or send the whole pair"
        return at_fault(half_of_a_pair(value), why)
    except (ValueError, RecursionError):
        return None  # it is no JSON, which the route says
    return None


def half_of_a_pair(value: Any) -> list[str]:
    """The way to the first text of a JSON value, a name or a value, that has half a surrogate pair in it."""
    inside, way = [iter([("", value)])], [""]
    while inside:
        for name, item in inside[-1]:
            way[-1] = name.encode("utf-8", "backslashreplace").decode()
            if HALF.search(name) or (isinstance(item, str) and HALF.search(item)):
                return way[1:]
            if isinstance(item, dict | list):
                named = item.items() if isinstance(item, dict) else ((str(i), part) for i, part in enumerate(item))
                inside.append(iter(named))
                way.append("")
                break
        else:
            inside.pop()
            way.pop()
    return []
