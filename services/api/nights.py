"""/v1/deployments/{id}/nights: a deployment's life in one answer, as the page /ui draws it."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from services import registry
from services.access import Caller
from services.api import ui_views, views
from services.api.shared import DEFAULT_LIMIT, After, ControllerDep, Limit, needs, of_caller, the, the_deployment
from services.errors import not_found
from services.tables import Deployment, Event, Sleep, Version

router = APIRouter(prefix="/v1/deployments", tags=["deployments"])
Reads = Annotated[Caller, needs("sleeps:read")]
MOST_VERSIONS = 100
"""That are told at once, the newest: beyond them a forgetting matrix cannot be read any more."""


@router.get("/{id_or_name}/nights")
def nights(
    id_or_name: str,
    control: ControllerDep,
    caller: Reads,
    sleep: Annotated[str | None, Query(description="only this night")] = None,
    version: Annotated[str | None, Query(description="whose experts are told; the active one unless given")] = None,
    after: After = None,
    limit: Limit = DEFAULT_LIMIT,
) -> views.View:
    """Nights, newest first, with what their hypnograms are drawn from; versions, the forgetting matrix and the experts. The last three are
    null for a key without versions:read."""
    with control.database.read() as tx:
        deployment = the_deployment(tx, caller, id_or_name)
        where = [Sleep.deployment == deployment.id, *([Sleep.id == sleep] if sleep else [])]
        rows, more = registry.listed(tx, Sleep, of_caller(caller, Sleep.deployment), where, after, limit)
        if sleep and not rows:
            raise not_found("sleep", sleep)
        told = _events(tx, [row.id for row in rows])
        known = _known(tx, caller, deployment, version) if caller.may("versions:read") else dict.fromkeys(ui_views.OF_VERSIONS)
        named = [row.id for row in rows] + ui_views.nights_in(known)
        numbers = _numbers(tx, deployment.id, named)
    page = views.page([ui_views.night(row, told.get(row.id, [])) for row in rows], more)
    return page | known | {"numbers": numbers, "depths": ui_views.DEPTHS_TOLD, "ray_dashboard": control.settings.linked_dashboard}


def _known(tx: Session, caller: Caller, deployment: Deployment, version: str | None) -> views.View:
    """What a caller may read who may read versions."""
    own = of_caller(caller, Version.deployment)
    rows, _ = registry.listed(tx, Version, own, [Version.deployment == deployment.id], None, MOST_VERSIONS)
    shown = the(tx, caller, Version, "version", version or deployment.active_version)
    if shown.deployment != deployment.id:
        raise not_found("version", shown.id)
    return ui_views.of_versions(rows, shown, deployment)


def _events(tx: Session, sleeps: list[str]) -> dict[str, list[Event]]:
    """Those that a hypnogram shows, of each sleep."""
    found: dict[str, list[Event]] = {}
    where = (Event.sleep.in_(sleeps), Event.type.not_in(ui_views.NOT_DRAWN))
    for event in tx.scalars(select(Event).where(*where).order_by(Event.sleep, Event.seq)):
        found.setdefault(event.sleep, []).append(event)
    return found


def _numbers(tx: Session, deployment: str, sleeps: list[str]) -> dict[str, int]:
    """Which night of the deployment's life each was, from 1 on."""
    counted = select(Sleep.id, func.row_number().over(order_by=Sleep.number).label("nth")).where(Sleep.deployment == deployment)
    all_of_them = counted.subquery()
    rows = tx.execute(select(all_of_them.c.id, all_of_them.c.nth).where(all_of_them.c.id.in_(sleeps)))
    return {id: int(nth) for id, nth in rows}
