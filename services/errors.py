"""Every error the service answers with: RFC 9457 problem+json, with an `error` member that OpenAI clients read."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from json import JSONDecodeError
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from sqlalchemy.exc import OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

log = logging.getLogger(__name__)
TYPE = "urn:circadian:error"
"""Of an error: a name, and no page."""
REQUEST_ID = "x-request-id"
OWN_CODES = frozenset({"invalid_cron"})
"""Faults of a field that a client can tell from all others (services/schedules/spec.py)."""
CLIENT_GONE = 499
"""Nobody reads it; logs do."""
ASLEEP = "deployment_asleep"
"""Code of the one error of the service's own that nothing is wrong about: a night has all replicas of a deployment."""
TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    408: "timeout_error",
    409: "conflict_error",
    410: "invalid_request_error",
    412: "invalid_request_error",
    413: "invalid_request_error",
    415: "invalid_request_error",
    422: "invalid_request_error",
    429: "rate_limit_error",
    500: "server_error",
    502: "upstream_error",
    503: "overloaded_error",
    504: "timeout_error",
}


class Problem(Exception):
    """An answer other than success. `param` names the field at fault, `errors` one entry a field."""

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        *,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
        errors: list[dict[str, str]] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status, self.code, self.detail, self.param, self.errors = status, code, detail, param, errors
        self.headers = dict(headers or {})
        if status == HTTPStatus.CONFLICT:
            # OpenAI-style clients repeat a 409 twice unless they are told that it will not go away.
            self.headers.setdefault("x-should-retry", "false")

    def body(self, instance: str, request_id: str) -> dict[str, Any]:
        body: dict[str, Any] = {
            "type": f"{TYPE}:{self.code}",
            "title": self.code.replace("_", " ").capitalize(),
            "status": self.status,
            "detail": self.detail,
            "instance": instance,
            "request_id": request_id,
            "error": {
                "message": self.detail,
                "type": TYPES.get(self.status, "server_error"),
                "param": self.param,
                "code": self.code,
            },
        }
        return body | ({"errors": self.errors} if self.errors else {})

    def within(self, field: str) -> Problem:
        """The same fault, of an object that is itself a field of what was sent."""
        detail = f"{field}.{self.detail}" if self.param and self.detail.startswith(f"{self.param}:") else self.detail
        param = f"{field}.{self.param}" if self.param else field
        errors = [one | {"pointer": f"/{field}{one['pointer']}"} for one in self.errors or ()]
        return Problem(self.status, self.code, detail, param=param, headers=self.headers, errors=errors or None)

    def response(self, request: Request) -> JSONResponse:
        request_id = getattr(request.state, "request_id", "")
        request.state.problem = self.code
        # Here too, because the answer to an unexpected exception passes by the middleware that names all others.
        headers = {**self.headers, REQUEST_ID: request_id}
        body = self.body(request.url.path, request_id)
        return JSONResponse(body, self.status, headers=headers, media_type="application/problem+json")


def not_found(kind: str, given: str) -> Problem:
    return Problem(404, f"{kind}_not_found", f"There is no {kind} {given!r}.", param="id")


def malformed(why: str) -> Problem:
    return Problem(400, "malformed_json", f"The body is not JSON that can be read: {why}.")


def unsupported(given: str | None) -> Problem:
    return Problem(
        415, "unsupported_media_type", f"Content-Type is {given or 'missing'}; send JSON, and `application/json` as its type."
    )


def unreadable(error: BaseException | None) -> Problem:
    """What a JSON parser has found. Python's own text about long numbers is for programmers."""
    if isinstance(error, JSONDecodeError):
        return malformed(str(error))
    if isinstance(error, RecursionError):
        return malformed("it is nested too deeply; send flatter objects")
    return malformed("it has a number with thousands of digits, or one that is none (NaN, Infinity); send shorter ones, or text")


def at_fault(where: Sequence[str], why: str) -> Problem:
    """One field of the body, by the way to it, and what is wrong with it."""
    param = ".".join(where) or None
    errors = [{"pointer": "/" + "/".join(where), "detail": why}]
    return Problem(422, "validation_failed", f"{param or 'body'}: {why}", param=param, errors=errors)


def faults(found: Sequence[Any]) -> Problem:
    """What pydantic has found, as a problem that points at each field. Its code is that of the field that is named first."""
    if any(fault["type"] == "json_invalid" for fault in found):
        return malformed(str(found[0].get("ctx", {}).get("error", "it does not parse")))
    errors = []
    for fault in found:
        where = [str(part) for part in fault["loc"] if part != "body"]
        errors.append({"pointer": "/" + "/".join(where), "detail": fault["msg"]})
    first = errors[0]
    param = first["pointer"].strip("/").replace("/", ".") or None
    code = found[0]["type"] if found[0]["type"] in OWN_CODES else "validation_failed"
    return Problem(422, code, f"{param or 'body'}: {first['detail']}", param=param, errors=errors)


_HTTP_CODES = {404: "route_not_found", 405: "method_not_allowed"}


def install(app: FastAPI) -> None:
    """Make every error of the app a problem."""

    @app.exception_handler(Problem)
    def _problem(request: Request, error: Problem) -> JSONResponse:
        return error.response(request)

    @app.exception_handler(RequestValidationError)
    def _invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        # A body that FastAPI left as bytes is one whose Content-Type it does not read.
        problem = unsupported(request.headers.get("content-type")) if error.body and isinstance(error.body, bytes) else None
        return (problem or faults(error.errors())).response(request)

    @app.exception_handler(HTTPException)
    def _http(request: Request, error: HTTPException) -> JSONResponse:
        if error.status_code == HTTPStatus.BAD_REQUEST:
            # Of everything that keeps FastAPI from parsing a body, it has no other word for what is not bad syntax.
            return unreadable(error.__cause__).response(request)
        code = _HTTP_CODES.get(error.status_code, "invalid_request")
        detail = f"{request.method} {request.url.path}: {error.detail}"
        return Problem(error.status_code, code, detail, headers=error.headers).response(request)

    @app.exception_handler(ClientDisconnect)
    def _left(request: Request, _: ClientDisconnect) -> Response:
        log.info("%s %s: the client has gone", request.method, request.url.path)
        return Response(status_code=CLIENT_GONE)

    @app.exception_handler(OperationalError)
    @app.exception_handler(PoolTimeout)
    def _database(request: Request, error: SQLAlchemyError) -> JSONResponse:
        log.error("%s %s: the database did not answer", request.method, request.url.path, exc_info=error)
        detail = "The database is busy or away; nothing of this request was kept. Try it again."
        return Problem(503, "database_unavailable", detail, headers={"Retry-After": "1"}).response(request)

    @app.exception_handler(Exception)
    def _unexpected(request: Request, error: Exception) -> JSONResponse:
        log.error("%s %s failed", request.method, request.url.path, exc_info=error)
        return Problem(500, "internal", "The service failed; its log has the reason under this request_id.").response(request)
