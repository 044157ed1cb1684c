"""Of all controllers of one database one leads: it runs the nights, keeps the replicas, learns online, and fires schedules. All answer.

    consumes       the one row of the lease
    produces       `lead()` when the lease is taken, `step_down()` when it is lost or given back
    waits for      the next beat, an eighth of the lease
    unblocked by   the leader's end (the lease runs out), its `close` (it gives the lease back), or its silence

Every taking counts the term up. What a leader writes is written under its term (`Lease.write`): one that was paused for longer than its
lease finds another term in the row and has written nothing. On SQLite there is one controller, which takes the lease at once.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

from sqlalchemy import func, select, text, update
from sqlalchemy.exc import IntegrityError, OperationalError
from sqlalchemy.orm import Session

from services.settings import Settings
from services.tables import Database, Leadership

log = logging.getLogger(__name__)
ONLY = 1
"""The lease's row."""
TERM = select(Leadership.term).where(Leadership.id == ONLY)
BEATS = 8
"""Of a lease: so many may fail, less one, before it is lost."""


class Deposed(Exception):
    """Another controller leads now."""


class Lease:
    """The lease on leading, as one controller sees it."""

    def __init__(self, settings: Settings, database: Database) -> None:
        self.settings, self.database = settings, database
        self.holder = f"ctl_{secrets.token_hex(6)}"
        self.term = 0
        """Under which this controller leads; 0: it does not."""

    def take(self) -> bool:
        """Whether this controller leads from now on, or still does."""
        try:
            with self.database.write() as tx:
                now = _now(tx)
                row = tx.get(Leadership, ONLY, with_for_update=True)
                if row is None:
                    row = Leadership(id=ONLY, holder="", term=0, until=0.0)
                    tx.add(row)
                mine = row.holder == self.holder and row.term == self.term
                if not mine and row.until > now and not self._alone():
                    self.term = 0
                    return False
                if not mine:
                    row.holder, row.term = self.holder, row.term + 1
                row.until = now + self.settings.lease_seconds
                tx.flush()
                self.term = row.term
                return True
        except IntegrityError:  # two made the row at once; the other one has it
            return False

    def give_back(self) -> None:
        """Let another one lead at once."""
        with self.database.write() as tx:
            tx.execute(update(Leadership).where(Leadership.holder == self.holder, Leadership.term == self.term).values(until=0.0))
        self.term = 0

    @contextmanager
    def write(self) -> Iterator[Session]:
        """A transaction of the leader's. Raises Deposed, and has written nothing, where another one leads by now."""
        with self.database.write() as tx:
            self.check(tx)
            yield tx

    def check(self, tx: Session) -> None:
        """Hold the term until the transaction ends. Raises Deposed."""
        self._leads(self.term, tx.scalar(TERM.with_for_update(read=True)))

    def fence(self) -> Callable[[], None]:
        """For what is written elsewhere than in the database: it raises Deposed from when the term of now is over, also where this
        controller leads again."""
        term = self.term

        def check() -> None:
            with self.database.read() as tx:
                self._leads(term, tx.scalar(TERM))

        return check

    def _leads(self, term: int, now: int | None) -> None:
        if now != term:
            raise Deposed(f"{self.holder} led in term {term}; it is term {now} now")

    def _alone(self) -> bool:
        """An SQLite file has one controller: home.py sees to it."""
        return self.database.engine.dialect.name == "sqlite"


class Leader:
    """Campaigns for as long as the controller lives."""

    def __init__(self, lease: Lease, lead: Callable[[], Awaitable[None]], step_down: Callable[[], Awaitable[None]]) -> None:
        self.lease, self._lead, self._step_down = lease, lead, step_down
        self._leads, self._term, self._heard_at = False, 0, 0.0

    @property
    def leads(self) -> bool:
        return self._leads

    async def campaign(self) -> None:
        """One beat: take, keep or lose the lease, and what follows from that."""
        try:
            async with asyncio.timeout(self.lease.settings.lease_seconds / 2):
                holds = await asyncio.to_thread(self.lease.take)
            self._heard_at = time.monotonic()
        except (OperationalError, TimeoutError) as error:
            # The database does not answer: this controller leads until its lease is over, which is not known to anybody but it.
            log.warning("the lease cannot be renewed: %r", error)
            holds = self._leads and time.monotonic() - self._heard_at < self.lease.settings.lease_seconds * (BEATS - 1) / BEATS
        if self._leads and not (holds and self.lease.term == self._term):
            # Also where it holds one again: another one has led meanwhile, and what this one does was refused then.
            log.error("%s has lost the lease", self.lease.holder)
            self._leads = False
            await self._step_down()
        if holds and not self._leads:
            log.info("%s leads, term %d", self.lease.holder, self.lease.term)
            self._leads, self._term = True, self.lease.term
            await self._lead()

    async def run(self) -> None:
        """Beat after beat."""
        while True:
            await asyncio.sleep(self.lease.settings.lease_seconds / BEATS)
            await self.campaign()

    async def close(self) -> None:
        """End what the leader does, and let another one lead."""
        if self._leads:
            self._leads = False
            await self._step_down()
            await asyncio.to_thread(self.lease.give_back)


def _now(tx: Session) -> float:
    """By the database's clock, which all controllers share; SQLite's is this machine's."""
    if tx.get_bind().dialect.name == "postgresql":
        return float(tx.scalars(select(func.extract("epoch", text("clock_timestamp()")))).one())
    return time.time()
