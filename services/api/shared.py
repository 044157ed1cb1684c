"""What routes share: the controller, the key, paging."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Query, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from sqlalchemy.orm import Session

from services import registry
from services.api import views
from services.controller import Controller
from services.errors import Problem
from services.states import deployment_state
from services.tables import Deployment, Sleep

_bearer = HTTPBearer(auto_error=False, description="An API key of the service")


def controller(request: Request) -> Controller:
    return request.app.state.controller


ControllerDep = Annotated[Controller, Depends(controller)]


def authenticated(control: ControllerDep, given: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]) -> None:
    """Raises Problem (401) unless the request carries a key of the service."""
    challenge = {"WWW-Authenticate": 'Bearer realm="circadian"'}
    if given is None:
        raise Problem(401, "missing_key", "This route needs a key; send `Authorization: Bearer KEY`.", headers=challenge)
    if not control.keys.valid(given.credentials):
        raise Problem(401, "invalid_key", "This is not a key of this service.", headers=challenge)


After = Annotated[str | None, Query(description="last_id of the page before")]
Limit = Annotated[int, Query(ge=1, le=100)]
DEFAULT_LIMIT = 20


def deployment_view(row: Deployment, sleep: Sleep | None) -> views.View:
    state = deployment_state(row.state, sleep.status if sleep else None, sleep.phase if sleep else None)
    return views.deployment(row, state)


def deployment_filter(tx: Session, id_or_name: str | None) -> str | None:
    """The deployment's id, for a filter that was given as id or name."""
    return registry.deployment(tx, id_or_name).id if id_or_name else None
