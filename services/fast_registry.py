"""What the service remembers of memories that learn online: small functions on a transaction, as in registry.py.

A deployment learns online when it has a row here. What its fast memory has learned is a set of experiences, each with its chunk, so
nothing depends on the order in which experiences become visible.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, delete, exists, func, select
from sqlalchemy.orm import Session

from circadian.specs import ChunkRecord
from services import registry
from services.online_plan import Met
from services.tables import ExperienceRow, FastMemory, Learned


def locked(tx: Session, deployment_id: str) -> FastMemory | None:
    """A deployment's fast memory (None where it learns at dusk), held until the transaction ends: a night begins before a chunk is
    committed or after it, never meanwhile."""
    return tx.scalar(select(FastMemory).where(FastMemory.deployment == deployment_id).with_for_update())


def online(tx: Session) -> list[str]:
    """The deployments that learn online."""
    return list(tx.scalars(select(FastMemory.deployment)))


def waiting_tokens(tx: Session, deployment_id: str) -> int:
    """Tokens of the experiences that the fast memory has not learned."""
    return int(tx.scalar(select(func.coalesce(func.sum(ExperienceRow.tokens), 0)).where(*_waiting(deployment_id))) or 0)


def waiting(tx: Session, deployment_id: str) -> list[Met]:
    """These experiences, in the order in which they were met."""
    rows = tx.execute(select(ExperienceRow.id, ExperienceRow.tokens).where(*_waiting(deployment_id)).order_by(ExperienceRow.number))
    return [Met(id, tokens) for id, tokens in rows]


def bodies(tx: Session, ids: Sequence[str]) -> list[Any]:
    """Of these experiences, in the order in which they were met."""
    return list(tx.scalars(select(ExperienceRow.body).where(ExperienceRow.id.in_(ids)).order_by(ExperienceRow.number)))


def learned(tx: Session, deployment_id: str) -> tuple[str, ...]:
    """The experiences that the fast memory has learned."""
    return tuple(tx.scalars(select(Learned.experience).where(Learned.deployment == deployment_id).order_by(Learned.experience)))


def commit_chunk(tx: Session, deployment_id: str, version: str, record: ChunkRecord) -> bool:
    """What the record says is in the fast memory from now on.

    False, and nothing has changed, where it was committed before, where another version serves, or while a night is active.
    """
    memory = locked(tx, deployment_id)
    serves = registry.deployment(tx, deployment_id).active_version
    if memory is None or memory.version != version or serves != version or registry.active_sleep(tx, deployment_id):
        return False
    if record.number != memory.chunks + 1:
        return False
    memory.chunks, memory.checksum, memory.error = record.number, record.checksum, None
    memory.tokens += record.tokens
    for experience in record.experiences:
        tx.merge(Learned(experience=experience, deployment=deployment_id, chunk=record.number))
    return True


def empty(tx: Session, deployment_id: str) -> bool:
    """A new day: the fast memory of the version that serves now holds nothing. False, and nothing has changed, while a night is active."""
    memory = locked(tx, deployment_id)
    if memory is None or registry.active_sleep(tx, deployment_id):
        return False
    memory.version = registry.deployment(tx, deployment_id).active_version
    memory.day, memory.chunks, memory.tokens = memory.day + 1, 0, 0
    memory.checksum = memory.error = None
    tx.execute(delete(Learned).where(Learned.deployment == deployment_id))
    return True


def stuck(tx: Session, deployment_id: str, error: str) -> None:
    """The chunk at hand cannot be learned: nothing more is, until the next day."""
    memory = locked(tx, deployment_id)
    if memory is not None:
        memory.error = error


def _waiting(deployment_id: str) -> tuple[ColumnElement[bool], ...]:
    known = exists().where(Learned.experience == ExperienceRow.id)
    return (*registry.pending_where(deployment_id), ~known)
