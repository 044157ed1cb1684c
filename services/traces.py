"""Traces of nights and rollouts on their way to the collector: noted with the end that they tell of, sent by the leading controller.

    consumes       nights and rollouts that have ended and have not been told (untold_traces)
    produces       their spans, of what the registry says of them (night_trace.py)
    waits for      the next look, longer after a failure; the collector, for as long as OTEL_EXPORTER_OTLP_TIMEOUT says
    unblocked by   time

A row is there from the transaction that ends the night on, and goes when the collector has said that it has the spans. So a controller
that dies in the middle of a night, or before it has told of it, loses nothing: the next leader tells. Where one dies between the
collector's word and the row's end it is told twice, and both times the same: the ids of the spans come from the registry. A collector
that is away for longer than `trace_patience_seconds` misses what ended before.
"""

from __future__ import annotations

import asyncio
import logging
import time

from sqlalchemy import ColumnElement, and_, delete, select, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from services.leader import Lease
from services.night_trace import Origin, night_spans, rollout_spans
from services.settings import Settings
from services.tables import Event, ExperienceRow, Lineage, Rollout, Sleep, Taken, UntoldTrace, Version
from services.tracing import Told, Tracing

log = logging.getLogger(__name__)
AT_ONCE = 16
LEFT_OUT = ("sleep.progress",)
"""Events that are many, and say nothing of when what was done."""
SLEEP = "slp_"
DOUBLINGS = 6
"""Of the pause after failures: a collector that was away is heard of again after some minutes at most."""


class Traces:
    """Tells what has ended."""

    def __init__(self, settings: Settings, lease: Lease, tracing: Tracing) -> None:
        self.settings, self.lease, self.tracing = settings, lease, tracing

    async def run(self) -> None:
        failures = 0
        while True:
            try:
                whole = await asyncio.to_thread(self.look)
            except SQLAlchemyError as error:  # traces wait for a database that comes back, and break nothing that does not
                log.warning("traces wait for the database: %s", type(error).__name__)
                whole = False
            failures = 0 if whole else failures + 1
            await asyncio.sleep(self.settings.trace_seconds * 2 ** min(failures, DOUBLINGS))

    def look(self) -> bool:
        """Tell what is due, one after the other, those first that have failed least. False where the collector did not take one: the rest
        waits."""
        for row in self._due():
            with self.lease.database.read() as tx:
                spans = _spans(tx, row)
            if spans and not self.tracing.tell(spans):
                self._again(row)
                return False
            self._done(row)
        return True

    def _due(self) -> list[UntoldTrace]:
        with self.lease.database.read() as tx:
            order = (UntoldTrace.failures, UntoldTrace.created_at)
            return list(tx.scalars(select(UntoldTrace).order_by(*order).limit(AT_ONCE)))

    def _again(self, row: UntoldTrace) -> None:
        if time.time() - row.created_at > self.settings.trace_patience_seconds:
            log.warning("%s: its trace is given up, the collector has not taken it", row.object)
            self._done(row)
            return
        with self.lease.write() as tx:
            tx.execute(update(UntoldTrace).where(_is(row)).values(failures=UntoldTrace.failures + 1))

    def _done(self, row: UntoldTrace) -> None:
        with self.lease.write() as tx:
            tx.execute(delete(UntoldTrace).where(_is(row)))


def _is(row: UntoldTrace) -> ColumnElement[bool]:
    return and_(UntoldTrace.object == row.object, UntoldTrace.life == row.life)


def _spans(tx: Session, row: UntoldTrace) -> list[Told]:
    """Of a night or a rollout; nothing where it was deleted meanwhile."""
    if row.object.startswith(SLEEP):
        sleep = tx.scalar(select(Sleep).where(Sleep.id == row.object))
        return _of_night(tx, sleep, row.life) if sleep else []
    rollout = tx.scalar(select(Rollout).where(Rollout.id == row.object))
    if rollout is None:
        return []
    return rollout_spans(rollout, tx.scalar(select(Version).where(Version.id == rollout.to_version)))


def _of_night(tx: Session, sleep: Sleep, life: int) -> list[Told]:
    told = select(Event).where(Event.sleep == sleep.id, Event.type.not_in(LEFT_OUT)).order_by(Event.seq)
    versions = tx.scalars(select(Version).where(Version.sleep == sleep.id).order_by(Version.number)).all()
    kept = select(Lineage.experience).where(Lineage.version.in_([one.id for one in versions]), Lineage.left_out.is_(None))
    keeps = set(tx.scalars(kept))
    met = select(ExperienceRow.id, ExperienceRow.trace).join(Taken, Taken.experience == ExperienceRow.id)
    rows = tx.execute(met.where(Taken.sleep == sleep.id).order_by(ExperienceRow.number))
    origins = [Origin(id, trace, id in keeps) for id, trace in rows]
    return night_spans(sleep, life, tx.scalars(told).all(), origins, versions)
