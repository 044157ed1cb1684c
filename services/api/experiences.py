"""/v1/experiences: what a deployment met while awake. An experience is on disk before its request is answered."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from fastapi import APIRouter, Query, Response
from pydantic import Field, model_validator
from sqlalchemy.orm import Session

from services import audit, registry
from services.access import Caller
from services.api import views
from services.api.filters import METADATA_PARAMETER, MetadataFilter, with_metadata, with_status
from services.api.schemas import Body
from services.api.shared import (
    DEFAULT_LIMIT,
    After,
    ControllerDep,
    Limit,
    held,
    needs,
    of_caller,
    of_deployment,
    the,
    the_deployment,
)
from services.batches import said_by
from services.controller import Controller
from services.errors import Problem
from services.forgetting import forget, present
from services.metadata import Metadata
from services.offered import MOST_SECONDS, ExperienceCreate
from services.tables import ExperienceRow, Feedback, new_id
from services.taking_in import QUARANTINED, take_in, tell_quarantined

router = APIRouter(prefix="/v1/experiences", tags=["experiences"])
Reads = Annotated[Caller, needs("experiences:read")]
Writes = Annotated[Caller, needs("experiences:write")]
Admin = Annotated[Caller, needs("deployments:admin")]
Status = Literal["pending", "quarantined", "consolidated", "left_out", "expired", "erased"]
Source = Literal["wake", "import", "human", "tool"]


@router.post("", status_code=201)
def create(body: ExperienceCreate, control: ControllerDep, caller: Writes, response: Response) -> views.View:
    """Screened, and on disk before this answers. 200 and the first one where its `dedupe_key` was sent before."""
    with control.database.read() as tx:
        deployment = the_deployment(tx, caller, body.deployment)
    taken = take_in(control, deployment, *said_by(body, caller.key), body.metadata)
    if taken.row is None:
        raise taken.problem()
    response.status_code = 200 if taken.status == "repeated" else 201
    return views.experience(taken.row)


@router.get("", openapi_extra=METADATA_PARAMETER)
def list_all(
    control: ControllerDep,
    caller: Reads,
    metadata: MetadataFilter,
    deployment: str | None = Query(default=None, description="id or name"),
    status: Status | None = None,
    source: Source | None = None,
    subject_id: Annotated[str | None, Query(max_length=256)] = None,
    created_after: Annotated[float | None, Query(ge=0.0, le=MOST_SECONDS, description="Unix seconds")] = None,
    after: After = None,
    limit: Limit = DEFAULT_LIMIT,
) -> views.View:
    with control.database.read() as tx:
        where = of_deployment(tx, caller, ExperienceRow.deployment, deployment) + with_metadata(tx, ExperienceRow.meta, metadata)
        where += [with_status(status)] if status else []
        where += [ExperienceRow.created_at > created_after] if created_after is not None else []
        same = ((ExperienceRow.source, source), (ExperienceRow.subject, subject_id))
        where += [column == value for column, value in same if value is not None]
        rows, more = registry.listed(tx, ExperienceRow, of_caller(caller, ExperienceRow.deployment), where, after, limit)
    return views.page([views.experience(row) for row in rows], more)


@router.get("/{id}")
def get(id: str, control: ControllerDep, caller: Reads) -> views.View:
    with control.database.read() as tx:
        return views.experience(the(tx, caller, ExperienceRow, "experience", id))


class Why(Body):
    reason: Annotated[str, Field(min_length=1, max_length=1024)]


class FeedbackCreate(Body):
    """At least one of the three."""

    reward: Annotated[float, Field(ge=-1.0, le=1.0)] | None = None
    label: Annotated[str, Field(min_length=1, max_length=64)] | None = None
    comment: Annotated[str, Field(min_length=1, max_length=4096)] | None = None
    metadata: Metadata = {}

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if self.reward is None and self.label is None and self.comment is None:
            raise ValueError("say something: give a reward (-1 to 1), a label or a comment")
        return self


@router.post("/{id}/feedback")
def feedback(id: str, body: FeedbackCreate, control: ControllerDep, caller: Writes) -> views.View:
    with control.database.write() as tx:
        present(the(tx, caller, ExperienceRow, "experience", id))
        told = {"reward": body.reward, "label": body.label, "comment": body.comment}
        row = Feedback(id=new_id("fbk"), experience=id, given_by=caller.key, meta=body.metadata, **told)
        tx.add(row)
    return views.feedback(row)


@router.post("/{id}/quarantine")
def quarantine(id: str, body: Why, control: ControllerDep, caller: Admin) -> views.View:
    """No night takes it until it is released. One that a night has taken goes on in that night."""
    return _moved(control, caller, id, "quarantined", body.reason)


@router.post("/{id}/release")
def release(id: str, body: Why, control: ControllerDep, caller: Admin) -> views.View:
    """The next night may take it, whatever screening found."""
    return _moved(control, caller, id, "pending", body.reason)


def _moved(control: Controller, caller: Caller, id: str, status: str, reason: str) -> views.View:
    with control.database.write() as tx:
        row = present(held(tx, the(tx, caller, ExperienceRow, "experience", id)))
        if row.consolidated_in is not None:
            raise Problem(409, "already_consolidated", f"{id} is in {row.consolidated_in}; roll that version back, or erase it.")
        if row.status != status:
            row.status = status
            row.reasons = [*row.reasons, {"code": "by_hand", "detail": reason}] if status == "quarantined" else row.reasons
            audit.note(tx, caller, f"experience_{'quarantined' if status == 'quarantined' else 'released'}", id, reason=reason)
            if status == QUARANTINED:
                tell_quarantined(tx, registry.deployment(tx, row.deployment), [row])
    return views.experience(row)


@router.delete("/{id}", status_code=204)
def remove(id: str, control: ControllerDep, caller: Writes) -> None:
    """One that no version holds yet, with the chat that it was. What a version holds is erased from it (POST /v1/erasures)."""
    with control.database.write() as tx:
        forget(tx, the_free_one(tx, caller, id))
        audit.note(tx, caller, "experience_deleted", id)


def the_free_one(tx: Session, caller: Caller, id: str) -> ExperienceRow:
    """One that can go by itself. Raises Problem (409) where it cannot."""
    row = held(tx, the(tx, caller, ExperienceRow, "experience", id))
    if holder := row.consolidated_in or row.sleep:
        detail = f"{id} is in {holder}; what a version or a night holds is not deleted by itself: POST /v1/erasures takes it out."
        raise Problem(409, "already_consolidated", detail)
    return row
