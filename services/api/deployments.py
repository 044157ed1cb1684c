"""/v1/deployments: a model, its memory and its replicas under one name."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Response
from pydantic import ValidationError
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from starlette.concurrency import run_in_threadpool

from circadian.specs import VersionRecord
from services import audit, fast_registry, promotion, registry
from services.access import Caller
from services.api import etags, views
from services.api.changing import COLUMNS, MERGE_PATCH, Changed, DeploymentPatch, merged
from services.api.etags import IfMatch
from services.api.schemas import DeploymentCreate
from services.api.shared import (
    DEFAULT_LIMIT,
    After,
    ControllerDep,
    Limit,
    all_lent,
    deployment_view,
    needs,
    of_caller,
    state_of,
    the_deployment,
)
from services.controller import Controller
from services.errors import Problem, faults
from services.fleet import ServingSpec
from services.online import period
from services.outside import check_model, check_recipe
from services.states import ServingState, deployment_state
from services.tables import Deployment, FastMemory, new_id

router = APIRouter(prefix="/v1/deployments", tags=["deployments"])
Reads = Annotated[Caller, needs("deployments:read")]
Admin = Annotated[Caller, needs("deployments:admin")]


@router.post("", status_code=201)
async def create(body: DeploymentCreate, control: ControllerDep, caller: Admin, response: Response) -> views.View:
    """Found a deployment and start its replicas in the background."""
    await run_in_threadpool(_check, control, caller, body)
    deployment_id, version_id = new_id("dep"), new_id("ver")
    folder = control.settings.version_folder(deployment_id, version_id)
    try:
        record = await control.workshop.found(body.base_model, body.memory, folder)
        row = await run_in_threadpool(_insert, control, caller, body, deployment_id, record, folder)
    except (Problem, IntegrityError) as error:  # after any other the row may be there, so its folder stays
        await run_in_threadpool(shutil.rmtree, control.settings.deployment_folder(deployment_id), ignore_errors=True)
        if isinstance(error, IntegrityError):  # another request took the name since we looked
            raise _name_taken(body.name) from error
        raise
    control.begin(row)
    response.headers.update({"Location": f"/v1/deployments/{row.id}"} | etags.told(row))
    return views.deployment(row, deployment_state(row.state, None, None))


def _check(control: Controller, caller: Caller, body: DeploymentCreate) -> None:
    """What can be known before the model is looked into. Raises Problem."""
    if caller.deployments is not None:
        raise Problem(403, "deployment_not_allowed", "This key is for some deployments; make new ones with a key for all.")
    with control.database.read() as tx:
        if tx.scalar(select(Deployment.id).where(Deployment.tenant == caller.tenant, Deployment.name == body.name)):
            raise _name_taken(body.name)
    check_model(control.settings, body.base_model.model, "base_model.model")
    check_recipe(control.settings, body.recipe)


def _insert(
    control: Controller,
    caller: Caller,
    body: DeploymentCreate,
    deployment_id: str,
    record: VersionRecord,
    folder: Path,
) -> Deployment:
    signature = control.signing.sign(folder)
    row = Deployment(
        id=deployment_id,
        tenant=caller.tenant,
        name=body.name,
        base_model=record.base.model_dump(),
        memory=body.memory.model_dump(mode="json"),
        recipe=body.recipe.model_dump(mode="json"),
        serving=body.serving.model_dump(),
        screening=body.screening.model_dump(mode="json"),
        promotion=body.promotion.model_dump(mode="json"),
        retention=body.retention.model_dump(),
        active_version=record.id,
        fast=FastMemory(version=record.id) if body.wake == "online" else None,
        meta=body.metadata,
    )
    with control.database.write() as tx:
        tx.add(row)
        tx.flush()
        registry.add_version(tx, deployment_id, record, str(folder), "active", None, signature=signature)
        audit.note(tx, caller, "deployment_created", deployment_id, name=body.name, base_model=row.base_model)
    return row


def _name_taken(name: str) -> Problem:
    return Problem(409, "name_taken", f"There is a deployment {name!r} already; choose another name.", param="name")


@router.get("")
def list_all(control: ControllerDep, caller: Reads, after: After = None, limit: Limit = DEFAULT_LIMIT) -> views.View:
    with control.database.read() as tx:
        rows, more = registry.listed(tx, Deployment, of_caller(caller, Deployment.id, deleting=True), (), after, limit)
        return views.page([deployment_view(tx, row) for row in rows], more)


@router.get("/{id_or_name}")
def get(id_or_name: str, control: ControllerDep, caller: Reads, response: Response) -> views.View:
    with control.database.read() as tx:
        row = the_deployment(tx, caller, id_or_name, deleting=True)
        response.headers.update(etags.told(row))
        return deployment_view(tx, row)


@router.patch("/{id_or_name}", openapi_extra=MERGE_PATCH)
def change(
    id_or_name: str, body: DeploymentPatch, control: ControllerDep, caller: Admin, response: Response, if_match: IfMatch = None
) -> views.View:
    """A merge patch (RFC 7396): what is given takes the place of what was there, field by field; null is the default.

    Replicas are brought to a changed `serving` in the background; while a night or a rollout is under way it is refused, because that
    counts on them. A changed recipe is for the sleeps that begin from then on.
    """
    with control.database.write() as tx:
        row = the_deployment(tx, caller, id_or_name)
        etags.unchanged(tx, row, if_match)
        registry.held(tx, row.id)
        now = {name: getattr(row, COLUMNS.get(name, name)) for name in Changed.model_fields}
        after = _valid(merged(now, body.model_dump(exclude_unset=True)))
        check_recipe(control.settings, after.recipe)
        if after.serving != ServingSpec.model_validate(row.serving):
            promotion.check_free(tx, row)
        for name, value in after.model_dump(mode="json").items():
            setattr(row, COLUMNS.get(name, name), value)
        audit.note(tx, caller, "deployment_changed", row.id, fields=sorted(body.model_fields_set))
        response.headers.update(etags.told(row))
        return deployment_view(tx, row)


def _valid(document: dict[str, Any]) -> Changed:
    try:
        return Changed.model_validate(document)
    except ValidationError as error:
        raise faults(error.errors()) from error


@router.delete("/{id_or_name}", status_code=202)
def remove(id_or_name: str, control: ControllerDep, caller: Admin, response: Response, if_match: IfMatch = None) -> views.View:
    """All of it: replicas, experiences, nights, versions, schedules. From this answer on it is found under its own path alone, where its
    state is `deleting`. Its name is free when its replicas have ended; by its id it is found until nothing of it is left on disk.
    Repeating it is harmless."""
    with control.database.write() as tx:
        row = the_deployment(tx, caller, id_or_name, deleting=True)
        etags.unchanged(tx, row, if_match)
        if row.deleting_at is None:
            promotion.check_free(tx, row)
            row.deleting_at = time.time()
            audit.note(tx, caller, "deployment_deleted", row.id, name=row.name)
        response.headers["Location"] = f"/v1/deployments/{row.id}"
        view = deployment_view(tx, row)
    control.deletions.look()
    return view


@router.get("/{id_or_name}/status")
async def status(id_or_name: str, control: ControllerDep, caller: Reads) -> dict[str, Any]:
    """What the deployment is doing now. `accepting_requests`: a chat would reach a replica, as far as is known."""
    row, accepts, view = await run_in_threadpool(_status, control, caller, id_or_name)
    # As in a chat: while nobody has looked at the replicas, those that live answer.
    there = row.state is ServingState.AWAKE or (accepts and await control.fleet.serves(row.id))
    return view | {"accepting_requests": accepts and there}


def _status(control: Controller, caller: Caller, id_or_name: str) -> tuple[Deployment, bool, views.View]:
    """The deployment, whether nothing in the registry keeps it from answering, and what is told of it."""
    with control.database.read() as tx:
        row = the_deployment(tx, caller, id_or_name, deleting=True)
        sleep, last = registry.active_sleep(tx, row.id), registry.last_sleep(tx, row.id)
        experiences, tokens = registry.pending(tx, row.id)
        waiting = fast_registry.waiting_tokens(tx, row.id) if row.fast else 0
        rollout, next_at = promotion.running_rollout(tx, row.id), registry.next_scheduled(tx, row.id)
    view = {
        "object": "deployment.status",
        "deployment": row.id,
        "state": state_of(row, sleep),
        "active_version": row.active_version,
        "candidate_version": rollout.to_version if rollout and rollout.canary else None,
        "current_sleep": sleep.id if sleep else None,
        "waiting": sleep.waiting if sleep else None,
        "pending": {"experiences": experiences, "tokens": tokens},
        "wake": views.wake_mode(row),
        "fast_memory": views.fast_memory(row.fast, period(row), waiting) if row.fast else None,
        "last_sleep": last.id if last else None,
        "next_sleep_at": next_at,
        "error": row.error,
    }
    return row, row.deleting_at is None and not all_lent(sleep), view
