"""Who may do what, what they did, which controller leads, and requests that may be repeated."""

from __future__ import annotations

import time

from sqlalchemy import JSON, Index
from sqlalchemy.orm import Mapped, mapped_column

from services.tables.base import Base, Json, Row


class ApiKey(Row):
    """A key's HMAC; the key itself is kept nowhere."""

    __tablename__ = "api_keys"
    tenant: Mapped[str] = mapped_column(index=True)
    name: Mapped[str]
    prefix: Mapped[str]
    hmac_sha256: Mapped[str] = mapped_column(unique=True)
    scopes: Mapped[list[str]]
    deployments: Mapped[list[str] | None] = mapped_column(JSON(none_as_null=True), default=None)
    """Ids it may touch; None: all of its tenant."""
    requests_per_minute: Mapped[int | None] = mapped_column(default=None)
    expires_at: Mapped[float | None] = mapped_column(default=None)
    last_used_at: Mapped[float | None] = mapped_column(default=None)
    revoked_at: Mapped[float | None] = mapped_column(default=None)
    created_by: Mapped[str | None] = mapped_column(default=None)
    """The key that made it."""


class AuditEvent(Row):
    """Something that a key has done. Never changed and never deleted; each holds the digest of the one before."""

    __tablename__ = "audit_events"
    tenant: Mapped[str] = mapped_column(index=True)
    actor: Mapped[str]
    """A key, or `controller`."""
    action: Mapped[str]
    """<resource>_<what>, for example `version_promoted`."""
    object: Mapped[str]
    """Its id."""
    request: Mapped[str | None]
    data: Mapped[Json]
    digest: Mapped[str]
    """SHA-256 over this event and the digest of the tenant's event before."""


class Leadership(Base):
    """The lease on leading: one row."""

    __tablename__ = "leadership"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    holder: Mapped[str]
    term: Mapped[int]
    """Counted up whenever another controller takes it."""
    until: Mapped[float]


class Repeatable(Base):
    """A request with an Idempotency-Key, and its answer once there is one."""

    __tablename__ = "repeatable_requests"
    key: Mapped[str] = mapped_column(primary_key=True)
    """SHA-256 of who asked and the Idempotency-Key."""
    request_sha256: Mapped[str]
    """Of method, path and body."""
    created_at: Mapped[float] = mapped_column(default=time.time)
    status: Mapped[int | None] = mapped_column(default=None)
    """None while it runs."""
    headers: Mapped[Json] = mapped_column(default=dict)
    body: Mapped[str | None] = mapped_column(default=None)
    """None also where what it told of is gone."""
    experience: Mapped[str | None] = mapped_column(default=None, index=True)
    """That the answer tells: when its body goes, the answer does."""
    __table_args__ = (Index("ix_repeatable_requests_created_at", "created_at"),)
