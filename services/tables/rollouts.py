"""What becomes of versions: which experiences each one keeps, and every time that a deployment is brought from one to another."""

from __future__ import annotations

from sqlalchemy import JSON, ForeignKey, Index, text
from sqlalchemy.orm import Mapped, mapped_column

from services.tables.base import Base, Json, Row

_RUNNING_SQL = "status = 'running'"


class Lineage(Base):
    """An experience that a version was made from, or that its night left out. A version also keeps what its ancestors keep."""

    __tablename__ = "lineage"
    version: Mapped[str] = mapped_column(primary_key=True)
    experience: Mapped[str] = mapped_column(primary_key=True, index=True)
    left_out: Mapped[str | None] = mapped_column(default=None)
    """Why the version does not hold it; None where it does."""


class Rollout(Row):
    """A deployment is brought from one version to another. At most one runs: the database itself refuses a second."""

    __tablename__ = "rollouts"
    deployment: Mapped[str] = mapped_column(ForeignKey("deployments.id"), index=True)
    kind: Mapped[str]
    """promotion, rollback, revocation or erasure."""
    strategy: Mapped[str]
    """immediate or canary."""
    from_version: Mapped[str]
    to_version: Mapped[str]
    was: Mapped[str]
    """The status of `to_version` when it began."""
    status: Mapped[str]
    """running, succeeded, failed or aborted."""
    reason: Mapped[str | None] = mapped_column(default=None)
    started_by: Mapped[str]
    """A key, or the controller."""
    overridden: Mapped[list[Json]] = mapped_column(JSON, default=list)
    """Gates that the version had not passed, and that somebody with the right to passed over."""
    canary: Mapped[Json | None] = mapped_column(default=None)
    """Of a canary: its share of the traffic, its time, what it may fail and how slow it may be."""
    live_at: Mapped[float | None] = mapped_column(default=None)
    """When the canary began to answer."""
    requests: Mapped[int] = mapped_column(default=0)
    """That the canary was given, over all controllers."""
    errors: Mapped[int] = mapped_column(default=0)
    """Of these, that it failed; the active version has answered them."""
    paces: Mapped[Json] = mapped_column(default=dict)
    """How long answers took while it answered, its own and the active version's; see services/canary.py."""
    abort: Mapped[str | None] = mapped_column(default=None)
    """Why somebody wants it to end."""
    finished_at: Mapped[float | None] = mapped_column(default=None)
    error: Mapped[str | None] = mapped_column(default=None)
    trace: Mapped[str | None] = mapped_column(default=None)
    """Its own first span, as a `traceparent`; None where nobody collects traces."""
    asked_trace: Mapped[str | None] = mapped_column(default=None)
    """Of the request that asked for it."""
    __table_args__ = (
        Index(
            "one_running_rollout_per_deployment",
            "deployment",
            unique=True,
            sqlite_where=text(_RUNNING_SQL),
            postgresql_where=text(_RUNNING_SQL),
        ),
    )
