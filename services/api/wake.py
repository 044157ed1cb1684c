"""/v1/chat/completions, /v1/completions, /v1/models: the deployed model, as OpenAI's clients know it.

Of a body the fields that asking.py names go to the engine as they came; `store` and `metadata` are ours. With `store: true` the
exchange becomes an experience, on disk before the answer (or the stream's last piece) leaves; `x-experience-id` names it, before a
stream begins too, and a chat's own `id` what it is listed under (completions.py). A stream in which the engine fails leaves neither.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Coroutine
from functools import partial
from http import HTTPStatus
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from sqlalchemy import select
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from services import registry
from services.access import Caller
from services.api import views
from services.api.asking import asked, described, only_text
from services.api.shared import ControllerDep, all_lent, needs, of_caller
from services.canary import Kind, Side, canary_key, is_asked
from services.controller import Controller
from services.errors import ASLEEP, Problem, unreadable
from services.exchange import Exchange, said_in
from services.fleet import Body, FleetUnavailable, Reply, Route
from services.settings import Settings
from services.states import ServingState
from services.tables import Deployment, Json
from services.taking_in import Said, take_in

log = logging.getLogger(__name__)
T = TypeVar("T")
router = APIRouter(prefix="/v1", tags=["wake"])
Speaks = Annotated[Caller, needs("inference:write")]
VERSION_HEADER, EXPERIENCE_HEADER, STATUS_HEADER = "x-deployment-version", "x-experience-id", "x-experience-status"
RETRY_SECONDS, ASLEEP_SECONDS = "5", "60"
STREAM_END = "data: [DONE]"
ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "OpenAI's object, or with `stream` its pieces",
        "content": {"application/json": {"schema": {"type": "object"}}, "text/event-stream": {"schema": {"type": "string"}}},
    }
}


@router.post("/chat/completions", openapi_extra=described("chat"), responses=ANSWERS)
async def chat(request: Request, control: ControllerDep, caller: Speaks) -> Response:
    return await _answer(request, control, caller, "chat")


@router.post("/completions", openapi_extra=described("completion"), responses=ANSWERS)
async def completion(request: Request, control: ControllerDep, caller: Speaks) -> Response:
    return await _answer(request, control, caller, "completion")


@router.get("/models")
def models(control: ControllerDep, caller: Speaks) -> views.View:
    with control.database.read() as tx:
        rows = tx.scalars(select(Deployment).where(of_caller(caller, Deployment.id)).order_by(Deployment.number)).all()
        parents = registry.parents(tx, rows)
    return {"object": "list", "data": [_model(row, parents) for row in rows]}


@router.get("/models/{id}")
def model(id: str, control: ControllerDep, caller: Speaks) -> views.View:
    """A deployment as the model that clients ask for. `root` is its base model, `parent` the version that the one that serves came from."""
    with control.database.read() as tx:
        row = tx.scalar(select(Deployment).where(Deployment.name == id, of_caller(caller, Deployment.id)))
        if row is None:
            raise _no_model(id)
        return _model(row, registry.parents(tx, [row]))


def _model(row: Deployment, parents: dict[str, str | None]) -> views.View:
    return {
        "id": row.name,
        "object": "model",
        "created": int(row.created_at),
        "owned_by": "circadian",
        "root": row.base_model["model"],
        "parent": parents.get(row.active_version),
        "version": row.active_version,
    }


async def _answer(request: Request, control: Controller, caller: Caller, route: Route) -> Response:
    body, ours = asked(await _json(request), route, control.settings)
    deployment = await run_in_threadpool(_deployment, control, caller, ours.model)
    # A leader that begins has not looked at the replicas yet, or could not bring them up: those that live go on answering.
    if deployment.state is not ServingState.AWAKE and not await control.fleet.serves(deployment.id):
        nobody = FleetUnavailable(f"deployment {deployment.name} is {deployment.state.value}")
        raise await run_in_threadpool(_why, control, deployment, nobody)
    if ours.store and not caller.may("experiences:write"):
        raise Problem(403, "insufficient_scope", "`store` needs a key with the scope experiences:write.", param="store")
    body["model"] = deployment.name
    exchange = Exchange.of(body, route, ours.metadata) if ours.store else None
    only_text(body)
    if ours.stream:
        return await _stream(control, caller, deployment, route, body, exchange)
    reply = await _whole(request, control, deployment, route, body)
    headers = {VERSION_HEADER: reply.version}
    used = reply.body.get("usage") or {}
    control.traffic.count(deployment.id, used.get("prompt_tokens") or 0, used.get("completion_tokens") or 0)
    if exchange and reply.status == 200:
        answer, told = said_in(reply.body, route), exchange.note(reply.body)
        headers[STATUS_HEADER] = await run_in_threadpool(_store, control, caller, deployment, exchange, answer, reply.version)
        headers[EXPERIENCE_HEADER] = exchange.id
        return JSONResponse(told, reply.status, headers=headers)
    return JSONResponse(reply.body, reply.status, headers=headers)


async def _whole(request: Request, control: Controller, deployment: Deployment, route: Route, body: Body) -> Reply:
    """An answer of the canary's, where there is one and it is this client's turn and it does not fail; else of the active version's."""
    if rollout := _canary(deployment, body):
        watch = _Watch(control, deployment, Kind.WHOLE, Side.CANARY)
        reply = await _tried(_heard(request, control.fleet.answer(canary_key(deployment.id), route, body)), control.settings)
        failed = reply is None or reply.status >= HTTPStatus.INTERNAL_SERVER_ERROR
        control.traffic.count_canary(rollout, failed)
        if reply is not None and not failed:
            watch.stop(reply.status)
            return reply
    watch = _Watch(control, deployment, Kind.WHOLE, Side.ACTIVE)
    try:
        async with asyncio.timeout(control.settings.answer_seconds):
            reply = await _heard(request, control.fleet.answer(deployment.id, route, body))
        watch.stop(reply.status)
        return reply
    except (FleetUnavailable, TimeoutError) as error:
        raise await run_in_threadpool(_why, control, deployment, error) from error


