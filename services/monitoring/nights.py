"""Looked up at each scrape: the night that runs, what is late, and what the last night was worth."""

from __future__ import annotations

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from circadian import metrics
from services.budget import spent
from services.monitoring.fleet import Names
from services.monitoring.ledger import finished
from services.monitoring.told import Told
from services.settings import Settings
from services.states import ACTIVE, TERMINAL, SleepStatus
from services.tables import Event, Json, Schedule, Sleep, Version

PROBE = "probe:"
"""How the name of a probe's gate begins."""
STANDS = (SleepStatus.QUEUED, SleepStatus.PAUSED)


def look(told: Told, tx: Session, settings: Settings, names: Names, now: float) -> None:
    """Everything of this file."""
    told.tell(metrics.NIGHT_LIMIT, settings.night_seconds)
    for status in SleepStatus:
        told.tell(metrics.SLEEPS, 0, status.value)
    for status, count in tx.execute(select(Sleep.status, func.count()).group_by(Sleep.status)):
        told.tell(metrics.SLEEPS, count, status.value)
    active = {row.deployment: row for row in tx.scalars(select(Sleep).where(Sleep.status.in_(ACTIVE)))}
    late = _late(tx, now)
    for id, name in names.items():
        _running(told, tx, active.get(id), name, now)
        told.tell(metrics.SCHEDULE_LATE, late.get(id, 0.0), *name)
        _last(told, tx, id, name)
        _judged(told, tx, id, name)


def _running(told: Told, tx: Session, sleep: Sleep | None, name: tuple[str, str], now: float) -> None:
    stands = sleep is None or sleep.status in STANDS
    stage = metrics.stage_of(sleep.phase) if sleep is not None and not stands and sleep.phase else None
    for one in (*metrics.STAGES, metrics.OTHER):
        told.tell(metrics.NIGHT_STAGE, one == stage, *name, one)
    progress = (sleep.progress.get("fraction") if sleep is not None and not stands else None) or 0.0
    told.tell(metrics.NIGHT_PROGRESS, progress, *name)
    seconds = spent(sleep, now).wall_seconds if sleep is not None and not stands else 0.0
    told.tell(metrics.NIGHT_RUNNING, seconds, *name)
    since = _since(tx, sleep) if sleep is not None else None
    told.tell(metrics.SLEEP_WAITING, max(0.0, now - since) if since is not None else 0.0, *name)


def _since(tx: Session, sleep: Sleep) -> float | None:
    """When one that waits came in line, or its job did; None: it does not wait."""
    if sleep.status is not SleepStatus.QUEUED:
        return sleep.pending_since
    retried = select(func.max(Event.created_at)).where(Event.sleep == sleep.id, Event.type == "sleep.retried")
    return sleep.paused_at or (tx.scalar(retried) if sleep.life else None) or sleep.created_at


def _late(tx: Session, now: float) -> dict[str, float]:
    """By deployment, of the schedule that is furthest behind: what it was to begin and has not, whether it waits in its queue or nobody has
    looked. One that is suspended, or waits because its deployment cools down, is not late."""
    found: dict[str, float] = {}
    for row in tx.scalars(select(Schedule)):
        if row.spec.get("suspend") or row.cooling_until is not None:
            continue
        due = [at for at in (row.next_at, row.queued["at"] if row.queued else None) if at is not None]
        found[row.deployment] = max(found.get(row.deployment, 0.0), *(now - at for at in due), 0.0)
    return found


def _last(told: Told, tx: Session, deployment: str, name: tuple[str, str]) -> None:
    """The last sleep that ended, and the last that dreamt."""
    over = select(Sleep.status).where(Sleep.deployment == deployment, Sleep.status.in_(TERMINAL))
    last = tx.scalar(over.order_by(Sleep.finished_at.desc()).limit(1))
    told.tell(metrics.LAST_NIGHT_FAILED, last is SleepStatus.FAILED, *name)
    newest = tx.scalar(select(Sleep.id).where(Sleep.deployment == deployment).order_by(Sleep.number.desc()).limit(1))
    if newest is None:
        return
    for stage, data in finished(tx, newest).items():  # in order: the last round stays
        if metrics.stage_of(stage) == "dream_try":
            outputs = data.get("outputs") or {}
            for of, key in (("dreamt", "score"), ("undreamt", "undreamt")):
                if outputs.get(key) is not None:
                    told.tell(metrics.DREAM_SCORE, outputs[key], *name, of)


def _judged(told: Told, tx: Session, deployment: str, name: tuple[str, str]) -> None:
    """The last version that a night made."""
    newest = select(Version.gates, Version.sleep).where(Version.deployment == deployment, Version.sleep.is_not(None))
    row = tx.execute(newest.order_by(Version.number.desc()).limit(1)).first()
    if row is None:
        return
    probes = [gate for gate in row.gates if gate["name"].startswith(PROBE)]
    for gate in row.gates:
        if gate["name"] in metrics.GATES:
            _tell_gate(told, gate, name)
    if probes:
        told.tell(metrics.GATE_PASSED, all(gate["passed"] for gate in probes), *name, "probes")
    report = tx.scalar(select(Sleep.report).where(Sleep.id == row.sleep)) or {}
    scores: dict[str, list[float]] = {}
    for told_of in ((report.get("gate") or {}).get("probes") or {}).values():
        scores.setdefault(told_of["kind"], []).append(told_of["score"])
    for kind, values in scores.items():
        told.tell(metrics.PROBE_SCORE, sum(values) / len(values), *name, kind)


def _tell_gate(told: Told, gate: Json, name: tuple[str, str]) -> None:
    told.tell(metrics.GATE_PASSED, bool(gate["passed"]), *name, gate["name"])
    for metric, key in ((metrics.GATE_VALUE, "value"), (metrics.GATE_LIMIT, "limit")):
        if gate[key] is not None:
            told.tell(metric, gate[key], *name, gate["name"])
