"""Which versions keep which experiences, and the way from version to version.

A version keeps what its own night brought into it (`brought`), and everything that its ancestors keep: a night adds to its parent and
takes nothing out.
"""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import ColumnElement, select
from sqlalchemy.orm import Session

from services.tables import Deployment, ExperienceRow, Version


def brought_by(tx: Session, which: ColumnElement[bool]) -> set[str]:
    """The versions whose own nights brought in the experiences that this condition is of."""
    return set(
        tx.scalars(select(ExperienceRow.consolidated_in).where(which, ExperienceRow.consolidated_in.is_not(None)).distinct())
    )


def brought(versions: Collection[str]) -> ColumnElement[bool]:
    """The condition that an experience was brought in by the own night of one of these versions."""
    return ExperienceRow.consolidated_in.in_(versions)


def keepers(tx: Session, deployment_id: str, which: ColumnElement[bool]) -> set[str]:
    """The versions of a deployment that keep any of these experiences: those whose nights brought them in, and all that came of them."""
    parents = _parents(tx, deployment_id)
    found = brought_by(tx, which) & parents.keys()
    return {version for version in parents if found.intersection(_line(parents, version))}


def kept_by(tx: Session, version: Version) -> ColumnElement[bool]:
    """The condition that a version keeps an experience, by its own night or from its ancestors."""
    return brought(_line(_parents(tx, version.deployment), version.id))


def clean_ancestor(tx: Session, deployment: Deployment, affected: Collection[str]) -> str | None:
    """The newest ancestor of what is active, or that itself, that is neither one of these nor was ever refused."""
    parents = _parents(tx, deployment.id)
    refused = Version.status.in_(("rejected", "revoked"))
    bad = set(affected) | set(tx.scalars(select(Version.id).where(Version.deployment == deployment.id, refused)))
    return next((version for version in _line(parents, deployment.active_version) if version not in bad), None)


def _parents(tx: Session, deployment_id: str) -> dict[str, str | None]:
    own = select(Version.id, Version.parent).where(Version.deployment == deployment_id)
    return {row.id: row.parent for row in tx.execute(own.order_by(Version.number))}


def _line(parents: dict[str, str | None], version: str) -> list[str]:
    """A version and its ancestors, newest first."""
    line: list[str] = []
    now: str | None = version
    while now is not None and now not in line:
        line.append(now)
        now = parents.get(now)
    return line
