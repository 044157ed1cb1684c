"""/v1/versions, /v1/rollouts and a deployment's rollback: the states a deployed model has been in, and which of them serves."""

from __future__ import annotations

import shutil
from typing import Annotated, Any

from fastapi import APIRouter, Query, Response
from pydantic import Field
from sqlalchemy import select

from circadian.specs import CanarySpec
from services import audit, promotion, registry, versions
from services.access import Caller
from services.api import views
from services.api.schemas import Body
from services.api.shared import DEFAULT_LIMIT, After, ControllerDep, Limit, needs, of_caller, of_deployment, the, the_deployment
from services.controller import Controller
from services.errors import Problem
from services.tables import Rollout, Version

router = APIRouter(prefix="/v1", tags=["versions"])
Reads = Annotated[Caller, needs("versions:read")]
Promotes = Annotated[Caller, needs("versions:promote")]
Admin = Annotated[Caller, needs("deployments:admin")]
Reason = Annotated[str, Field(min_length=1, max_length=1000)]
Named = Annotated[str | None, Query(description="id or name")]


class Promote(Body):
    canary: CanarySpec | None = None
    """Give it a share of the clients first; without this all are answered by it at once."""
    expected_active_version: str | None = None
    """Promote only if this version is the active one."""
    override_gates: bool = False
    """Although it did not pass its gates. Needs a key with the scope gates:override, and a reason."""
    reason: Reason | None = None


class Rollback(Body):
    reason: Reason
    to_version: str | None = None
    """One that has served before; the youngest ancestor that may serve unless given."""
    expected_active_version: str | None = None
    """Roll back only if this version is the active one."""


class Because(Body):
    reason: Reason


@router.get("/versions")
def list_all(
    control: ControllerDep, caller: Reads, deployment: Named = None, after: After = None, limit: Limit = DEFAULT_LIMIT
) -> views.View:
    """Versions, the newest first."""
    with control.database.read() as tx:
        where = of_deployment(tx, caller, Version.deployment, deployment)
        rows, more = registry.listed(tx, Version, of_caller(caller, Version.deployment), where, after, limit)
    return views.page([views.version(row) for row in rows], more)


@router.get("/versions/{id}")
def get(id: str, control: ControllerDep, caller: Reads) -> views.View:
    """A version, with where it comes from and what its gates measured."""
    with control.database.read() as tx:
        return views.version(the(tx, caller, Version, "version", id))


@router.get("/versions/{id}/diff")
def diff(id: str, control: ControllerDep, caller: Reads, against: str | None = None) -> dict[str, Any]:
    """What a version has that another one (its parent unless named) has not: experts, experiences, gates, weights."""
    with control.database.read() as tx:
        version = the(tx, caller, Version, "version", id)
        other = against or version.parent
        if other is None:
            raise Problem(422, "validation_failed", "against: a first version has no parent; name another version", param="against")
        return versions.diff(tx, version, the(tx, caller, Version, "version", other))


@router.post("/versions/{id}/promote", status_code=202)
def promote(id: str, body: Promote, control: ControllerDep, caller: Promotes, response: Response) -> views.View:
    """Let a version serve: at once, or first as a canary."""
    if body.override_gates and not caller.may("gates:override"):
        raise Problem(
            403, "insufficient_scope", "`override_gates` needs a key with the scope gates:override.", param="override_gates"
        )
    will = promotion.Will(caller.key, body.reason, body.expected_active_version)
    with control.database.read() as tx:
        version = the(tx, caller, Version, "version", id)
    versions.check_folder(control.signing, control.settings, version)
    with control.database.write() as tx:
        version = the(tx, caller, Version, "version", id)
        row = promotion.promote(tx, version, will, body.canary, body.override_gates)
        told = {"deployment": row.deployment, "rollout": row.id, "reason": body.reason, "overridden": row.overridden}
        audit.note(tx, caller, "gates_overridden" if body.override_gates else "version_promoted", id, **told)
    return _begun(control, row, response)


