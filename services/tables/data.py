"""What comes in by the thousand, exchanges as OpenAI's clients list them, and what is to be forgotten."""

from __future__ import annotations

from sqlalchemy import JSON, BigInteger
from sqlalchemy.orm import Mapped, mapped_column

from services.tables.base import Base, Json, Row


class ExperienceBatch(Row):
    """A file of experiences, a line each, and how far it is taken in; see services/batches.py."""

    __tablename__ = "experience_batches"
    tenant: Mapped[str] = mapped_column(index=True)
    deployment: Mapped[str | None]
    """Of lines that name none."""
    sender: Mapped[str]
    """The key that sent it: what caps count."""
    allowed: Mapped[list[str] | None] = mapped_column(JSON(none_as_null=True), default=None)
    """Deployments that this key might touch when it did; None: all of its tenant."""
    request: Mapped[str | None] = mapped_column(unique=True, default=None)
    """HMAC of the key and its Idempotency-Key."""
    trace: Mapped[str | None] = mapped_column(default=None)
    """Of the request that sent it."""
    sha256: Mapped[str]
    bytes: Mapped[int] = mapped_column(BigInteger)
    lines: Mapped[int]
    status: Mapped[str] = mapped_column(default="queued", index=True)
    """queued, running, completed or failed."""
    waiting: Mapped[str | None] = mapped_column(default=None)
    """Why it does not go on now."""
    error: Mapped[str | None] = mapped_column(default=None)
    line: Mapped[int] = mapped_column(default=0)
    """Lines that are done: the cursor, moved in the transaction that keeps what they say."""
    offset: Mapped[int] = mapped_column(BigInteger, default=0)
    """Bytes of them."""
    accepted: Mapped[int] = mapped_column(default=0)
    duplicate: Mapped[int] = mapped_column(default=0)
    rejected: Mapped[int] = mapped_column(default=0)
    quarantined: Mapped[int] = mapped_column(default=0)
    finished_at: Mapped[float | None] = mapped_column(default=None)


class BatchError(Base):
    """Why a line of a batch is not kept."""

    __tablename__ = "experience_batch_errors"
    batch: Mapped[str] = mapped_column(primary_key=True)
    line: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    """From 1 on."""
    code: Mapped[str]
    pointer: Mapped[str]
    detail: Mapped[str]


class StoredCompletion(Row):
    """What a stored chat was beside its experience: the messages are that one's, and go with it."""

    __tablename__ = "chat_completions"
    deployment: Mapped[str] = mapped_column(index=True)
    experience: Mapped[str] = mapped_column(unique=True)
    model: Mapped[str]
    """As it was asked for."""
    version: Mapped[str]
    """That answered."""
    prompt: Mapped[int]
    """Messages before the answer."""
    finish_reason: Mapped[str]
    fingerprint: Mapped[str | None] = mapped_column(default=None)
    usage: Mapped[Json | None] = mapped_column(JSON(none_as_null=True), default=None)


class Erasure(Row):
    """Somebody, or something, to be forgotten, and how far that is; see services/erasures.py."""

    __tablename__ = "erasures"
    tenant: Mapped[str] = mapped_column(index=True)
    deployment: Mapped[str | None]
    """The only one concerned; None: all that the key might touch."""
    subject: Mapped[str | None]
    experiences: Mapped[list[str]]
    """Instead of a subject."""
    mode: Mapped[str]
    """delete or delete_and_retrain."""
    sender: Mapped[str]
    allowed: Mapped[list[str] | None] = mapped_column(JSON(none_as_null=True), default=None)
    """As of a batch."""
    status: Mapped[str] = mapped_column(default="queued", index=True)
    """queued, running or succeeded."""
    waiting: Mapped[str | None] = mapped_column(default=None)
    """Why it does not go on now."""
    work: Mapped[Json] = mapped_column(default=dict)
    """By deployment: what is done there."""
    affected_versions: Mapped[list[str]] = mapped_column(default=list)
    actions: Mapped[list[Json]] = mapped_column(JSON, default=list)
    finished_at: Mapped[float | None] = mapped_column(default=None)
