"""/v1/versions: the states a deployed model has been in."""

from __future__ import annotations

from fastapi import APIRouter, Query

from services import registry
from services.api import views
from services.api.shared import DEFAULT_LIMIT, After, ControllerDep, Limit, deployment_filter
from services.tables import Version

router = APIRouter(prefix="/v1/versions", tags=["versions"])


@router.get("")
def list_all(
    control: ControllerDep,
    deployment: str | None = Query(default=None, description="id or name"),
    after: After = None,
    limit: Limit = DEFAULT_LIMIT,
) -> views.View:
    with control.database.read() as tx:
        of = deployment_filter(tx, deployment)
        rows, more = registry.listed(tx, Version, (Version.deployment == of,) if of else (), after, limit)
    return views.page([views.version(row) for row in rows], more)


@router.get("/{id}")
def get(id: str, control: ControllerDep) -> views.View:
    with control.database.read() as tx:
        return views.version(registry.one(tx, Version, "version", id))
