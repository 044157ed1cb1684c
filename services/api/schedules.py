"""/v1/schedules: when deployments fall asleep by themselves. What is made of one is in services/schedules/plan.py."""

from __future__ import annotations

import time
from typing import Annotated, Any

from fastapi import APIRouter, Response
from pydantic import ValidationError, model_validator
from sqlalchemy import delete
from starlette.concurrency import run_in_threadpool

from services import allowance, audit, registry, sleeping
from services.access import Caller
from services.api import etags, views
from services.api.etags import IfMatch
from services.api.schemas import Body
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
from services.errors import Problem, faults
from services.metadata import Metadata
from services.schedules.spec import ScheduleSpec
from services.sleep_template import SleepTemplate
from services.sleeping import begin, recipe_of
from services.tables import Deployment, Schedule, ScheduleRun, new_id

router = APIRouter(prefix="/v1/schedules", tags=["schedules"])
Writes = Annotated[Caller, needs("schedules:write")]
SPEC_FIELDS = tuple(ScheduleSpec.model_fields)


class ScheduleCreate(ScheduleSpec):
    deployment: str
    sleep_template: SleepTemplate = SleepTemplate()
    """Of the sleeps that it begins."""
    metadata: Metadata = {}


class SchedulePatch(Body):
    """A merge patch: fields that are given take the place of what was there; null is the field's default."""

    trigger: Any = None
    min_interval_seconds: Any = None
    blackout: Any = None
    concurrency: Any = None
    starting_deadline_seconds: Any = None
    suspend: Any = None
    sleep_template: SleepTemplate | None = None
    metadata: Metadata | None = None

    @model_validator(mode="after")
    def _keeps_a_trigger(self) -> SchedulePatch:
        if "trigger" in self.model_fields_set and self.trigger is None:
            raise ValueError("trigger cannot be taken away; suspend the schedule, or delete it")
        return self


@router.post("", status_code=201)
async def create(body: ScheduleCreate, control: ControllerDep, caller: Writes, response: Response) -> views.View:
    """Let a deployment fall asleep by itself. What its sleeps are asked for is checked as of a sleep that begins now."""
    deployment = await run_in_threadpool(_deployment, control, caller, body.deployment)
    loosened = await _check(control, caller, deployment, body.sleep_template)
    return _told(await run_in_threadpool(_create, control, caller, body, loosened), response)


def _deployment(control: Controller, caller: Caller, id_or_name: str) -> Deployment:
    with control.database.read() as tx:
        return the_deployment(tx, caller, id_or_name)


def _create(control: Controller, caller: Caller, body: ScheduleCreate, loosened: list[str]) -> Schedule:
    with control.database.write() as tx:
        deployment = the_deployment(tx, caller, body.deployment)
        row = Schedule(
            id=new_id("sch"),
            deployment=deployment.id,
            spec=body.model_dump(mode="json", include=set(SPEC_FIELDS)),
            template=body.sleep_template.model_dump(mode="json"),
            owner=caller.key,
            meta=body.metadata,
        )
        tx.add(row)
        tx.flush()
        audit.note(tx, caller, "schedule_created", row.id, deployment=deployment.id, **allowance.told(loosened))
    return row


@router.get("")
def list_all(
    control: ControllerDep, caller: Writes, deployment: str | None = None, after: After = None, limit: Limit = DEFAULT_LIMIT
) -> views.View:
    with control.database.read() as tx:
        where = of_deployment(tx, caller, Schedule.deployment, deployment)
        rows, more = registry.listed(tx, Schedule, of_caller(caller, Schedule.deployment), where, after, limit)
    return views.page([views.schedule(row) for row in rows], more)


@router.get("/{id}")
def get(id: str, control: ControllerDep, caller: Writes, response: Response) -> views.View:
    with control.database.read() as tx:
        return _told(the(tx, caller, Schedule, "schedule", id), response)


@router.patch("/{id}")
async def change(
    id: str,
    body: SchedulePatch,
    control: ControllerDep,
    caller: Writes,
    response: Response,
    if_match: IfMatch = None,
) -> views.View:
    """What was due before the change is not made up for."""
    loosened: list[str] = []
    if body.sleep_template is not None:
        deployment = await run_in_threadpool(_scheduled, control, caller, id)
        loosened = await _check(control, caller, deployment, body.sleep_template)
    return _told(await run_in_threadpool(_change, control, caller, id, body, if_match, loosened), response)


