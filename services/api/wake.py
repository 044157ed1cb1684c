"""/v1/chat/completions, /v1/completions, /v1/models: the deployed model, as OpenAI's clients know it.

Of a body the fields that asking.py names go to the engine as they came; `store` and `metadata` are ours. With `store: true` the
exchange becomes an experience, on disk before the answer (or the stream's last piece) leaves; `x-experience-id` names it, before a
stream begins too, and a chat's own `id` what it is listed under (completions.py). A stream in which the engine fails leaves neither.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Coroutine
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from sqlalchemy import select
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from services.access import Caller
from services.api import views
from services.api.asking import asked
from services.api.exchange import Exchange, said_in
from services.api.shared import ControllerDep, needs, of_caller
from services.controller import Controller
from services.errors import Problem, unreadable
from services.fleet import Body, FleetUnavailable, Reply, Route
from services.states import ServingState
from services.tables import Deployment
from services.taking_in import Said, take_in

router = APIRouter(prefix="/v1", tags=["wake"])
Speaks = Annotated[Caller, needs("inference:write")]
VERSION_HEADER, EXPERIENCE_HEADER, STATUS_HEADER = "x-deployment-version", "x-experience-id", "x-experience-status"
RETRY_SECONDS = "5"
STREAM_END = "data: [DONE]"


@router.post("/chat/completions")
async def chat(request: Request, control: ControllerDep, caller: Speaks) -> Response:
    return await _answer(request, control, caller, "chat")


@router.post("/completions")
async def completion(request: Request, control: ControllerDep, caller: Speaks) -> Response:
    return await _answer(request, control, caller, "completion")


@router.get("/models")
def models(control: ControllerDep, caller: Speaks) -> views.View:
    with control.database.read() as tx:
        rows = tx.scalars(select(Deployment).where(of_caller(caller, Deployment.id)).order_by(Deployment.number)).all()
    return {"object": "list", "data": [_model(row) for row in rows]}


def _model(row: Deployment) -> views.View:
    return {
        "id": row.name,
        "object": "model",
        "created": int(row.created_at),
        "owned_by": "circadian",
        "root": row.base_model["model"],
        "parent": None,
        "version": row.active_version,
    }


async def _answer(request: Request, control: Controller, caller: Caller, route: Route) -> Response:
    body, ours = asked(await _json(request), route, control.settings)
    deployment = await run_in_threadpool(_deployment, control, caller, ours.model)
    if ours.store and not caller.may("experiences:write"):
        raise Problem(403, "insufficient_scope", "`store` needs a key with the scope experiences:write.", param="store")
    exchange = Exchange.of(body, route, ours.metadata) if ours.store else None
    if ours.stream:
        return await _stream(control, caller, deployment, route, body, exchange)
    try:
        async with asyncio.timeout(control.settings.answer_seconds):
            reply = await _heard(request, control.fleet.answer(deployment.name, route, body))
    except (FleetUnavailable, TimeoutError) as error:
        raise _unavailable(error) from error
    headers = {VERSION_HEADER: reply.version}
    used = reply.body.get("usage") or {}
    control.traffic.count(deployment.id, used.get("prompt_tokens") or 0, used.get("completion_tokens") or 0)
    if exchange and reply.status == 200:
        answer, told = said_in(reply.body, route), exchange.note(reply.body)
        headers[STATUS_HEADER] = await run_in_threadpool(_store, control, caller, deployment, exchange, answer, reply.version)
        headers[EXPERIENCE_HEADER] = exchange.id
        return JSONResponse(told, reply.status, headers=headers)
    return JSONResponse(reply.body, reply.status, headers=headers)


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
    pieces = control.fleet.stream(deployment.name, route, body)
    try:
        async with asyncio.timeout(control.settings.answer_seconds):
            head = await anext(pieces)
    except (FleetUnavailable, TimeoutError, StopAsyncIteration) as error:
        raise _unavailable(error) from error
    assert isinstance(head, Reply)
    headers = {VERSION_HEADER: head.version}
    if head.status != 200:
        return JSONResponse(head.body, head.status, headers=headers)
    if exchange:
        headers[EXPERIENCE_HEADER] = exchange.id
    return StreamingResponse(
        _pieces(control, caller, deployment, pieces, exchange, head.version), media_type="text/event-stream", headers=headers
    )


async def _pieces(
    control: Controller,
    caller: Caller,
    deployment: Deployment,
    pieces: AsyncIterator[Reply | str],
    exchange: Exchange | None,
    version: str,
) -> AsyncIterator[str]:
    """The engine's pieces, as they are, but for the id of a chat that is to be stored. Stored before the last one leaves; a stream that
    breaks off or tells an error is not stored."""
    control.traffic.count(deployment.id)
    async for piece in pieces:
        assert isinstance(piece, str)
        if exchange and piece.startswith(STREAM_END) and not exchange.broken:
            await run_in_threadpool(_store, control, caller, deployment, exchange, "".join(exchange.heard), version)
        elif exchange:
            piece = exchange.hear(piece)
        yield piece


async def _json(request: Request) -> Any:
    try:
        return json.loads(await request.body(), parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise unreadable(error) from error


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _deployment(control: Controller, caller: Caller, model: str) -> Deployment:
    with control.database.read() as tx:
        found = tx.scalars(select(Deployment).where(Deployment.name == model, of_caller(caller, Deployment.id))).all()
    if not found:
        raise Problem(404, "model_not_found", f"There is no deployment {model!r}; see GET /v1/models.", param="model")
    if found[0].state is not ServingState.AWAKE:
        raise _unavailable(FleetUnavailable(f"deployment {found[0].name} is {found[0].state.value}"))
    return found[0]


def _store(control: Controller, caller: Caller, deployment: Deployment, exchange: Exchange, answer: str, version: str) -> str:
    """What became of the exchange: the client has its answer in any case."""
    said = Said(caller.key, subject=exchange.subject)
    listed = partial(exchange.stored, model=deployment.name, version=version)
    return take_in(control, deployment, exchange.experience(answer), said, exchange.metadata, listed).status


def _unavailable(error: BaseException) -> Problem:
    detail = f"No replica answers now: {error or type(error).__name__}"
    return Problem(503, "engine_unavailable", detail, headers={"Retry-After": RETRY_SECONDS})
