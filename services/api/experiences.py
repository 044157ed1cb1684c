"""/v1/experiences: what a deployment met while awake. An experience is on disk before its request is answered."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from circadian.experience import Unreadable
from circadian.specs import Experience
from services import registry
from services.access import Caller
from services.api import views
from services.api.schemas import ExperienceCreate
from services.api.shared import DEFAULT_LIMIT, After, ControllerDep, Limit, needs, of_caller, of_deployment, the, the_deployment
from services.controller import Controller
from services.errors import Problem
from services.tables import Deployment, ExperienceRow, new_id

router = APIRouter(prefix="/v1/experiences", tags=["experiences"])
Reads = Annotated[Caller, needs("experiences:read")]
Writes = Annotated[Caller, needs("experiences:write")]


def store(control: Controller, deployment: Deployment, experience: Experience, metadata: dict[str, str]) -> ExperienceRow:
    """Keep an experience; on disk when this returns."""
    try:
        tokens = control.tokens(deployment, experience)
    except Unreadable as error:
        raise Problem(422, "invalid_experience", str(error), param="messages") from error
    row = ExperienceRow(
        id=experience.id,
        deployment=deployment.id,
        body=experience.model_dump(mode="json"),
        source=experience.source,
        tokens=tokens,
        meta=metadata,
    )
    with control.database.write() as tx:
        tx.add(row)
    return row


@router.post("", status_code=201)
def create(body: ExperienceCreate, control: ControllerDep, caller: Writes) -> views.View:
    with control.database.read() as tx:
        deployment = the_deployment(tx, caller, body.deployment)
    experience = Experience(id=new_id("exp"), messages=body.messages, text=body.text, source=body.source, trust=body.trust)
    return views.experience(store(control, deployment, experience, body.metadata))


@router.get("")
def list_all(
    control: ControllerDep,
    caller: Reads,
    deployment: str | None = Query(default=None, description="id or name"),
    after: After = None,
    limit: Limit = DEFAULT_LIMIT,
) -> views.View:
    with control.database.read() as tx:
        where = of_deployment(tx, caller, ExperienceRow.deployment, deployment)
        rows, more = registry.listed(tx, ExperienceRow, of_caller(caller, ExperienceRow.deployment), where, after, limit)
    return views.page([views.experience(row) for row in rows], more)


@router.get("/{id}")
def get(id: str, control: ControllerDep, caller: Reads) -> views.View:
    with control.database.read() as tx:
        return views.experience(the(tx, caller, ExperienceRow, "experience", id))
