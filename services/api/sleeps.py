"""/v1/sleeps: nights of a deployment. (Not vLLM's `/sleep`, which frees GPU memory: that verb is never passed on.)"""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Header, Query, Request, Response
from pydantic_core import to_json
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session
from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.concurrency import run_in_threadpool

from services import allowance, audit, dreams, dry_run, registry
from services.access import Caller
from services.api import views
from services.api.etags import known, not_modified, tag_of
from services.api.schemas import SleepCreate
from services.api.shared import (
    DEFAULT_LIMIT,
    After,
    ControllerDep,
    Limit,
    check_teachers_of,
    needs,
    of_caller,
    of_deployment,
    sleep_view,
    the,
    the_deployment,
)
from services.controller import Controller
from services.errors import Problem
from services.sleeping import begin, in_progress, recipe_of
from services.states import SleepStatus
from services.tables import Deployment, Event, Sleep

router = APIRouter(prefix="/v1/sleeps", tags=["sleeps"])
Reads = Annotated[Caller, needs("sleeps:read")]
Writes = Annotated[Caller, needs("sleeps:write")]
RETRY_MILLISECONDS = 3000
"""After which a client whose event stream broke comes back."""
LAST_SEQ = 2**31 - 1
"""No event has a number beyond it, and PostgreSQL cannot look for one in a column of such."""
NEWER = ("selection", "budget", "dry_run", "parent_version")
"""Fields that requests of earlier releases did not have."""
LAST = ("deployment", "gates", "id")
"""Fields that stand behind the others in what is digested, because they once did in the class."""
MOST_EVENTS = 1000
"""In one JSON list of events; the rest by `after_seq`."""


@router.post("", status_code=202)
async def create(body: SleepCreate, control: ControllerDep, caller: Writes, response: Response) -> views.View:
    """Begin a night; it goes on when this has returned. Repeated with the same `id` it returns the first sleep. With `dry_run` it says
    what the night would do and cost, and nothing is begun."""
    await _check_teachers(control, caller, body)
    if body.dry_run:
        response.status_code = 200
        return await run_in_threadpool(_dry_run, control, caller, body)
    row = await run_in_threadpool(_create, control, caller, body)
    control.nights.look()
    response.headers["Location"] = f"/v1/sleeps/{row.id}"
    return sleep_view(control, row)


def _dry_run(control: Controller, caller: Caller, body: SleepCreate) -> views.View:
    with control.database.read() as tx:
        deployment = the_deployment(tx, caller, body.deployment)
        allowance.check(tx, caller, deployment, body)
        known_now = dry_run.looked_ahead(tx, deployment, body)
        _check_parent(deployment, body)
    return dry_run.plan(control.settings, deployment, body, *known_now)


def _create(control: Controller, caller: Caller, body: SleepCreate) -> Sleep:
    digest = _digest(body)
    try:
        with control.database.write() as tx:
            return _repeated(tx, caller, body, digest) or _insert(tx, caller, body, digest)
    except IntegrityError as error:
        # The database refuses a second active sleep, and a second one of this id; on SQLite `_insert` has seen it before.
        with control.database.read() as tx:
            if row := _repeated(tx, caller, body, digest):
                return row
        raise in_progress(body.deployment, "another sleep") from error


def _digest(body: SleepCreate) -> str:
    """Of a request; what it does not ask for is not in it, so that a later release, which knows more to ask for, finds the same."""
    asked = body.model_dump(mode="json", exclude={name for name in NEWER if name not in body.model_fields_set})
    in_order = {name: asked.pop(name) for name in LAST}
    return hashlib.sha256(to_json(asked | in_order)).hexdigest()


async def _check_teachers(control: Controller, caller: Caller, body: SleepCreate) -> None:
    """Models are looked into, and perhaps fetched: before the transaction, and not for a sleep that is there already."""
    if (deployment := await run_in_threadpool(_new_sleeps, control, caller, body)) is not None:
        await check_teachers_of(control, deployment, recipe_of(deployment, body))


def _new_sleeps(control: Controller, caller: Caller, body: SleepCreate) -> Deployment | None:
    """The deployment of a sleep that is not there yet."""
    with control.database.read() as tx:
        if body.id and tx.scalar(select(Sleep.id).where(Sleep.id == body.id)):
            return None
        return the_deployment(tx, caller, body.deployment)


def _repeated(tx: Session, caller: Caller, body: SleepCreate, digest: str) -> Sleep | None:
    row = tx.scalar(select(Sleep).where(Sleep.id == body.id)) if body.id else None
    own = row and tx.scalar(select(Sleep.id).where(Sleep.id == row.id, of_caller(caller, Sleep.deployment)))
    if row and (row.request_sha256 != digest or not own):
        raise Problem(422, "idempotency_key_reused", f"id: {body.id} was used for another request; choose a new id", param="id")
    return row


def _insert(tx: Session, caller: Caller, body: SleepCreate, digest: str) -> Sleep:
    deployment = registry.held(tx, the_deployment(tx, caller, body.deployment).id)
    loosened = allowance.check(tx, caller, deployment, body)
    row = begin(tx, deployment, body, id=body.id, digest=digest)
    _check_parent(deployment, body)
    audit.note(tx, caller, "sleep_created", row.id, deployment=row.deployment, **allowance.told(loosened))
    return row


def _check_parent(deployment: Deployment, body: SleepCreate) -> None:
    """Raises Problem (412) where another version serves than the one that the night was asked to go on from."""
    if body.parent_version is not None and deployment.active_version != body.parent_version:
        detail = (
            f"parent_version: {deployment.name} serves {deployment.active_version}, not {body.parent_version}, and a night goes on from "
            "what serves; name that one, leave the field out, or bring the other back first (rollback)"
        )
        raise Problem(412, "etag_mismatch", detail, param="parent_version")


