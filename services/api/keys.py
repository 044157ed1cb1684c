"""/v1/api_keys: who may do what. A key is shown once, when it is made; then only its prefix."""

from __future__ import annotations

import time
from typing import Annotated

from fastapi import APIRouter, Response
from pydantic import Field
from sqlalchemy import select
from sqlalchemy.orm import Session

from services import audit, registry
from services.access import Caller, Scope, beyond
from services.api import etags, views
from services.api.schemas import Body
from services.api.shared import DEFAULT_LIMIT, After, ControllerDep, Limit, needs, the_deployment
from services.errors import Problem, at_fault, not_found
from services.keys import generated
from services.metadata import Metadata
from services.tables import ApiKey

router = APIRouter(prefix="/v1/api_keys", tags=["api keys"])
Admin = Annotated[Caller, needs("keys:admin")]
MOST_SECONDS = 10 * 365 * 86_400
TenantName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]


class KeyCreate(Body):
    name: Annotated[str, Field(min_length=1, max_length=128)]
    scopes: Annotated[tuple[Scope, ...], Field(min_length=1)]
    """No more than the key has that makes it."""
    deployments: tuple[str, ...] | None = None
    """Ids or names it may touch; all of its tenant unless given."""
    requests_per_minute: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    expires_in_seconds: Annotated[int, Field(ge=1, le=MOST_SECONDS)] | None = None
    tenant: TenantName | None = None
    """Another one than the caller's, whose key needs tenants:admin for that."""
    metadata: Metadata = {}


@router.post("", status_code=201)
def create(body: KeyCreate, control: ControllerDep, caller: Admin) -> views.View:
    """The answer's `key` is shown this once."""
    tenant = body.tenant or caller.tenant
    if tenant != caller.tenant and not caller.may("tenants:admin"):
        raise Problem(
            403, "insufficient_scope", "A key of another tenant needs a key with the scope tenants:admin.", param="tenant"
        )
    key = generated()
    with control.database.write() as tx:
        ids = _deployments(tx, caller, body, tenant)
        row = control.keys.row(key, body.name, tenant, body.scopes)
        row.deployments, row.requests_per_minute, row.created_by = ids, body.requests_per_minute, caller.key
        row.expires_at = time.time() + body.expires_in_seconds if body.expires_in_seconds else None
        row.meta = body.metadata
        tx.add(row)
        audit.note(tx, caller, "key_created", row.id, name=row.name, scopes=row.scopes, deployments=ids, of=tenant)
    return views.api_key(row) | {"key": key}


def _deployments(tx: Session, caller: Caller, body: KeyCreate, tenant: str) -> list[str] | None:
    """Ids of those it may touch. Raises Problem where that is more than its maker may."""
    if body.deployments and tenant != caller.tenant:
        raise at_fault(["deployments"], "leave them out for a key of another tenant, whose deployments are not yours to name")
    ids = None if body.deployments is None else [the_deployment(tx, caller, name).id for name in body.deployments]
    if why := beyond(caller, frozenset(body.scopes), None if ids is None else frozenset(ids)):
        raise Problem(403, "insufficient_scope", why, param=why.split(":")[0])
    return ids


@router.get("")
def list_all(control: ControllerDep, caller: Admin, after: After = None, limit: Limit = DEFAULT_LIMIT) -> views.View:
    with control.database.read() as tx:
        rows, more = registry.listed(tx, ApiKey, ApiKey.tenant == caller.tenant, (), after, limit)
    return views.page([views.api_key(row) for row in rows], more)


@router.get("/{id}")
def get(id: str, control: ControllerDep, caller: Admin, response: Response) -> views.View:
    with control.database.read() as tx:
        row = _key(tx, caller, id)
    response.headers.update(etags.told(row))
    return views.api_key(row)


@router.delete("/{id}", status_code=200)
def revoke(id: str, control: ControllerDep, caller: Admin) -> views.View:
    """It opens nothing from now on; repeating it is harmless."""
    with control.database.write() as tx:
        row = _key(tx, caller, id)
        if row.revoked_at is None:
            row.revoked_at = time.time()
            audit.note(tx, caller, "key_revoked", id)
    return views.api_key(row)


@router.post("/{id}/rotate", status_code=201)
def rotate(id: str, control: ControllerDep, caller: Admin) -> views.View:
    """A new key that may do what this one may, which opens nothing from now on."""
    key = generated()
    with control.database.write() as tx:
        old = _key(tx, caller, id)
        if old.revoked_at is not None:
            raise Problem(409, "key_revoked", f"{id} is revoked; make a new key.")
        if why := beyond(caller, frozenset(old.scopes), None if old.deployments is None else frozenset(old.deployments)):
            raise Problem(403, "insufficient_scope", why)
        row = control.keys.row(key, old.name, old.tenant, tuple(old.scopes))
        row.deployments, row.requests_per_minute, row.expires_at = old.deployments, old.requests_per_minute, old.expires_at
        row.created_by, row.meta, old.revoked_at = caller.key, old.meta, time.time()
        tx.add(row)
        audit.note(tx, caller, "key_rotated", id, new=row.id)
    return views.api_key(row) | {"key": key}


def _key(tx: Session, caller: Caller, id: str) -> ApiKey:
    row = tx.scalar(select(ApiKey).where(ApiKey.id == id, ApiKey.tenant == caller.tenant))
    if row is None:
        raise not_found("api_key", id)
    return row