class _Watch:
    """Stops, once, how long a client waits while a canary answers some: what the canary is told beside the active version by."""

    def __init__(self, control: Controller, deployment: Deployment, kind: Kind, side: Side) -> None:
        self._traffic, self._kind, self._side = control.traffic, kind, side
        self._rollout = deployment.canary and str(deployment.canary["rollout"])
        self._began = time.monotonic()

    def stop(self, status: int = HTTPStatus.OK) -> None:
        if self._rollout and status == HTTPStatus.OK:
            self._traffic.count_pace(self._rollout, self._kind, self._side, time.monotonic() - self._began)
        self._rollout = None


def _canary(deployment: Deployment, body: Body) -> str | None:
    """The rollout whose canary is to answer this."""
    canary, client = deployment.canary, body.get("user")
    if canary is None or not is_asked(canary["rollout"], canary["percent"], client if isinstance(client, str) and client else None):
        return None
    return str(canary["rollout"])


async def _tried(answer: Coroutine[Any, Any, T], settings: Settings) -> T | None:
    """What a canary said; None where it said nothing."""
    try:
        async with asyncio.timeout(settings.answer_seconds):
            return await answer
    except (FleetUnavailable, TimeoutError, StopAsyncIteration) as error:
        log.warning("a canary has failed a request: %r", error)
        return None


