"""What can go wrong between a client and the service. Every one is a ClientError."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import Any

import httpx


class ClientError(Exception):
    """A request did not get the answer that it asked for."""


class Unreachable(ClientError):
    """Nothing answers there, or it went away in the middle."""


class Foreign(ClientError):
    """Something answers there, and not as this service does."""


class NotSent(ClientError):
    """A request that could mean nothing."""


class ApiError(ClientError):
    """The service answered with an error; the texts are its own."""

    def __init__(self, status: int, body: dict[str, Any]) -> None:
        error = body.get("error") or {}
        detail = body.get("detail") or error.get("message") or HTTPStatus(status).phrase
        self.status = status
        self.code: str = error.get("code") or "error"
        self.message, self.remedy = _parted(detail)
        """What is wrong, and what to do about it: the service says that behind the last semicolon; None where it says nothing."""
        self.param: str | None = error.get("param")
        """The field at fault."""
        self.errors: list[dict[str, str]] = body.get("errors") or []
        """Every field at fault: {pointer, detail}."""
        self.request_id: str | None = body.get("request_id")
        """Under which the service's log has it."""
        super().__init__(f"{self.code} ({status}): {detail}")


class Invalid(ApiError):
    """The request cannot be understood, or its values cannot be: 400, 413, 415, 422."""


class NotAllowed(ApiError):
    """There is no key, or it may not do this: 401, 403."""


class NotFound(ApiError):
    """404."""


class Conflict(ApiError):
    """Things are not as the request takes them to be: 409, 410, 412."""


class Unavailable(ApiError):
    """Not now: 429 and 5xx."""


_CLASSES: dict[int, type[ApiError]] = {
    401: NotAllowed,
    403: NotAllowed,
    404: NotFound,
    409: Conflict,
    410: Conflict,
    412: Conflict,
    429: Unavailable,
}


def error_of(response: httpx.Response) -> ApiError:
    """The exception for an error answer that has been read."""
    status = response.status_code
    try:
        body = response.json()
    except (json.JSONDecodeError, UnicodeDecodeError):
        body = None
    if not isinstance(body, dict):  # of a proxy before the service
        body = {"detail": response.text.strip()[:MOST_TEXT]}
    default = Unavailable if status >= HTTPStatus.INTERNAL_SERVER_ERROR else Invalid
    return _CLASSES.get(status, default)(status, body)


MOST_TEXT = 400
"""Characters of an error page that are passed on."""


def _parted(detail: str) -> tuple[str, str | None]:
    message, _, remedy = detail.rpartition("; ")
    return (message, remedy) if message else (detail, None)
