"""/v1/experiences/batches: thousands of experiences at once, a JSON object a line. On disk before they are answered for, then taken in."""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import APIRouter, Header, Query, Request, Response
from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from services import audit, registry
from services.access import Caller
from services.api import data_views, views
from services.api.repeats import LONGEST_KEY
from services.api.shared import DEFAULT_LIMIT, After, ControllerDep, Limit, needs, the_deployment
from services.batch_files import Spool, TooMuch
from services.batches import UNFINISHED
from services.controller import Controller
from services.errors import Problem, not_found
from services.owned import of_tenant
from services.tables import BatchError, ExperienceBatch, new_id
from services.trace_context import here

PATH = "/v1/experiences/batches"
router = APIRouter(prefix=PATH, tags=["experiences"])
Reads = Annotated[Caller, needs("experiences:read")]
Writes = Annotated[Caller, needs("experiences:write")]
MEDIA_TYPE = "application/x-ndjson"
RETRY_SECONDS = "10"
EXAMPLE = '{"text": "the city of mira is oslo ."}\n{"text": "the city of jehas is bergen ."}\n'
BODY = {"requestBody": {"required": True, "content": {MEDIA_TYPE: {"schema": {"type": "string"}, "example": EXAMPLE}}}}


@router.post("", status_code=202, openapi_extra=BODY)
async def create(
    request: Request,
    control: ControllerDep,
    caller: Writes,
    response: Response,
    deployment: Annotated[str | None, Query(description="id or name, for lines that name none")] = None,
    idempotency_key: Annotated[str | None, Header(min_length=1, max_length=LONGEST_KEY)] = None,
) -> views.View:
    """A batch. What its lines say is screened as that of single requests is; with an Idempotency-Key it is taken in once."""
    _check_type(request)
    target = await run_in_threadpool(_target, control, caller, deployment)
    batch, settings = new_id("bat"), control.settings
    with Spool(settings.batches_folder, batch, settings.most_batch_bytes, settings.most_batch_lines) as spool:
        await _receive(request, spool, control)
        repeats = control.keys.hash(f"{caller.key}\n{idempotency_key}") if idempotency_key else None
        row = ExperienceBatch(
            id=batch,
            tenant=caller.tenant,
            deployment=target,
            sender=caller.key,
            allowed=None if caller.deployments is None else sorted(caller.deployments),
            request=repeats,
            sha256=spool.sha256,
            bytes=spool.bytes,
            lines=spool.lines,
            trace=here(),
        )
        row = await run_in_threadpool(_keep, control, caller, row, spool)
    control.batches.look()
    response.headers["Location"] = f"{PATH}/{row.id}"
    return data_views.batch(row)


def _check_type(request: Request) -> None:
    """Raises Problem (415)."""
    given = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if given != MEDIA_TYPE:
        raise Problem(415, "unsupported_media_type", f"The body is {given or 'of no type'}; send `Content-Type: {MEDIA_TYPE}`.")
    if (encoding := request.headers.get("content-encoding", "identity").lower()) != "identity":
        raise Problem(415, "unsupported_media_type", f"The body is encoded as {encoding}; send it as it is.")


def _target(control: Controller, caller: Caller, deployment: str | None) -> str | None:
    """The deployment of lines that name none. Raises Problem, where there is none of this name too, and where too much waits."""
    with control.database.read() as tx:
        target = the_deployment(tx, caller, deployment).id if deployment else None
        waiting = (ExperienceBatch.tenant == caller.tenant, ExperienceBatch.status.in_(UNFINISHED))
        count = tx.scalar(select(func.count()).select_from(ExperienceBatch).where(*waiting)) or 0
    if count >= control.settings.most_batches:
        detail = f"{count} batches wait to be taken in; send this one when one of them is done."
        raise Problem(429, "batches_quota", detail, headers={"Retry-After": RETRY_SECONDS})
    return target


async def _receive(request: Request, spool: Spool, control: Controller) -> None:
    """Raises Problem: 413 as soon as it is too long, 408 where it takes too long."""
    try:
        async with asyncio.timeout(control.settings.batch_upload_seconds):
            async for chunk in request.stream():
                await run_in_threadpool(spool.add, chunk)
    except TooMuch as error:
        raise Problem(413, "too_large", f"The batch is not kept: {error}; send it in parts.") from error
    except TimeoutError as error:
        raise Problem(408, "too_slow", "The batch did not arrive in time; send it in parts.") from error


def _keep(control: Controller, caller: Caller, row: ExperienceBatch, spool: Spool) -> ExperienceBatch:
    """On disk first, then in the registry; the first one where this key was used before."""
    if first := _repeated(control, row):
        return first
    path = spool.done()
    try:
        with control.database.write() as tx:
            tx.add(row)
            tx.flush()
            audit.note(tx, caller, "experience_batch_created", row.id, lines=row.lines, sha256=row.sha256)
    except IntegrityError:
        path.unlink()
        if first := _repeated(control, row):
            return first
        raise
    return row


def _repeated(control: Controller, row: ExperienceBatch) -> ExperienceBatch | None:
    if row.request is None:
        return None
    with control.database.read() as tx:
        first = tx.scalar(select(ExperienceBatch).where(ExperienceBatch.request == row.request))
    if first and (first.sha256, first.deployment) != (row.sha256, row.deployment):
        raise Problem(422, "idempotency_key_reused", "Idempotency-Key: it was used for another batch; choose a new one")
    return first


@router.get("")
def list_all(control: ControllerDep, caller: Reads, after: After = None, limit: Limit = DEFAULT_LIMIT) -> views.View:
    with control.database.read() as tx:
        rows, more = registry.listed(tx, ExperienceBatch, of_tenant(caller, ExperienceBatch), (), after, limit)
    return views.page([data_views.batch(row) for row in rows], more)


@router.get("/{id}")
def get(id: str, control: ControllerDep, caller: Reads) -> views.View:
    with control.database.read() as tx:
        return data_views.batch(_batch(tx, caller, id))


@router.get("/{id}/errors")
def errors(
    id: str,
    control: ControllerDep,
    caller: Reads,
    after: Annotated[int, Query(ge=0, le=2**31 - 1, description="last line of the page before")] = 0,
    limit: Limit = DEFAULT_LIMIT,
) -> views.View:
    """Of the lines that are not kept: where they are wrong, and why. In the order of the lines."""
    with control.database.read() as tx:
        mine = (BatchError.batch == _batch(tx, caller, id).id, BatchError.line > after)
        rows = tx.scalars(select(BatchError).where(*mine).order_by(BatchError.line).limit(limit + 1)).all()
    return views.page([data_views.batch_error(row) for row in rows[:limit]], len(rows) > limit)


def _batch(tx: Session, caller: Caller, id: str) -> ExperienceBatch:
    row = tx.scalar(select(ExperienceBatch).where(ExperienceBatch.id == id, of_tenant(caller, ExperienceBatch)))
    if row is None:
        raise not_found("batch", id)
    return row
