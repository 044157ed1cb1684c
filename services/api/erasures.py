"""/v1/erasures: somebody, or something, is to be forgotten. What that takes is done in the background, and told here."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from fastapi import APIRouter, Query, Response
from pydantic import Field, model_validator
from sqlalchemy import select
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from services import audit, registry
from services.access import Caller
from services.api import data_views, views
from services.api.schemas import Body
from services.api.shared import DEFAULT_LIMIT, After, ControllerDep, Limit, needs, the_deployment
from services.controller import Controller
from services.errors import Problem, not_found
from services.metadata import Metadata, ShortText
from services.owned import of_caller, of_tenant
from services.tables import Erasure, ExperienceRow, new_id

router = APIRouter(prefix="/v1/erasures", tags=["erasures"])
Admin = Annotated[Caller, needs("deployments:admin")]
MOST_EXPERIENCES = 1000


class ErasureCreate(Body):
    """A subject, or experiences by their ids: exactly one of the two."""

    deployment: str | None = None
    """Id or name; all that the key may touch unless given."""
    subject_id: ShortText | None = None
    """Everything that is about it, as its experiences were sent (`subject_id`, or `user` of a chat)."""
    experience_ids: Annotated[tuple[ShortText, ...], Field(max_length=MOST_EXPERIENCES)] = ()
    mode: Literal["delete", "delete_and_retrain"] = "delete"
    """`delete`: what versions had learned beside it waits for the next night; `delete_and_retrain`: that night begins at once."""
    metadata: Metadata = {}

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if (self.subject_id is None) == (not self.experience_ids):
            raise ValueError("give either subject_id or experience_ids, not both and not neither")
        return self


@router.post("", status_code=202)
async def create(body: ErasureCreate, control: ControllerDep, caller: Admin, response: Response) -> views.View:
    """Done in the background, also where versions have to be revoked and the deployment has to go back to an older one."""
    row = await run_in_threadpool(_create, control, caller, body)
    control.erasures.look()
    response.headers["Location"] = f"/v1/erasures/{row.id}"
    return data_views.erasure(row)


def _create(control: Controller, caller: Caller, body: ErasureCreate) -> Erasure:
    with control.database.write() as tx:
        row = Erasure(
            id=new_id("ers"),
            tenant=caller.tenant,
            deployment=the_deployment(tx, caller, body.deployment).id if body.deployment else None,
            subject=body.subject_id,
            experiences=_known(tx, caller, body),
            mode=body.mode,
            sender=caller.key,
            allowed=None if caller.deployments is None else sorted(caller.deployments),
            meta=body.metadata,
        )
        tx.add(row)
        tx.flush()
        # Not the subject: what is in this log is never deleted.
        audit.note(tx, caller, "erasure_created", row.id, mode=row.mode)
    return row


def _known(tx: Session, caller: Caller, body: ErasureCreate) -> list[str]:
    """Raises Problem (404) for an id that is none of the caller's, (422) for one of another deployment than is named."""
    ids = list(dict.fromkeys(body.experience_ids))
    own = (ExperienceRow.id.in_(ids), of_caller(caller, ExperienceRow.deployment))
    found = {row.id: row.deployment for row in tx.execute(select(ExperienceRow.id, ExperienceRow.deployment).where(*own))}
    if missing := [id for id in ids if id not in found]:
        raise not_found("experience", missing[0])
    named = the_deployment(tx, caller, body.deployment).id if body.deployment else None
    if elsewhere := [id for id in ids if named is not None and found[id] != named]:
        detail = f"experience_ids: {elsewhere[0]} is of another deployment; leave out `deployment`, or this id"
        raise Problem(422, "validation_failed", detail, param="experience_ids")
    return ids


@router.get("")
def list_all(
    control: ControllerDep,
    caller: Admin,
    status: Annotated[Literal["queued", "running", "succeeded"] | None, Query()] = None,
    after: After = None,
    limit: Limit = DEFAULT_LIMIT,
) -> views.View:
    with control.database.read() as tx:
        where = [Erasure.status == status] if status else []
        rows, more = registry.listed(tx, Erasure, of_tenant(caller, Erasure), where, after, limit)
    return views.page([data_views.erasure(row) for row in rows], more)


@router.get("/{id}")
def get(id: str, control: ControllerDep, caller: Admin) -> views.View:
    with control.database.read() as tx:
        row = tx.scalar(select(Erasure).where(Erasure.id == id, of_tenant(caller, Erasure)))
    if row is None:
        raise not_found("erasure", id)
    return data_views.erasure(row)
