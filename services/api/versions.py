"""/v1/versions: the states a deployed model has been in."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from services import registry
from services.access import Caller
from services.api import views
from services.api.shared import DEFAULT_LIMIT, After, ControllerDep, Limit, needs, of_caller, of_deployment, the
from services.tables import Version

router = APIRouter(prefix="/v1/versions", tags=["versions"])
Reads = Annotated[Caller, needs("versions:read")]


@router.get("")
def list_all(
    control: ControllerDep,
    caller: Reads,
    deployment: str | None = Query(default=None, description="id or name"),
    after: After = None,
    limit: Limit = DEFAULT_LIMIT,
) -> views.View:
    with control.database.read() as tx:
        where = of_deployment(tx, caller, Version.deployment, deployment)
        rows, more = registry.listed(tx, Version, of_caller(caller, Version.deployment), where, after, limit)
    return views.page([views.version(row) for row in rows], more)


@router.get("/{id}")
def get(id: str, control: ControllerDep, caller: Reads) -> views.View:
    with control.database.read() as tx:
        return views.version(the(tx, caller, Version, "version", id))
