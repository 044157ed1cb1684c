"""Batches of experiences, taken in by the leading controller: a few lines of each batch in turn.

    consumes       the file of a batch, from its cursor on
    produces       experiences as `POST /v1/experiences` would; counts, and for each line that is not kept the reason
    waits for      the next poll, or a batch of this controller's; a source that has sent what it may in this minute
    unblocked by   time

Lines are read outside any transaction and kept, together with the cursor, in one: a controller that is killed has taken in a line or it
has not, and the next leader goes on behind the last one. The name of a line in the registry is the batch's and its number, unless it has
one of its own (`dedupe_key`). Caps of what a source may send in a minute hold a batch up; they lose nothing of it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from contextlib import suppress
from dataclasses import replace

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from circadian.specs import Experience
from services.access import Caller
from services.batch_files import PART, SUFFIX, Line, batch_file, lines
from services.batch_lines import Fault, said_in_line
from services.errors import Problem
from services.leader import Deposed, Lease
from services.offered import ExperienceCreate
from services.owned import the_deployment
from services.screening import Code
from services.settings import Settings
from services.tables import BatchError, Deployment, ExperienceBatch, ExperienceRow, new_id
from services.taking_in import QUARANTINED, Intake, Legible, Said, Taken, keep, look_at, tell_quarantined

log = logging.getLogger(__name__)
UNFINISHED = ("queued", "running")
AT_ONCE = 32
"""Lines of one transaction: so many share one write to the disk, and nobody waits long for it."""
ABANDONED_SECONDS = 3600.0
"""After which a file that no batch is of is what a controller left that died while it came in."""
COUNTED = {"pending": "accepted", "quarantined": "quarantined", "repeated": "duplicate", "duplicate": "duplicate"}
"""Under which count of a batch; everything else is rejected."""


def said_by(body: ExperienceCreate, sender: str) -> tuple[Experience, Said]:
    """What a request, or a line, asks to keep."""
    experience = Experience(id=new_id("exp"), messages=body.messages, text=body.text, source=body.source, trust=body.trust)
    return experience, Said(sender, body.subject_id, body.session_id, body.uri, body.consent, body.occurred_at, body.dedupe_key)


class Batches:
    """Takes in every batch that is not done."""

    def __init__(self, settings: Settings, lease: Lease, intake: Intake) -> None:
        self.settings, self.lease, self.intake = settings, lease, intake
        self._more = asyncio.Event()
        self._failures: Counter[str] = Counter()

    def look(self) -> None:
        """There may be a new batch."""
        self._more.set()

    async def run(self) -> None:
        await asyncio.to_thread(self.tidy)
        while True:
            self._more.clear()
            unfinished = await asyncio.to_thread(self._unfinished)
            moved = [await asyncio.to_thread(self._try, batch) for batch in unfinished]
            if not any(moved):
                with suppress(TimeoutError):
                    async with asyncio.timeout(self.settings.poll_seconds if unfinished else self.settings.schedule_seconds):
                        await self._more.wait()

    def _try(self, batch: str) -> bool:
        """`advance`; a batch in which the service fails again and again is given up, so that the others go on."""
        try:
            moved = self.advance(batch)
        except Deposed:
            raise
        except Exception:
            # Whatever it was: the deployment of this batch may be broken, and those of the others are not.
            log.exception("%s failed in the controller", batch)
            self._failures[batch] += 1
            if self._failures[batch] >= self.settings.watcher_failures:
                line = row.line if (row := self._load(batch)) else 0
                self._end(batch, "failed", f"the service failed after line {line}, and its log has the reason; send the rest again")
            return False
        del self._failures[batch]
        return moved

    def advance(self, batch: str) -> bool:
        """Take in the next lines. False where there are none, or where they have to wait."""
        row = self._load(batch)
        if row is None or row.status not in UNFINISHED:
            return False
        path = batch_file(self.settings.batches_folder, batch)
        try:
            found = lines(path, row.line, row.offset, AT_ONCE, self.settings.most_body_bytes)
        except FileNotFoundError:
            self._end(batch, "failed", f"the file of the batch is gone after line {row.line}; send the rest again")
            return False
        if not found:
            self._end(batch, "completed")
            path.unlink(missing_ok=True)
            return False
        heard = self._heard(row, found)
        try:
            return self._keep(row, heard)
        except IntegrityError:
            log.info("%s: another request took a line's dedupe_key meanwhile; its lines are read again", batch)
            return True

    def _heard(self, row: ExperienceBatch, found: list[Line]) -> list[tuple[Line, Legible | Taken | Fault | None]]:
        """The lines, read; where one has to wait those behind it are not."""
        heard: list[tuple[Line, Legible | Taken | Fault | None]] = []
        for line in found:
            heard.append((line, self._read(row, line)))
            if waits(heard[-1][1]):
                break
        return heard

    def _read(self, row: ExperienceBatch, line: Line) -> Legible | Taken | Fault | None:
        body = said_in_line(line.text, row.deployment)
        if not isinstance(body, ExperienceCreate):
            return body
        allowed = None if row.allowed is None else frozenset(row.allowed)
        caller = Caller(row.sender, row.tenant, frozenset({"experiences:write"}), allowed)
        experience, said = said_by(body, row.sender)
        said = replace(said, dedupe_key=said.dedupe_key or f"{row.id}/{line.number}", trace=row.trace)
        try:
            with self.lease.database.read() as tx:
                deployment = the_deployment(tx, caller, body.deployment)
        except Problem as problem:
            return replace(Fault.of(problem), pointer="/deployment")
        try:
            return look_at(self.intake, deployment, experience, said, body.metadata)
        except Problem as problem:
            return Fault.of(problem)

    def _keep(self, seen: ExperienceBatch, heard: list[tuple[Line, Legible | Taken | Fault | None]]) -> bool:
        """What was read, the counts and the cursor. False where nothing could be kept yet."""
        with self.lease.write() as tx:
            row = tx.scalar(select(ExperienceBatch).where(ExperienceBatch.id == seen.id).with_for_update())
            if row is None or row.line != seen.line or row.status not in UNFINISHED:
                return False
            row.status, row.waiting = "running", None
            aside: dict[str, tuple[Deployment, list[ExperienceRow]]] = {}
            for line, read in heard:
                taken = keep(tx, read) if isinstance(read, Legible) else read
                if waits(taken):
                    row.waiting = "its source has sent what it may in a minute (caps.per_source_per_minute); it goes on after that"
                    break
                _count(tx, row, line, taken)
                if isinstance(read, Legible) and isinstance(taken, Taken) and taken.row is not None and taken.status == QUARANTINED:
                    aside.setdefault(read.deployment.id, (read.deployment, []))[1].append(taken.row)
                self.intake.took_in("rejected" if isinstance(taken, Fault) or taken is None else taken.status)
            for deployment, rows in aside.values():
                tell_quarantined(tx, deployment, rows, batch=row.id)
            return row.line > seen.line

    def _end(self, batch: str, status: str, error: str | None = None) -> None:
        with self.lease.write() as tx:
            row = tx.scalars(select(ExperienceBatch).where(ExperienceBatch.id == batch).with_for_update()).one()
            row.status, row.error, row.waiting, row.finished_at = status, error, None, time.time()

    def tidy(self) -> None:
        """Delete the files of batches that are done, and what controllers left that died while a batch came in."""
        folder, now = self.settings.batches_folder, time.time()
        if not folder.is_dir():
            return
        unfinished = set(self._unfinished())
        for path in folder.iterdir():
            if path.suffix in (SUFFIX, PART) and path.stem not in unfinished and now - path.stat().st_mtime > ABANDONED_SECONDS:
                path.unlink(missing_ok=True)

    def _unfinished(self) -> list[str]:
        with self.lease.database.read() as tx:
            waiting = select(ExperienceBatch.id).where(ExperienceBatch.status.in_(UNFINISHED))
            return list(tx.scalars(waiting.order_by(ExperienceBatch.number)))

    def _load(self, batch: str) -> ExperienceBatch | None:
        with self.lease.database.read() as tx:
            return tx.scalar(select(ExperienceBatch).where(ExperienceBatch.id == batch))


def waits(taken: Legible | Taken | Fault | None) -> bool:
    """A line that is not refused for good: its source may send no more in this minute."""
    return isinstance(taken, Taken) and bool(taken.reasons) and taken.reasons[0].code is Code.SOURCE_RATE


def _count(tx: Session, row: ExperienceBatch, line: Line, taken: Taken | Fault | None) -> None:
    """Count a line, and move the cursor behind it."""
    row.line, row.offset = line.number, line.end
    if taken is None:
        return
    count = "rejected" if isinstance(taken, Fault) else COUNTED.get(taken.status, "rejected")
    setattr(row, count, getattr(row, count) + 1)
    if count == "rejected":
        fault = taken if isinstance(taken, Fault) else Fault.of(taken.problem())
        tx.add(BatchError(batch=row.id, line=line.number, code=fault.code, pointer=fault.pointer, detail=fault.detail))
