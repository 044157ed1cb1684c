"""Stored chats, as OpenAI's clients list them: a row beside the experience that each one is. Functions on a transaction."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from services.tables import ExperienceRow, StoredCompletion


def experience_of(tx: Session, row: StoredCompletion) -> ExperienceRow:
    """They are made together, and go together."""
    return tx.scalars(select(ExperienceRow).where(ExperienceRow.id == row.experience)).one()


def experiences_of(tx: Session, rows: list[StoredCompletion]) -> dict[str, ExperienceRow]:
    """By their ids."""
    found = tx.scalars(select(ExperienceRow).where(ExperienceRow.id.in_([row.experience for row in rows])))
    return {experience.id: experience for experience in found}


def describe(tx: Session, row: StoredCompletion, metadata: dict[str, str]) -> None:
    """New metadata, of the experience too: it is the same exchange."""
    row.meta = experience_of(tx, row).meta = metadata
