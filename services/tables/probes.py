"""Probes of operators, and how deployments answered them."""

from __future__ import annotations

from sqlalchemy import JSON, ForeignKey
from sqlalchemy.orm import Mapped, mapped_column

from services.tables.base import Json, Row


class Probe(Row):
    """What is asked of a deployment again and again; see circadian/specs/probes.py."""

    __tablename__ = "probes"
    deployment: Mapped[str] = mapped_column(ForeignKey("deployments.id"), index=True)
    spec: Mapped[Json]
    """All that UserProbe has but its id."""
    visibility: Mapped[str]
    """private: questions and answers are told only to keys that may write probes. shared: to all that may read them."""
    revision: Mapped[int] = mapped_column(default=1)
    """Counted up by every change: its ETag."""


class ProbeRun(Row):
    """A probe asked of the version that serves, as it was when it was asked for."""

    __tablename__ = "probe_runs"
    deployment: Mapped[str] = mapped_column(ForeignKey("deployments.id"))
    probe: Mapped[str] = mapped_column(index=True)
    spec: Mapped[Json]
    version: Mapped[str]
    """Which is asked: another one that answers is no answer."""
    status: Mapped[str] = mapped_column(default="queued", index=True)
    """queued, running, succeeded or failed."""
    began_at: Mapped[float | None] = mapped_column(default=None)
    finished_at: Mapped[float | None] = mapped_column(default=None)
    score: Mapped[float | None] = mapped_column(default=None)
    per_item: Mapped[list[Json]] = mapped_column(JSON, default=list)
    error: Mapped[Json | None] = mapped_column(default=None)
