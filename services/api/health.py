"""Health and identity: the routes that need no key.

    /livez      the process answers; nothing else is asked, and no thread is needed
    /startupz   the schema is one that this release runs on
    /readyz     requests can be answered: the database, its schema and the keys in it, and the tasks in the background

Ray is shown and does not count: sleeps queue until it is back, and all else goes on.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version as package_version
from typing import Any

from fastapi import APIRouter, Response
from sqlalchemy import select, text
from sqlalchemy.exc import SQLAlchemyError

from services.api.shared import ControllerDep
from services.controller import Controller
from services.tables import ApiKey

router = APIRouter(tags=["health"])
OK = "ok"


@router.get("/livez")
async def livez() -> dict[str, str]:
    """Whether the process answers."""
    return {"status": OK}


@router.get("/startupz", responses={503: {"description": "The schema of the database is behind"}})
def startupz(control: ControllerDep, response: Response) -> dict[str, Any]:
    """Whether the database has the schema that this release needs."""
    return _told(response, {"migrations": _asked(lambda: _migrations(control))}, {})


@router.get("/readyz", responses={503: {"description": "Something that every request needs is missing"}})
def readyz(control: ControllerDep, response: Response) -> dict[str, Any]:
    """Whether requests can be answered, with a word on each thing that it depends on. `leads`: whether this controller runs the nights."""
    needed = {
        "database": _asked(lambda: _database(control)),
        "migrations": _asked(lambda: _migrations(control)),
        "keys": _asked(lambda: _keys(control)),
        "tasks": _tasks(control),
    }
    return _told(response, needed, {"ray": control.ray.look()}) | {"leads": control.leader.leads}


@router.get("/version")
def version() -> dict[str, str]:
    """The release that answers."""
    return {"name": "circadian", "version": package_version("circadian")}


def _told(response: Response, needed: dict[str, str], shown: dict[str, str]) -> dict[str, Any]:
    """ok; degraded where only something is missing that no request waits for; else 503."""
    ready = all(check == OK for check in needed.values())
    response.status_code = 200 if ready else 503
    status = "unavailable" if not ready else OK if all(check == OK for check in shown.values()) else "degraded"
    return {"status": status, "checks": needed | shown}


def _asked(question: Callable[[], str]) -> str:
    try:
        return question()
    except SQLAlchemyError as error:
        return f"unavailable: {type(error).__name__}"


def _database(control: Controller) -> str:
    with control.database.read() as tx:
        tx.execute(text("SELECT 1"))
    return OK


def _migrations(control: Controller) -> str:
    return OK if control.database.is_current() else "behind: run `python -m services.migrate`"


def _keys(control: Controller) -> str:
    """Without one that opens anything nobody can ask."""
    with control.database.read() as tx:
        there = tx.scalar(select(ApiKey.id).where(ApiKey.revoked_at.is_(None)).limit(1))
    return OK if there else "none opens anything: start the service with a new CIRCADIAN_API_KEY"


def _tasks(control: Controller) -> str:
    parts = (control.tasks, control.serving.keepers, control.nights.tasks, control.online.loops)
    broken = [name for part in parts for name in part.broken]
    return f"given up: {', '.join(broken)}" if broken else OK
