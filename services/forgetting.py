"""What goes with an experience's body: by what it is found and compared, what was said about it, the chat that it was, and answers that are
kept to be given again (api/repeats.py).

    deleted    one that nothing has learned: no row is left
    expired    nobody wanted it in time: what it said is gone, its name and the sender's stay, so that it is not taken in again
    erased     somebody is to be forgotten: a row is left that says that there was one, when, and which versions kept it

The caller holds the deployment (`hold`) where a night may begin meanwhile: what a night has taken is not touched.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, delete, select, update
from sqlalchemy.orm import Session

from services import fast_registry
from services.errors import Problem
from services.tables import Deployment, ExperienceBand, ExperienceRow, Feedback, Learned, Repeatable, StoredCompletion

GONE = ("expired", "erased")
"""Statuses of one whose body is gone."""
NO_BODY: dict[str, Any] = {"body": {}, "signature": None, "findings": {}, "reasons": [], "trace": None}
NOBODY: dict[str, Any] = {"subject": None, "session": None, "uri": None, "occurred_at": None, "dedupe_key": None, "meta": {}}

ANSWER_GONE: dict[str, Any] = {"status": 410, "headers": {}, "body": None}
"""Of an answer that is kept: that its request was done stays known, so that it is not done again."""


def hold(tx: Session, deployment_id: str) -> Deployment | None:
    """A deployment, until the transaction ends: no night of it begins meanwhile, because a sleep's row refers to it."""
    fast_registry.locked(tx, deployment_id)
    return tx.scalar(select(Deployment).where(Deployment.id == deployment_id).with_for_update(of=Deployment))


def present(row: ExperienceRow) -> ExperienceRow:
    """One that still says something. Raises Problem (410)."""
    if row.status in GONE:
        raise Problem(
            410, "experience_gone", f"What {row.id} said is {row.status}; nothing can be done with it any more.", param="id"
        )
    return row


def forget(tx: Session, row: ExperienceRow) -> None:
    """Delete one."""
    _with_it(tx, ExperienceRow.id == row.id)
    tx.delete(row)


def untaken() -> ColumnElement[bool]:
    """The condition that no version keeps an experience, and that no night is at it."""
    idle = ExperienceRow.sleep.is_(None) | ExperienceRow.left_out.is_not(None)
    return ExperienceRow.consolidated_in.is_(None) & idle


def expire(tx: Session, ids: Sequence[str]) -> int:
    """Returns how many it was: those that a night has taken meanwhile are not."""
    mine = (ExperienceRow.id.in_(ids), untaken())
    gone = tx.scalars(update(ExperienceRow).where(*mine).values(status="expired", **NO_BODY).returning(ExperienceRow.id)).all()
    _with_it(tx, ExperienceRow.id.in_(gone))
    return len(gone)


def erase(tx: Session, which: ColumnElement[bool], erasure: str) -> int:
    """Returns how many bodies it took. Learned online they stay noted until the fast memory that learned them is emptied."""
    told = update(ExperienceRow).where(which, ExperienceRow.status != "erased")
    count = len(tx.scalars(told.values(status="erased", erased_by=erasure, **NO_BODY, **NOBODY).returning(ExperienceRow.id)).all())
    _with_it(tx, ExperienceRow.erased_by == erasure, learned=False)
    return count


def _with_it(tx: Session, which: ColumnElement[bool], learned: bool = True) -> None:
    ids = select(ExperienceRow.id).where(which)
    for table in (ExperienceBand, Feedback, StoredCompletion, *((Learned,) if learned else ())):
        tx.execute(delete(table).where(table.experience.in_(ids)))
    tx.execute(update(Repeatable).where(Repeatable.experience.in_(ids)).values(**ANSWER_GONE))