def _scheduled(control: Controller, caller: Caller, id: str) -> Deployment:
    with control.database.read() as tx:
        return registry.deployment(tx, the(tx, caller, Schedule, "schedule", id).deployment)


def _change(control: Controller, caller: Caller, id: str, body: SchedulePatch, if_match: IfMatch, loosened: list[str]) -> Schedule:
    given = {name: getattr(body, name) for name in SPEC_FIELDS if name in body.model_fields_set}
    with control.database.write() as tx:
        row = the(tx, caller, Schedule, "schedule", id)
        etags.unchanged(tx, row, if_match)
        merged = {name: value for name, value in (row.spec | given).items() if value is not None}
        row.spec = _valid(merged).model_dump(mode="json")
        if body.sleep_template is not None:
            row.template = body.sleep_template.model_dump(mode="json")
        row.meta = row.meta if body.metadata is None else body.metadata
        row.revision, row.considered_at = row.revision + 1, time.time()
        audit.note(tx, caller, "schedule_changed", id, fields=sorted(body.model_fields_set), **allowance.told(loosened))
    return row


@router.delete("/{id}", status_code=204)
def remove(id: str, control: ControllerDep, caller: Writes, if_match: IfMatch = None) -> None:
    """Its sleeps go on."""
    with control.database.write() as tx:
        row = the(tx, caller, Schedule, "schedule", id)
        etags.unchanged(tx, row, if_match)
        tx.execute(delete(ScheduleRun).where(ScheduleRun.schedule == row.id))
        tx.delete(row)
        audit.note(tx, caller, "schedule_deleted", id)


@router.post("/{id}/run", status_code=202)
def run(id: str, control: ControllerDep, caller: Writes, response: Response) -> views.View:
    """A sleep now, as the schedule begins them, whatever the clock says."""
    with control.database.write() as tx:
        row = the(tx, caller, Schedule, "schedule", id)
        if not caller.may("sleeps:write"):
            raise Problem(403, "insufficient_scope", "To run a schedule now needs a key with the scope sleeps:write too.")
        sleep = begin(tx, registry.deployment(tx, row.deployment), SleepTemplate.model_validate(row.template))
        audit.note(tx, caller, "sleep_created", sleep.id, deployment=row.deployment, schedule=id)
    control.nights.look()
    response.headers["Location"] = f"/v1/sleeps/{sleep.id}"
    return sleep_view(control, sleep)


@router.get("/{id}/runs")
def runs(id: str, control: ControllerDep, caller: Writes, after: After = None, limit: Limit = DEFAULT_LIMIT) -> views.View:
    """What became of its occurrences: the sleeps that were begun, and why others were not."""
    with control.database.read() as tx:
        where = (ScheduleRun.schedule == the(tx, caller, Schedule, "schedule", id).id,)
        rows, more = registry.listed(tx, ScheduleRun, of_caller(caller, ScheduleRun.deployment), where, after, limit)
    return views.page([views.schedule_run(row) for row in rows], more)


async def _check(control: Controller, caller: Caller, deployment: Deployment, template: SleepTemplate) -> list[str]:
    """Nothing is scheduled that can only fail, or that its owner may not ask for. Returns what it loosens (allowance.py). Raises Problem,
    which names the field of the template."""
    try:
        loosened = await run_in_threadpool(_allowed, control, caller, deployment, template)
        await check_teachers_of(control, deployment, recipe_of(deployment, template))
    except Problem as problem:
        raise problem.within("sleep_template") from problem
    return loosened


def _allowed(control: Controller, caller: Caller, deployment: Deployment, template: SleepTemplate) -> list[str]:
    with control.database.read() as tx:
        loosened = allowance.check(tx, caller, deployment, template)
        sleeping.check(tx, deployment, template)
    return loosened


def _valid(merged: dict[str, Any]) -> ScheduleSpec:
    try:
        return ScheduleSpec.model_validate(merged)
    except ValidationError as error:
        raise faults(error.errors()) from error


def _told(row: Schedule, response: Response) -> views.View:
    response.headers.update(etags.told(row))
    return views.schedule(row)
