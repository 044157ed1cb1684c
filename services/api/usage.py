"""/v1/usage: what deployments were asked, by day."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from sqlalchemy import select

from services import traffic
from services.access import Caller
from services.api import views
from services.api.shared import ControllerDep, needs, of_caller, of_deployment
from services.tables import Deployment

router = APIRouter(prefix="/v1/usage", tags=["usage"])
Reads = Annotated[Caller, needs("deployments:read")]
DAY_SECONDS = 86_400


@router.get("")
def usage(
    control: ControllerDep,
    caller: Reads,
    deployment: str | None = None,
    days: Annotated[int, Query(ge=1, le=366)] = 30,
) -> views.View:
    """Requests and tokens by deployment and day (UTC), the latest first."""
    with control.database.read() as tx:
        where = of_deployment(tx, caller, Deployment.id, deployment)
        ids = list(tx.scalars(select(Deployment.id).where(of_caller(caller, Deployment.id), *where)))
        found = traffic.by_day(tx, ids, days)
    data = [{"object": "usage.day", **row, "day": row["day"] * DAY_SECONDS} for row in found]
    return {"object": "list", "data": data, "has_more": False}
