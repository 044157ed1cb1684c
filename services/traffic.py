"""How much each deployment is asked, by the minute: counted here, written together every few seconds, added up over all controllers.

    consumes       requests that were answered, from the routes
    produces       rows of the traffic table
    waits for      the next flush
    unblocked by   time

What was counted since the last flush is lost with a controller that is killed: it serves schedules and usage, not invoices.
"""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import delete, func, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from services.canary import Kind, Pace, Side, added, kept, read
from services.settings import Settings
from services.tables import Database, Rollout, Traffic

MINUTE = 60
KEPT_MINUTES = 400 * 24 * 60
"""A little more than a year."""


@dataclass
class _Minute:
    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    last_at: float = 0.0


@dataclass
class _Canary:
    requests: int = 0
    errors: int = 0
    paces: dict[tuple[Kind, Side], Pace] = field(default_factory=dict)


class Counter:
    """Of this controller."""

    def __init__(self, settings: Settings, database: Database) -> None:
        self.settings, self.database = settings, database
        self._lock = threading.Lock()
        self._minutes: dict[tuple[str, int], _Minute] = defaultdict(_Minute)
        self._canaries: dict[str, _Canary] = defaultdict(_Canary)

    def count(self, deployment: str, prompt_tokens: int = 0, completion_tokens: int = 0) -> None:
        """One request more."""
        now = time.time()
        with self._lock:
            minute = self._minutes[deployment, int(now // MINUTE)]
            minute.requests += 1
            minute.prompt_tokens += prompt_tokens
            minute.completion_tokens += completion_tokens
            minute.last_at = now

    def count_tokens(self, deployment: str, prompt_tokens: int, completion_tokens: int) -> None:
        """Of a request that was counted when it began."""
        with self._lock:
            minute = self._minutes[deployment, int(time.time() // MINUTE)]
            minute.prompt_tokens += prompt_tokens
            minute.completion_tokens += completion_tokens
            minute.last_at = time.time()

    def count_canary(self, rollout: str, failed: bool) -> None:
        """One request more that a canary was given."""
        with self._lock:
            self._canaries[rollout].requests += 1
            self._canaries[rollout].errors += failed

    def count_pace(self, rollout: str, kind: Kind, side: Side, seconds: float) -> None:
        """How long one answer took while a canary answered: its own, or the active version's."""
        with self._lock:
            paces = self._canaries[rollout].paces
            paces[kind, side] = paces.get((kind, side), Pace()) + Pace.of(seconds)

    async def run(self) -> None:
        while True:
            await asyncio.sleep(self.settings.traffic_seconds)
            await asyncio.to_thread(self.flush)

    def flush(self) -> None:
        """Add what was counted to what all controllers have written."""
        with self._lock:
            counted, self._minutes = self._minutes, defaultdict(_Minute)
            canaries, self._canaries = self._canaries, defaultdict(_Canary)
        if not counted and not canaries:
            return
        with self.database.write() as tx:
            for (deployment, minute), told in counted.items():
                _add(tx, deployment, minute, told)
            for rollout, canary in canaries.items():
                _add_canary(tx, rollout, canary)
            tx.execute(delete(Traffic).where(Traffic.minute < time.time() // MINUTE - KEPT_MINUTES))


def _add_canary(tx: Session, rollout: str, more: _Canary) -> None:
    """The row is held meanwhile: another controller adds to what this one has written."""
    row = tx.scalar(select(Rollout).where(Rollout.id == rollout).with_for_update())
    if row is not None:
        row.requests, row.errors = row.requests + more.requests, row.errors + more.errors
        row.paces = kept(added(read(row.paces), more.paces))


def _add(tx: Session, deployment: str, minute: int, told: _Minute) -> None:
    insert: Any = postgresql.insert if tx.get_bind().dialect.name == "postgresql" else sqlite.insert
    new = {"requests": told.requests, "prompt_tokens": told.prompt_tokens, "completion_tokens": told.completion_tokens}
    statement = insert(Traffic).values(deployment=deployment, minute=minute, last_at=told.last_at, **new)
    sums = {name: getattr(Traffic, name) + value for name, value in new.items()}
    tx.execute(statement.on_conflict_do_update(index_elements=["deployment", "minute"], set_=sums | {"last_at": told.last_at}))


def quiet(tx: Session, deployment: str, since: float, seconds: float, now: float) -> tuple[float, float | None]:
    """Seconds since the last request (since `since` where there was none), and requests a second over the last `seconds`, by whole minutes;
    None where they were not counted for that long."""
    last = tx.scalar(select(func.max(Traffic.last_at)).where(Traffic.deployment == deployment))
    first = int((now - seconds) // MINUTE)
    asked = tx.scalar(select(func.sum(Traffic.requests)).where(Traffic.deployment == deployment, Traffic.minute >= first))
    rate = (asked or 0) / seconds if now - since >= seconds else None
    return max(0.0, now - max(last or 0.0, since)), rate


def by_day(tx: Session, deployments: list[str], days: int) -> list[dict[str, Any]]:
    """Sums by deployment and day (UTC), the latest first."""
    day = func.floor(Traffic.minute / (24.0 * 60)).label("day")
    sums = [func.sum(getattr(Traffic, name)).label(name) for name in ("requests", "prompt_tokens", "completion_tokens")]
    first = math.floor(time.time() / 86_400) - days + 1
    rows = tx.execute(
        select(Traffic.deployment, day, *sums)
        .where(Traffic.deployment.in_(deployments), Traffic.minute >= first * 24 * 60)
        .group_by(Traffic.deployment, day)
        .order_by(day.desc(), Traffic.deployment)
    ).mappings()
    return [{**row, "day": int(row["day"])} for row in rows]
