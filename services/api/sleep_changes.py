"""/v1/sleeps/{id}/...: what an operator does about a sleep that was begun (services/interventions.py)."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Response
from pydantic import Field
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from services import audit, interventions, registry
from services.access import Caller
from services.api import views
from services.api.schemas import Body
from services.api.shared import ControllerDep, needs, sleep_view, the
from services.controller import Controller
from services.interventions import CancelMode, From, PauseMode
from services.sleeping import in_progress
from services.tables import Sleep

router = APIRouter(prefix="/v1/sleeps", tags=["sleeps"])
Writes = Annotated[Caller, needs("sleeps:write")]


class Cancel(Body):
    mode: CancelMode = "immediate"
    """`checkpoint`: its job is stopped when the next stage is sealed or the next checkpoint is saved, so that a retry loses nothing."""


class Pause(Body):
    checkpoint: PauseMode = "save"
    """`save`: it stops when the next stage is sealed or the next checkpoint is saved. `latest`: at once, and goes on from the last one."""


class Retry(Body):
    begin: Annotated[From, Field(alias="from")] = "last_checkpoint"
    """`start`: nothing of what the night did before is used."""


def _locked(caller: Caller, tx: Session, id: str) -> Sleep:
    """The caller's sleep, held until the transaction ends."""
    the(tx, caller, Sleep, "sleep", id)
    return registry.locked_sleep(tx, id)


@router.post("/{id}/cancel", status_code=202)
def cancel(id: str, control: ControllerDep, caller: Writes, response: Response, body: Cancel | None = None) -> views.View:
    """Stop a night; its deployment goes on as the version that fell asleep. Repeating it is harmless."""
    with control.database.write() as tx:
        row = _locked(caller, tx, id)
        if row.status.terminal:
            response.status_code = 200
        elif interventions.cancel(tx, row, (body or Cancel()).mode, control.settings):
            audit.note(tx, caller, "sleep_cancelled", row.id)
    return sleep_view(control, row)


@router.post("/{id}/pause", status_code=202)
def pause(id: str, control: ControllerDep, caller: Writes, body: Pause | None = None) -> views.View:
    """Let a night stand still: `pausing`, then `paused`. Its GPUs are free; its deployment serves as before. Repeating it is harmless."""
    with control.database.write() as tx:
        row = _locked(caller, tx, id)
        if interventions.pause(tx, row, (body or Pause()).checkpoint, control.settings):
            audit.note(tx, caller, "sleep_paused", row.id)
    return sleep_view(control, row)


@router.post("/{id}/resume", status_code=202)
def resume(id: str, control: ControllerDep, caller: Writes) -> views.View:
    """Let a paused night go on, as the next attempt, from what is sealed."""
    with control.database.write() as tx:
        row = _locked(caller, tx, id)
        if interventions.resume(tx, row):
            audit.note(tx, caller, "sleep_resumed", row.id)
    return sleep_view(control, row)


@router.post("/{id}/retry", status_code=202)
async def retry(id: str, control: ControllerDep, caller: Writes, body: Retry | None = None) -> views.View:
    """Try a sleep again that failed or was cancelled: the same one, as the next attempt."""
    row = await run_in_threadpool(_retry, control, caller, id, (body or Retry()).begin)
    control.nights.look()
    return sleep_view(control, row)


def _retry(control: Controller, caller: Caller, id: str, begin: From) -> Sleep:
    try:
        with control.database.write() as tx:
            row = _locked(caller, tx, id)
            if interventions.retry(tx, row, begin, control.nights.home(row)):
                audit.note(tx, caller, "sleep_retried", row.id)
            return row
    except IntegrityError as error:  # another sleep began since we looked: the database refuses a second active one
        with control.database.read() as tx:
            raise in_progress(registry.one(tx, Sleep, "sleep", id).deployment, "another sleep") from error