@router.get("")
def list_all(
    control: ControllerDep,
    caller: Reads,
    deployment: Annotated[str | None, Query(description="id or name")] = None,
    status: SleepStatus | None = None,
    after: After = None,
    limit: Limit = DEFAULT_LIMIT,
) -> views.View:
    with control.database.read() as tx:
        where = [*of_deployment(tx, caller, Sleep.deployment, deployment), *([Sleep.status == status] if status else [])]
        rows, more = registry.listed(tx, Sleep, of_caller(caller, Sleep.deployment), where, after, limit)
    return views.page([sleep_view(control, row) for row in rows], more)


@router.get("/{id}", response_model=None)
async def get(
    id: str,
    control: ControllerDep,
    caller: Reads,
    response: Response,
    wait: Annotated[float, Query(ge=0.0, allow_inf_nan=False)] = 0.0,
    if_none_match: Annotated[str | None, Header()] = None,
) -> views.View | Response:
    """The sleep; with `wait` as soon as it has ended, or after that many seconds. With `If-None-Match` as soon as it says something
    new, and 304 where it does not."""
    longest = control.settings.longest_wait_seconds
    if wait > longest:
        raise Problem(422, "validation_failed", f"wait: at most {longest:g} seconds; ask again after that", param="wait")
    deadline = time.monotonic() + wait
    while True:
        row = await run_in_threadpool(_sleep, control, caller, id)
        view = sleep_view(control, row)
        tag, over = tag_of(view), row.status.terminal or time.monotonic() >= deadline
        if not known(tag, if_none_match) and (over or if_none_match is not None):
            response.headers["ETag"] = tag
            return view
        if over:
            return not_modified(tag)
        await asyncio.sleep(min(control.settings.poll_seconds, max(0.0, deadline - time.monotonic())))


@router.get("/{id}/dreams")
def dreamt(
    id: str,
    control: ControllerDep,
    caller: Reads,
    round: Annotated[str | None, Query(description="0, 1, ... or final")] = None,
    rewarded: Annotated[bool | None, Query(description="those that made their instance better, or the others")] = None,
    after: After = None,
    limit: Limit = DEFAULT_LIMIT,
) -> views.View:
    """What the night has dreamt so far: of what, with what gradient, and what became of it. Empty where it does not dream."""
    found = dreams.dreams(_home(control, caller, id))
    asked = [
        dream
        for dream in found
        if (round is None or dream["round"] == round) and (rewarded is None or bool(dream["rewarded"]) == rewarded)
    ]
    ids = [dream["id"] for dream in asked]
    if after is not None and after not in ids:
        raise Problem(
            422, "validation_failed", f"after: {after} is none of these dreams; give the last_id of the page before", param="after"
        )
    start = ids.index(after) + 1 if after is not None else 0
    return views.page([{"object": "dream"} | dream for dream in asked[start : start + limit]], len(asked) > start + limit)


@router.get("/{id}/curriculum")
def curriculum(id: str, control: ControllerDep, caller: Reads) -> views.View:
    """Where every context stood in every round of dreams, and which were dreamt of."""
    lines = dreams.curriculum(_home(control, caller, id))
    return views.page([{"object": "dream.context", "id": f"{line['round']}/{line['context']}"} | line for line in lines], False)


@router.get(
    "/{id}/events", response_model=None, responses={200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}}}
)
def events(
    id: str,
    request: Request,
    control: ControllerDep,
    caller: Reads,
    after_seq: Annotated[int, Query(ge=0, le=LAST_SEQ)] = 0,
    stream: bool = False,
    last_event_id: Annotated[int | None, Header(ge=0, le=LAST_SEQ)] = None,
) -> views.View | EventSourceResponse:
    """The sleep's events as a list, or (`Accept: text/event-stream`) as they happen, from `Last-Event-ID` or `after_seq` on."""
    _sleep(control, caller, id)
    after = max(after_seq, last_event_id or 0)
    if stream or "text/event-stream" in request.headers.get("accept", ""):
        return EventSourceResponse(_follow(control, caller, id, after), ping=control.settings.heartbeat_seconds, sep="\n")
    with control.database.read() as tx:
        rows = registry.events(tx, id, after, MOST_EVENTS + 1)
    return views.page([registry.told(row) for row in rows[:MOST_EVENTS]], len(rows) > MOST_EVENTS)


async def _follow(control: Controller, caller: Caller, id: str, after: int) -> AsyncIterator[ServerSentEvent]:
    """Consumes the events table; produces each event once, in order, then `done`; waits for the next poll; ends with the sleep."""
    while True:
        # The status first: a sleep seen as ended has all its events in the table already.
        ended = (await run_in_threadpool(_sleep, control, caller, id)).status.terminal
        rows = await run_in_threadpool(_events, control, id, after)
        for row in rows:
            after = row.seq
            data = json.dumps(registry.told(row))
            yield ServerSentEvent(data=data, event=row.type, id=str(row.seq), retry=RETRY_MILLISECONDS, sep="\n")
        if ended and not rows:
            yield ServerSentEvent(data="{}", event="done", sep="\n")
            return
        if not rows:
            await asyncio.sleep(control.settings.poll_seconds)


def _events(control: Controller, id: str, after: int) -> list[Event]:
    with control.database.read() as tx:
        return registry.events(tx, id, after, MOST_EVENTS)


def _home(control: Controller, caller: Caller, id: str) -> Path:
    return control.nights.home(_sleep(control, caller, id))


def _sleep(control: Controller, caller: Caller, id: str) -> Sleep:
    with control.database.read() as tx:
        return the(tx, caller, Sleep, "sleep", id)
