"""Health and identity: the routes that need no key."""

from __future__ import annotations

from importlib.metadata import version as package_version
from typing import Any

from fastapi import APIRouter, Response
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from services.api.shared import ControllerDep
from services.controller import Controller

router = APIRouter(tags=["health"])


@router.get("/livez")
def livez() -> dict[str, str]:
    return {"status": "ok"}


@router.get("/readyz")
def readyz(control: ControllerDep, response: Response) -> dict[str, Any]:
    """Ready while the database answers and nothing in the background has died. Ray is shown, and does not count: sleeps queue
    until it is back. `leads`: whether this controller runs the nights (services/leader.py)."""
    checks = {"database": _database(control), "tasks": _tasks(control), "ray": control.ray.look()}
    ready = checks["database"] == checks["tasks"] == "ok"
    response.status_code = 200 if ready else 503
    status = "ok" if all(check == "ok" for check in checks.values()) else "degraded" if ready else "unavailable"
    return {"status": status, "checks": checks, "leads": control.leader.leads}


@router.get("/version")
def version() -> dict[str, str]:
    return {"name": "circadian", "version": package_version("circadian")}


def _database(control: Controller) -> str:
    try:
        with control.database.read() as tx:
            tx.execute(text("SELECT 1"))
    except SQLAlchemyError as error:
        return f"unavailable: {type(error).__name__}"
    return "ok"


def _tasks(control: Controller) -> str:
    parts = (control.tasks, control.serving.keepers, control.nights.tasks, control.online.loops)
    broken = [name for part in parts for name in part.broken]
    return f"given up: {', '.join(broken)}" if broken else "ok"