async def _heard(request: Request, answer: Coroutine[Any, Any, Reply]) -> Reply:
    """The answer; cancelled, and with it the engine's work, when time is up or the client has gone. Raises ClientDisconnect."""
    answering, leaving = asyncio.create_task(answer), asyncio.create_task(_left(request))
    try:
        await asyncio.wait({answering, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not answering.done():
            raise ClientDisconnect
        return answering.result()
    finally:
        answering.cancel()
        leaving.cancel()
        await asyncio.gather(answering, leaving, return_exceptions=True)


async def _left(request: Request) -> None:
    """Returns when the client has gone: after a whole body nothing else can come."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _stream(
    control: Controller, caller: Caller, deployment: Deployment, route: Route, body: Body, exchange: Exchange | None
) -> Response:
    options = body.get("stream_options") or {}
    body["stream_options"] = {**options, "include_usage": True}  # it is counted, and passed on to those who asked
    pieces, head, watch = await _begun(control, deployment, route, body)
    headers = {VERSION_HEADER: head.version}
    if head.status != 200:
        return JSONResponse(head.body, head.status, headers=headers)
    if exchange:
        headers[EXPERIENCE_HEADER] = exchange.id
    return StreamingResponse(
        _pieces(control, caller, deployment, pieces, exchange, head.version, watch, bool(options.get("include_usage"))),
        media_type="text/event-stream",
        headers=headers,
    )


async def _begun(
    control: Controller, deployment: Deployment, route: Route, body: Body
) -> tuple[AsyncIterator[Reply | str], Reply, _Watch]:
    """A stream, its head, and what stops the time until its first piece; of the canary's or of the active version's, as `_whole`."""
    head: Reply | str | None
    if rollout := _canary(deployment, body):
        watch = _Watch(control, deployment, Kind.STREAM, Side.CANARY)
        pieces = control.fleet.stream(canary_key(deployment.id), route, body)
        head = await _tried(_head(pieces), control.settings)
        failed = not isinstance(head, Reply) or head.status >= HTTPStatus.INTERNAL_SERVER_ERROR
        control.traffic.count_canary(rollout, failed)
        if isinstance(head, Reply) and not failed:
            return pieces, head, watch
    pieces, watch = control.fleet.stream(deployment.id, route, body), _Watch(control, deployment, Kind.STREAM, Side.ACTIVE)
    try:
        async with asyncio.timeout(control.settings.answer_seconds):
            head = await anext(pieces)
    except (FleetUnavailable, TimeoutError, StopAsyncIteration) as error:
        raise await run_in_threadpool(_why, control, deployment, error) from error
    assert isinstance(head, Reply)
    return pieces, head, watch


async def _head(pieces: AsyncIterator[Reply | str]) -> Reply | str:
    return await anext(pieces)


async def _pieces(
    control: Controller,
    caller: Caller,
    deployment: Deployment,
    pieces: AsyncIterator[Reply | str],
    exchange: Exchange | None,
    version: str,
    watch: _Watch,
    tells_usage: bool,
) -> AsyncIterator[str]:
    """The engine's pieces, as they are, but for the id of a chat that is to be stored. Stored before the last one leaves; a stream that
    breaks off or tells an error is not stored."""
    control.traffic.count(deployment.id)
    async for piece in pieces:
        watch.stop()
        assert isinstance(piece, str)
        if exchange and piece.startswith(STREAM_END) and not exchange.broken:
            await run_in_threadpool(_store, control, caller, deployment, exchange, "".join(exchange.heard), version)
        elif exchange:
            piece = exchange.hear(piece)
        used = _usage(piece)
        if used is not None:
            control.traffic.count_tokens(deployment.id, used.get("prompt_tokens") or 0, used.get("completion_tokens") or 0)
        if used is None or tells_usage:
            yield piece


def _usage(piece: str) -> Json | None:
    """The tokens that the piece before the end of a stream tells; None for every other piece."""
    return json.loads(piece.removeprefix("data: ")).get("usage") if '"choices":[]' in piece else None


async def _json(request: Request) -> Any:
    try:
        return json.loads(await request.body(), parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise unreadable(error) from error


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _deployment(control: Controller, caller: Caller, model: str) -> Deployment:
    """By name, or as `name@version` where that is the version that serves."""
    name, _, version = model.partition("@")
    with control.database.read() as tx:
        found = tx.scalars(select(Deployment).where(Deployment.name == name, of_caller(caller, Deployment.id))).all()
    if not found:
        raise _no_model(name)
    if version and found[0].active_version != version:
        detail = f"{name} serves {found[0].active_version}, not {version}; ask for that, or promote the other."
        raise Problem(404, "model_not_found", detail, param="model")
    return found[0]


def _no_model(model: str) -> Problem:
    return Problem(404, "model_not_found", f"There is no deployment {model!r}; see GET /v1/models.", param="model")


def _store(control: Controller, caller: Caller, deployment: Deployment, exchange: Exchange, answer: str, version: str) -> str:
    """What became of the exchange: the client has its answer in any case."""
    said = Said(caller.key, subject=exchange.subject)
    listed = partial(exchange.stored, model=deployment.name, version=version)
    return take_in(control, deployment, exchange.experience(answer), said, exchange.metadata, listed).status


def _why(control: Controller, deployment: Deployment, error: BaseException) -> Problem:
    """Nobody answers: because all sleep, or for another reason."""
    with control.database.read() as tx:
        sleep = registry.active_sleep(tx, deployment.id)
    if sleep is None or not all_lent(sleep):
        return _unavailable(error)
    detail = f"{deployment.name} is asleep ({sleep.id}), and all of its replicas with it; ask again later."
    return Problem(503, ASLEEP, detail, headers={"Retry-After": ASLEEP_SECONDS})


def _unavailable(error: BaseException) -> Problem:
    detail = f"No replica answers now: {error or type(error).__name__}"
    return Problem(503, "engine_unavailable", detail, headers={"Retry-After": RETRY_SECONDS})
