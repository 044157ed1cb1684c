"""/v1/chat/completions[/{id}]: chats that were stored (`store: true`), in the shapes of OpenAI's clients.

What one says is what its experience says, so it is redacted, and is gone with it (expired, erased, or forgotten by DELETE). One whose
experience is in quarantine can be read; `experience_status` says so. One that screening refused is not stored at all: the answer's
`x-experience-status` told that.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from sqlalchemy.orm import Session

from services import audit, registry
from services.access import Caller
from services.api import data_views, views
from services.api.experiences import the_free_one
from services.api.filters import METADATA_PARAMETER, MetadataFilter, with_metadata
from services.api.schemas import Body
from services.api.shared import DEFAULT_LIMIT, After, ControllerDep, Limit, needs, of_caller, the
from services.completions import describe, experience_of, experiences_of
from services.errors import Problem
from services.forgetting import forget
from services.metadata import Metadata
from services.tables import ExperienceRow, StoredCompletion

router = APIRouter(prefix="/v1/chat/completions", tags=["wake"])
Reads = Annotated[Caller, needs("experiences:read")]
Writes = Annotated[Caller, needs("experiences:write")]
Order = Literal["asc", "desc"]


class CompletionUpdate(Body):
    metadata: Metadata | None
    """Takes the place of what was there; null: none."""


@router.get("", openapi_extra=METADATA_PARAMETER)
def list_all(
    control: ControllerDep,
    caller: Reads,
    metadata: MetadataFilter,
    model: Annotated[str | None, Query(description="as it was asked for")] = None,
    order: Order = "asc",
    after: After = None,
    limit: Limit = DEFAULT_LIMIT,
) -> views.View:
    with control.database.read() as tx:
        where = with_metadata(tx, StoredCompletion.meta, metadata) + ([StoredCompletion.model == model] if model else [])
        own = of_caller(caller, StoredCompletion.deployment)
        rows, more = registry.listed(tx, StoredCompletion, own, where, after, limit, oldest_first=order == "asc")
        found = experiences_of(tx, rows)
    return views.page([data_views.completion(row, found[row.experience]) for row in rows], more)


@router.get("/{id}")
def get(id: str, control: ControllerDep, caller: Reads) -> views.View:
    with control.database.read() as tx:
        return data_views.completion(*_stored(tx, caller, id))


@router.get("/{id}/messages")
def messages(
    id: str, control: ControllerDep, caller: Reads, order: Order = "asc", after: After = None, limit: Limit = DEFAULT_LIMIT
) -> views.View:
    """What the model was asked."""
    with control.database.read() as tx:
        said: list[dict[str, Any]] = data_views.completion_messages(*_stored(tx, caller, id))
    ordered = said if order == "asc" else said[::-1]
    ids = [message["id"] for message in ordered]
    if after is not None and after not in ids:
        raise Problem(400, "bad_cursor", f"after: there is no message {after!r}; use last_id of the page before", param="after")
    start = ids.index(after) + 1 if after is not None else 0
    return views.page(ordered[start : start + limit], len(ordered) > start + limit)


@router.post("/{id}")
def update(id: str, body: CompletionUpdate, control: ControllerDep, caller: Writes) -> views.View:
    """Its metadata: nothing else of it can be changed."""
    with control.database.write() as tx:
        row, experience = _stored(tx, caller, id)
        describe(tx, row, body.metadata or {})
        audit.note(tx, caller, "completion_changed", id, fields=["metadata"])
        return data_views.completion(row, experience)


@router.delete("/{id}")
def remove(id: str, control: ControllerDep, caller: Writes) -> views.View:
    """The chat and its experience, where no version and no night holds that (409): then it is erased (POST /v1/erasures)."""
    with control.database.write() as tx:
        row, experience = _stored(tx, caller, id)
        forget(tx, the_free_one(tx, caller, experience.id))
        audit.note(tx, caller, "completion_deleted", id, experience=row.experience)
    return {"id": id, "object": "chat.completion.deleted", "deleted": True}


def _stored(tx: Session, caller: Caller, id: str) -> tuple[StoredCompletion, ExperienceRow]:
    row = the(tx, caller, StoredCompletion, "completion", id)
    return row, experience_of(tx, row)
