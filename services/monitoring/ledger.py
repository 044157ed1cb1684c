"""What the nights that have ended add up to. A night that has ended does not change: each is read once, and kept as a few numbers.

Counters must never fall: a sleep that is retried by hand ends once in each of its lives, each adds up what it did itself, and what this
controller has seen of an earlier life stays counted. A controller that begins to lead reads all nights, so it goes on where the one before
it was, but for the lives before a retry: the registry keeps no more of them than their events.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from circadian import metrics
from circadian.phases import Seconds
from services.budget import cpus, gpus, spent
from services.monitoring.fleet import Names
from services.monitoring.told import Told
from services.states import TERMINAL, SleepStatus
from services.tables import Event, ExperienceRow, Sleep, Taken

OUTCOMES = ("promoted", "candidate", "rejected", "no_op", "failed", "cancelled")
FATES = metrics.LABELS["fate"] or ()
FINISHED, RETRIED = "sleep.stage_finished", "sleep.retried"


@dataclass(frozen=True)
class Ended:
    """One life of a sleep."""

    deployment: str
    outcome: str
    seconds: float
    cpus: float
    gpus: float
    tokens: int
    attempts: int
    stages: Seconds = field(default_factory=dict)
    dreams: dict[str, int] = field(default_factory=dict)


class Ledger:
    """Of one controller. Scrapes may come at the same time."""

    def __init__(self) -> None:
        self._ended: dict[tuple[str, int], Ended] = {}
        self._lock = threading.Lock()

    def look(self, told: Told, tx: Session, names: Names) -> None:
        """All nights of these deployments."""
        with self._lock:
            over = select(Sleep.id, Sleep.life).where(Sleep.status.in_(TERMINAL), Sleep.deployment.in_(names))
            for id, life in tx.execute(over).all():
                if (id, life) not in self._ended:
                    self._ended[id, life] = read(tx, id)
            self._ended = {key: one for key, one in self._ended.items() if one.deployment in names}
            ended = list(self._ended.values())
        for id, name in names.items():
            _tell(told, name, [one for one in ended if one.deployment == id])


def read(tx: Session, id: str) -> Ended:
    """The last life of a sleep, which has ended."""
    sleep = tx.scalars(select(Sleep).where(Sleep.id == id)).one()
    retried = tx.execute(select(Event.seq, Event.data).where(Event.sleep == id, Event.type == RETRIED).order_by(Event.seq.desc()))
    began, first = next(((seq, data["attempt"]) for seq, data in retried), (0, 1))
    outputs = finished(tx, id, began)
    wall = spent(sleep, time.time()).wall_seconds
    own = select(func.coalesce(func.sum(ExperienceRow.tokens), 0)).join(Taken, Taken.experience == ExperienceRow.id)
    return Ended(
        deployment=sleep.deployment,
        outcome=outcome_of(sleep),
        seconds=wall,
        cpus=cpus(sleep.recipe),
        gpus=gpus(sleep.recipe),
        tokens=int(tx.scalar(own.where(Taken.sleep == id)) or 0),
        attempts=sleep.attempt + 1 - first,
        stages=metrics.by_stage({stage: told["seconds"] for stage, told in outputs.items() if told.get("seconds") is not None}),
        dreams=dreamt({stage: told.get("outputs") or {} for stage, told in outputs.items()}),
    )


def finished(tx: Session, id: str, since: int = 0) -> dict[str, Any]:
    """What a night has told of each stage that it has finished. since: the `seq` of an event; what was told before it is left out."""
    told = (Event.sleep == id, Event.type == FINISHED, Event.seq > since)
    rows = tx.scalars(select(Event.data).where(*told).order_by(Event.seq))
    return {data["stage"]: data for data in rows if "stage" in data}


def outcome_of(sleep: Sleep) -> str:
    """As the label has it."""
    if sleep.status is SleepStatus.SUCCEEDED:
        return sleep.outcome if sleep.outcome in OUTCOMES else metrics.OTHER
    return sleep.status.value


def dreamt(outputs: dict[str, Any]) -> dict[str, int]:
    """Dreams by what became of them, of all rounds."""
    found = dict.fromkeys(FATES, 0)
    for stage, told in outputs.items():
        if metrics.stage_of(stage) == "dream_write":
            found["made"] += told.get("dreams", 0)
        elif metrics.stage_of(stage) == "dream_try":
            for fate in ("tried", "rewarded", "broken"):
                found[fate] += told.get(fate, 0)
        elif stage == "dream_keep":
            found["kept"] += len(told.get("dreams") or ())
    return found


def _tell(told: Told, name: tuple[str, str], nights: Collection[Ended]) -> None:
    """Of one deployment."""
    for outcome in OUTCOMES:
        told.add(metrics.NIGHTS, 0, *name, outcome)
    for one in nights:
        told.add(metrics.NIGHTS, 1, *name, one.outcome)
    told.observe(metrics.NIGHT_DURATION, [one.seconds for one in nights], *name)
    told.add(metrics.NIGHT_ATTEMPTS, _sum(one.attempts for one in nights), *name)
    told.add(metrics.NIGHT_TOKENS, _sum(one.tokens for one in nights), *name)
    told.add(metrics.NIGHT_CPU, _sum(one.seconds * one.cpus for one in nights), *name)
    told.add(metrics.NIGHT_GPU, _sum(one.seconds * one.gpus for one in nights), *name)
    for stage in metrics.STAGES:
        told.add(metrics.STAGE_DURATION, _sum(one.stages.get(stage, 0.0) for one in nights), *name, stage)
    for fate in FATES:
        told.add(metrics.DREAMS, _sum(one.dreams.get(fate, 0) for one in nights), *name, fate)


def _sum(values: Iterable[float]) -> float:
    return float(sum(values))
