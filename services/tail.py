"""From a night's events.jsonl into the registry, each line exactly once.

The events and the byte offset up to which they were read are written in one transaction: a controller that dies before it commits
reads the same lines again and has written none of them, one that dies after it starts behind them.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from circadian.events import FILE
from services.leader import Lease
from services.registry import append_event, goes_on, locked_sleep, one
from services.states import FastState, SleepStatus, moved, status_in_phase
from services.tables import Sleep

log = logging.getLogger(__name__)
SEALED = ("sleep.stage_finished", "sleep.checkpoint_saved")
"""After which the next attempt need do nothing again."""
MOST_BYTES_AT_ONCE = 1 << 20
"""Of one look, and the rest of the line: a long file must not hold the database's write lock for long."""


def complete_lines(path: Path, offset: int) -> tuple[list[dict[str, Any]], int]:
    """Whole lines behind `offset`, and the offset behind them; a line that is still being written is left for the next look."""
    if not path.exists() or path.stat().st_size <= offset:
        return [], offset
    with path.open("rb") as file:
        file.seek(offset)
        block = file.read(MOST_BYTES_AT_ONCE)
        block += file.readline()
    whole = block[: block.rfind(b"\n") + 1]
    return [event for line in whole.split(b"\n") if line.strip() and (event := _event(line))], offset + len(whole)


def _event(line: bytes) -> dict[str, Any] | None:
    """A line's event. A process that was killed while it wrote, or a full disk, can leave half a line: it is passed over."""
    try:
        event = json.loads(line)
        return {
            "created_at": event["created_at"],
            "type": event["type"],
            "message": event["message"],
            "data": event.get("data", {}),
        }
    except (ValueError, TypeError, KeyError):
        log.warning("a line of %d bytes in %s is no event, passed over: %r", len(line), FILE, line[:80])
        return None


def ingest(lease: Lease, sleep: Sleep, home: Path) -> int:
    """Write what is new; returns how many events. `sleep` may be old: what counts is the row in the database."""
    if complete_lines(home / FILE, sleep.events_offset)[1] == sleep.events_offset:
        return 0
    with lease.write() as tx:
        row = locked_sleep(tx, sleep.id)
        if row.status.terminal:
            return 0
        lines, row.events_offset = complete_lines(home / FILE, row.events_offset)
        for line in lines:
            note(row, line["type"], line["data"])
            append_event(tx, row, line["type"], line["message"], line["data"], created_at=line["created_at"])
        return len(lines)


def ingest_all(lease: Lease, sleep: Sleep, home: Path) -> None:
    """Write everything that is there: what is decided next must have seen all that the night has said."""
    offset = -1
    while offset < sleep.events_offset:
        offset = sleep.events_offset
        ingest(lease, sleep, home)
        with lease.database.read() as tx:
            sleep = one(tx, Sleep, "sleep", sleep.id)


def note(sleep: Sleep, kind: str, data: dict[str, Any]) -> None:
    """What an event of the night changes about its sleep. Whatever it says after it has waited, it waits no more."""
    if sleep.status is not SleepStatus.QUEUED:  # there it is the controller that waits
        sleep.waiting = data.get("waiting") if kind == "sleep.waiting" else None
    if kind in ("sleep.stage_started", "sleep.stage_resumed"):
        if goes_on(sleep):  # said by the attempt before, when it was over
            return
        enter(sleep, data["stage"])
    elif kind in SEALED:
        sleep.stop_at = None  # a night that is to stop loses nothing now
    elif kind == "sleep.progress":
        sleep.progress = progress(data)
    elif kind == "sleep.fast_memory":
        sleep.fast_delivery, sleep.rest_delivery = data["delivery"], data["rest"]
        if sleep.fast is FastState.NONE:
            sleep.fast = FastState.READY


def enter(sleep: Sleep, phase: str) -> None:
    """The sleep is in this phase now."""
    sleep.phase = phase
    sleep.status = moved(sleep.status, status_in_phase(sleep.status, phase))
    sleep.progress = {}


def progress(data: dict[str, Any]) -> dict[str, Any]:
    """{fraction, step, total_steps} of the stage that runs, from what the night tells of it."""
    step, total = data.get("step"), data.get("total_steps")
    fraction = data.get("fraction", step / total if step is not None and total else None)
    return {"fraction": fraction, "step": step, "total_steps": total}