@router.post("/versions/{id}/reject")
def reject(id: str, body: Because, control: ControllerDep, caller: Promotes) -> views.View:
    """A candidate is not to serve."""
    with control.database.write() as tx:
        version = the(tx, caller, Version, "version", id)
        promotion.reject(tx, version)
        audit.note(tx, caller, "version_rejected", id, reason=body.reason)
        tx.refresh(version)
        return views.version(version)


@router.post("/versions/{id}/revoke")
def revoke(id: str, body: Because, control: ControllerDep, caller: Promotes) -> views.View:
    """A version, and all that came of it, never serves again; where one of them does, its youngest clean ancestor does from now on."""
    with control.database.write() as tx:
        version = the(tx, caller, Version, "version", id)
        row = promotion.revoke(tx, version, promotion.Will(caller.key, body.reason))
        audit.note(tx, caller, "version_revoked", id, reason=body.reason, rollout=row.id if row else None)
        tx.refresh(version)
        view = views.version(version) | {"rollout": row.id if row else None}
    control.rollouts.look()
    return view


@router.delete("/versions/{id}", status_code=202)
def delete(id: str, control: ControllerDep, caller: Admin) -> views.View:
    """Remove a version's files; what it was, and what it was made from, stays known."""
    with control.database.write() as tx:
        version = the(tx, caller, Version, "version", id)
        versions.check_unused(tx, version)
        version.status = "deleted"
        audit.note(tx, caller, "version_deleted", id)
        tx.flush()
        view = views.version(version)
    shutil.rmtree(control.settings.version_folder(version.deployment, version.id), ignore_errors=True)
    return view


@router.post("/deployments/{id_or_name}/rollback", status_code=202)
def rollback(id_or_name: str, body: Rollback, control: ControllerDep, caller: Promotes, response: Response) -> views.View:
    """Let an earlier version serve again. Never refused for a sleep or another rollout: those end."""
    with control.database.write() as tx:
        deployment = the_deployment(tx, caller, id_or_name)
        will = promotion.Will(caller.key, body.reason, body.expected_active_version)
        row = promotion.roll_back(tx, deployment.id, body.to_version, "rollback", will)
        audit.note(tx, caller, "deployment_rolled_back", deployment.id, to=row.to_version, rollout=row.id, reason=body.reason)
    return _begun(control, row, response)


@router.get("/rollouts")
def list_rollouts(
    control: ControllerDep, caller: Reads, deployment: Named = None, after: After = None, limit: Limit = DEFAULT_LIMIT
) -> views.View:
    """Every time that a deployment was brought from one version to another, the newest first."""
    with control.database.read() as tx:
        where = of_deployment(tx, caller, Rollout.deployment, deployment)
        rows, more = registry.listed(tx, Rollout, of_caller(caller, Rollout.deployment), where, after, limit)
    return views.page([views.rollout(row) for row in rows], more)


@router.get("/rollouts/{id}")
def get_rollout(id: str, control: ControllerDep, caller: Reads) -> views.View:
    """One of them."""
    with control.database.read() as tx:
        return views.rollout(the(tx, caller, Rollout, "rollout", id))


@router.post("/rollouts/{id}/abort", status_code=202)
def abort(id: str, control: ControllerDep, caller: Promotes, response: Response) -> views.View:
    """End a canary; its version stays a candidate. An immediate rollout lasts a moment: roll back instead."""
    with control.database.write() as tx:
        row = the(tx, caller, Rollout, "rollout", id)
        promotion.locked(tx, row.deployment)
        row = tx.scalars(select(Rollout).where(Rollout.id == id).execution_options(populate_existing=True)).one()
        if row.status != promotion.RUNNING:
            response.status_code = 200
        elif row.strategy != "canary":
            raise Problem(409, "not_abortable", f"{id} is immediate: every replica has it in a moment; roll back instead.")
        else:
            row.abort = row.abort or "somebody has asked for it"
            audit.note(tx, caller, "rollout_aborted", id)
    control.rollouts.look()
    return views.rollout(row)


def _begun(control: Controller, row: Rollout, response: Response) -> views.View:
    control.rollouts.look()
    response.headers["Location"] = f"/v1/rollouts/{row.id}"
    return views.rollout(row)
