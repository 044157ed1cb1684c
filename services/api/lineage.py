"""Which versions keep an experience, and which experiences a version keeps. A version keeps what its ancestors do."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter

from services import registry
from services.access import Caller
from services.api import views
from services.api.shared import DEFAULT_LIMIT, After, ControllerDep, Limit, needs, of_caller, the
from services.lineage import keepers, kept_by
from services.tables import ExperienceRow, Version

router = APIRouter(prefix="/v1", tags=["lineage"])
Reads = Annotated[Caller, needs("experiences:read")]


@router.get("/experiences/{id}/versions")
def versions(id: str, control: ControllerDep, caller: Reads, after: After = None, limit: Limit = DEFAULT_LIMIT) -> views.View:
    """Newest first: those that came of the version whose night brought it in, and that one."""
    with control.database.read() as tx:
        row = the(tx, caller, ExperienceRow, "experience", id)
        where = [Version.id.in_(keepers(tx, row.deployment, ExperienceRow.id == id))]
        rows, more = registry.listed(tx, Version, of_caller(caller, Version.deployment), where, after, limit)
    return views.page([views.version(row) for row in rows], more)


@router.get("/versions/{id}/experiences")
def experiences(id: str, control: ControllerDep, caller: Reads, after: After = None, limit: Limit = DEFAULT_LIMIT) -> views.View:
    """Newest first; the `version` of each is the one whose night brought it in."""
    with control.database.read() as tx:
        where = [kept_by(tx, the(tx, caller, Version, "version", id))]
        rows, more = registry.listed(tx, ExperienceRow, of_caller(caller, ExperienceRow.deployment), where, after, limit)
    return views.page([views.experience(row) for row in rows], more)
