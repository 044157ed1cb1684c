"""Which version keeps which experience: from a version to what it was made from, and back.

A version keeps what its night was given (`lineage`) and what its ancestors keep. An experience is consolidated while the active version or
one of its ancestors keeps it; where the deployment goes back to an earlier version, what the later ones kept is pending again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from sqlalchemy import ColumnElement, select, update
from sqlalchemy.orm import Session

from services.tables import ExperienceRow, Lineage, Version


def record(tx: Session, version: str, kept: Iterable[str], left_out: Mapping[str, str]) -> None:
    """What a new version was made from."""
    rows = [Lineage(version=version, experience=id) for id in kept]
    tx.add_all([*rows, *(Lineage(version=version, experience=id, left_out=why) for id, why in left_out.items())])
    tx.flush()


def ancestry(tx: Session, deployment: str, version: str) -> list[str]:
    """The version and its ancestors, the youngest first."""
    rows = tx.execute(select(Version.id, Version.parent).where(Version.deployment == deployment))
    parents = {id: parent for id, parent in rows}  # noqa: C416  # rows are no pairs for dict()
    chain: list[str] = []
    now: str | None = version
    while now is not None and now not in chain:
        chain.append(now)
        now = parents.get(now)
    return chain


def descendants(tx: Session, deployment: str, versions: Iterable[str]) -> list[str]:
    """These versions and all that came of them, the oldest first."""
    found = set(versions)
    rows = tx.execute(select(Version.id, Version.parent).where(Version.deployment == deployment).order_by(Version.number))
    ordered = []
    for id, parent in rows:  # a parent is always older than its children
        if id in found or parent in found:
            found.add(id)
            ordered.append(id)
    return ordered


def brought(versions: Collection[str]) -> ColumnElement[bool]:
    """The condition that an experience was brought in by the own night of one of these versions."""
    return ExperienceRow.id.in_(select(Lineage.experience).where(Lineage.version.in_(versions), Lineage.left_out.is_(None)))


def keepers(tx: Session, deployment: str, which: ColumnElement[bool]) -> set[str]:
    """The versions of a deployment that keep any of these experiences: those whose nights brought them in, and all that came of them."""
    theirs = select(Lineage.version).join(ExperienceRow, ExperienceRow.id == Lineage.experience)
    found = tx.scalars(theirs.where(which, Lineage.left_out.is_(None)).distinct())
    return set(descendants(tx, deployment, found))


def kept_by(tx: Session, version: Version) -> ColumnElement[bool]:
    """The condition that a version keeps an experience, by its own night or from its ancestors."""
    return brought(ancestry(tx, version.deployment, version.id))


def follow(tx: Session, deployment: str, before: str, now: str) -> None:
    """Another version is active: what only the one before kept is pending again, and what the new one keeps is consolidated."""
    old, new = ancestry(tx, deployment, before), ancestry(tx, deployment, now)
    gone, come = [id for id in old if id not in new], [id for id in new if id not in old]
    theirs = select(Lineage.experience).where(Lineage.version.in_(gone))
    of_deployment = ExperienceRow.deployment == deployment
    free = update(ExperienceRow).where(of_deployment, ExperienceRow.id.in_(theirs))
    tx.execute(free.values(consolidated_in=None, left_out=None, sleep=None))
    for version in come:
        made_from = select(Lineage.experience).where(Lineage.version == version)
        kept = ExperienceRow.id.in_(made_from.where(Lineage.left_out.is_(None)))
        tx.execute(update(ExperienceRow).where(of_deployment, kept).values(consolidated_in=version))
        why = select(Lineage.left_out).where(Lineage.version == version, Lineage.experience == ExperienceRow.id).scalar_subquery()
        left = ExperienceRow.id.in_(made_from.where(Lineage.left_out.is_not(None)))
        tx.execute(
            update(ExperienceRow).where(of_deployment, left).values(left_out=why), execution_options={"synchronize_session": False}
        )
    tx.expire_all()
