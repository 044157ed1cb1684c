"""Whose something is: what a caller finds, and what is not there for it."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, select
from sqlalchemy.orm import InstrumentedAttribute, Session

from services.access import Caller
from services.errors import Problem, not_found
from services.tables import Deployment


def of_caller(
    caller: Caller, deployment: InstrumentedAttribute[str] | ColumnElement[str], *, deleting: bool = False
) -> ColumnElement[bool]:
    """That a column names a deployment which the caller may touch; `deleting`: one that is being deleted, too."""
    own = select(Deployment.id).where(Deployment.tenant == caller.tenant, *_there(deleting))
    return deployment.in_(own if caller.deployments is None else own.where(Deployment.id.in_(caller.deployments)))


def of_tenant(caller: Caller, table: Any) -> ColumnElement[bool]:
    """That a row of a table with `tenant`, `deployment` (perhaps none) and `sender` is the caller's: one about no deployment is for keys
    that may touch all, and for the one that sent it."""
    mine = table.tenant == caller.tenant
    if caller.deployments is None:
        return mine
    return mine & (table.deployment.in_(caller.deployments) | (table.deployment.is_(None) & (table.sender == caller.key)))


def the_deployment(tx: Session, caller: Caller, id_or_name: str, *, deleting: bool = False) -> Deployment:
    """The caller's deployment of this id or name; `deleting`: one that is being deleted, too. Raises Problem: 404 where its tenant has
    none, 403 where the key is not for it."""
    named = (Deployment.id == id_or_name) | (Deployment.name == id_or_name)
    row = tx.scalar(select(Deployment).where(Deployment.tenant == caller.tenant, named, *_there(deleting)))
    if row is None:
        raise not_found("deployment", id_or_name)
    if not caller.may_touch(row.id):
        raise Problem(403, "deployment_not_allowed", f"This key is not for deployment {row.name}.", param="deployment")
    return row


def _there(deleting: bool) -> list[ColumnElement[bool]]:
    return [] if deleting else [Deployment.deleting_at.is_(None)]
