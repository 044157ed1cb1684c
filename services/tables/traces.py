"""What is still to be told to a collector of traces."""

from __future__ import annotations

import time

from sqlalchemy.orm import Mapped, mapped_column

from services.tables.base import Base


class UntoldTrace(Base):
    """A night or a rollout that has ended, and whose trace no collector has taken yet; see services/traces.py."""

    __tablename__ = "untold_traces"
    object: Mapped[str] = mapped_column(primary_key=True)
    """A sleep or a rollout."""
    life: Mapped[int] = mapped_column(primary_key=True, autoincrement=False, default=0)
    """Of a sleep: how often it had been retried by hand when it ended."""
    deployment: Mapped[str] = mapped_column(index=True)
    created_at: Mapped[float] = mapped_column(default=time.time)
    failures: Mapped[int] = mapped_column(default=0)
    """Times that the collector did not take it."""
