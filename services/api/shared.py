"""What routes share: the controller, the caller and what it may touch, paging."""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

from fastapi import Depends, Query, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from sqlalchemy import ColumnElement, select
from sqlalchemy.orm import InstrumentedAttribute, Session

from circadian.specs import Recipe
from services import registry
from services.access import Caller, Scope
from services.api import views
from services.controller import Controller
from services.errors import Problem, not_found
from services.keys import Refused
from services.outside import check_recipe
from services.owned import of_caller, the_deployment
from services.states import DeploymentState, deployment_state
from services.tables import Deployment, Row, Sleep

_bearer = HTTPBearer(auto_error=False, description="An API key of the service")
CHALLENGE = {"WWW-Authenticate": 'Bearer realm="circadian"'}


def controller(request: Request) -> Controller:
    return request.app.state.controller


ControllerDep = Annotated[Controller, Depends(controller)]


def authenticated(
    request: Request, control: ControllerDep, given: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]
) -> Caller:
    """Who asks. Raises Problem: 401 without a key of the service, 429 where it asks too often."""
    if given is None:
        raise Problem(401, "missing_key", "This route needs a key; send `Authorization: Bearer KEY`.", headers=CHALLENGE)
    caller = control.keys.caller(given.credentials, getattr(request.state, "request_id", ""))
    if isinstance(caller, Refused):
        raise Problem(401, caller.code, caller.detail, headers=CHALLENGE)
    if rate := control.rates.count(caller):
        request.state.rate_headers = rate.headers()
        if not rate.allowed:
            detail = f"This key may ask {rate.limit} times a minute; try again in {rate.seconds} s."
            raise Problem(429, "requests", detail, headers=rate.headers())
    return caller


def needs(scope: Scope) -> Any:
    """The caller, where its key has this scope. Raises Problem (403)."""

    def allowed(caller: Annotated[Caller, Depends(authenticated)]) -> Caller:
        if not caller.may(scope):
            raise Problem(403, "insufficient_scope", f"This route needs a key with the scope {scope}.")
        return caller

    return Depends(allowed)


After = Annotated[str | None, Query(description="last_id of the page before")]
Limit = Annotated[int, Query(ge=1, le=100)]
DEFAULT_LIMIT = 20


R = TypeVar("R")
Object = TypeVar("Object", bound=Row)


def the(tx: Session, caller: Caller, table: type[R], kind: str, id: str) -> R:
    """The caller's object with this id; of other tenants nothing is found. Raises Problem (404)."""
    owned: Any = table
    row = tx.scalar(select(owned).where(owned.id == id, of_caller(caller, owned.deployment)))
    if row is None:
        raise not_found(kind, id)
    return row


def held(tx: Session, row: Object) -> Object:
    """The object as it is now, held until the transaction ends. Raises Problem (404) where it has gone meanwhile."""
    table: Any = type(row)
    statement = select(table).where(table.number == row.number).with_for_update(of=table, key_share=True)
    now = tx.scalar(statement.execution_options(populate_existing=True))
    if now is None:
        raise not_found("object", row.id)
    return now


def of_deployment(
    tx: Session, caller: Caller, column: InstrumentedAttribute[str], id_or_name: str | None
) -> list[ColumnElement[bool]]:
    """A filter for one deployment, where one was named."""
    return [column == the_deployment(tx, caller, id_or_name).id] if id_or_name else []


def deployment_view(tx: Session, row: Deployment) -> views.View:
    return views.deployment(row, state_of(row, registry.active_sleep(tx, row.id)))


def sleep_view(control: Controller, row: Sleep) -> views.View:
    # That of a night's own cluster goes with it.
    return views.sleep(row, None if control.settings.night_cluster_file else control.settings.linked_dashboard)


def all_lent(sleep: Sleep | None) -> bool:
    """Whether a deployment's night, the active one, has all of its replicas' room, so that none answers."""
    return sleep is not None and sleep.lent and sleep.placed is not None and sleep.placed["serving"] == 0


def state_of(row: Deployment, sleep: Sleep | None) -> DeploymentState:
    """What a deployment is doing, with its active sleep."""
    if row.deleting_at is not None:
        return DeploymentState.DELETING
    return deployment_state(row.state, sleep.status if sleep else None, sleep.phase if sleep else None)


async def check_teachers_of(control: Controller, deployment: Deployment, recipe: Recipe) -> None:
    """Those that a sleep of this recipe would have now, after what the operator allows. Raises Problem: 422 names the field and the remedy,
    503 says that nobody has looked at them."""
    check_recipe(control.settings, recipe)
    version = control.settings.version_folder(deployment.id, deployment.active_version)
    await control.workshop.check_teachers(version, recipe)
