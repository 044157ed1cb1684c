"""Health and identity: the routes that need no key."""

from __future__ import annotations

from importlib.metadata import version as package_version
from typing import Any

import httpx
from fastapi import APIRouter, Response
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from services.api.shared import ControllerDep
from services.controller import Controller

router = APIRouter(tags=["health"])
RAY_ANSWER_SECONDS = 2.0
"""A probe must answer soon, whatever the cluster does."""


@router.get("/livez")
def livez() -> dict[str, str]:
    return {"status": "ok"}


@router.get("/readyz")
def readyz(control: ControllerDep, response: Response) -> dict[str, Any]:
    """Ready while the database answers. Ray is shown, and does not count: sleeps queue until it is back."""
    checks = {"database": _database(control), "ray": _ray(control)}
    ready = checks["database"] == "ok"
    response.status_code = 200 if ready else 503
    return {"status": "ok" if all(c == "ok" for c in checks.values()) else "degraded" if ready else "unavailable", "checks": checks}


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


def _ray(control: Controller) -> str:
    try:
        # Any answer will do: whether we may ask it things is shown where we do.
        httpx.get(f"{control.settings.ray_dashboard}/api/version", timeout=RAY_ANSWER_SECONDS)
    except httpx.HTTPError as error:
        return f"unavailable: {type(error).__name__}"
    return "ok"
