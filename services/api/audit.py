"""/v1/audit_events: who did what, append-only."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from services import registry
from services.access import Caller
from services.api import views
from services.api.shared import DEFAULT_LIMIT, After, ControllerDep, Limit, needs
from services.tables import AuditEvent

router = APIRouter(prefix="/v1/audit_events", tags=["audit"])
Reads = Annotated[Caller, needs("audit:read")]


@router.get("")
def list_all(
    control: ControllerDep,
    caller: Reads,
    object: Annotated[str | None, Query(description="id of what was changed")] = None,
    actor: Annotated[str | None, Query(description="id of a key, or `controller`")] = None,
    action: Annotated[str | None, Query(description="for example version_promoted")] = None,
    after: After = None,
    limit: Limit = DEFAULT_LIMIT,
) -> views.View:
    given = ((AuditEvent.object, object), (AuditEvent.actor, actor), (AuditEvent.action, action))
    where = [column == value for column, value in given if value is not None]
    with control.database.read() as tx:
        rows, more = registry.listed(tx, AuditEvent, AuditEvent.tenant == caller.tenant, where, after, limit)
    return views.page([views.audit_event(row) for row in rows], more)
