"""What the page /ui draws, from rows of the registry: pure functions, but for the state of a version's experts, which is in its folder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from circadian.memory.folder import version_state
from circadian.memory.state import ExpertState
from services import registry
from services.api import views
from services.api.views import View
from services.depths import DEPTHS
from services.tables import Deployment, Event, Json, Sleep, Version

DEPTHS_TOLD = [{"name": name, "stages": list(stages)} for name, stages in DEPTHS.items()]
NOT_DRAWN = ("sleep.progress", "sleep.phases", "sleep.stage_resumed", "sleep.fast_memory")
"""Events that a hypnogram of a whole life leaves out: there are many of them, or they take no time."""
KEPT = ("stage", "seconds", "attempt", "job", "run", "rank", "step", "version", "outcome")
"""Of what an event says; a stage's outputs are long."""
OF_VERSIONS = ("versions", "matrix", "experts")
NEVER_SERVED = frozenset({"rejected", "revoked", "deleted"})
"""Versions of which no other one comes, or will."""


def night(row: Sleep, events: Sequence[Event]) -> View:
    """A sleep and its events; what it was told to do is left out, /v1/sleeps/{id} has it. `last_seq`: whoever follows its events goes on
    behind this one, for what it and those before it say is in here."""
    whole, report = views.sleep(row), row.report or {}
    told = [registry.told(event) | {"data": _kept(event.data)} for event in events]
    measured: Mapping[str, float | None] = (report.get("gate") or {}).get("measured", {})
    known = {"recall": measured.get("agreement"), "kept": _without(measured.get("forgotten")), "gates": gates(report)}
    return {name: value for name, value in whole.items() if name != "recipe"} | known | {"events": told, "last_seq": row.last_seq}


def _without(share: float | None) -> float | None:
    return None if share is None else 1.0 - share


def _kept(data: Json) -> Json:
    outputs = data.get("outputs")
    into = {"into": outputs["into"]} if isinstance(outputs, dict) and "into" in outputs else {}
    return {name: data[name] for name in KEPT if name in data} | into


def gates(report: Json) -> list[View]:
    """Every criterion of a night's gate, as the gate itself tells it; else what was measured beside the limits of the recipe
    (`min_agreement`, `max_lost`, ...)."""
    verdict, limits = report.get("gate") or {}, report.get("recipe", {}).get("gate", {})
    return verdict.get("gates") or [_criterion(name, value, limits) for name, value in verdict.get("measured", {}).items()]


def _criterion(name: str, value: float | None, limits: Json) -> View:
    lowest: float | None = limits.get(f"min_{name}")
    highest: float | None = limits.get(f"max_{name}")
    limit, bound = (lowest, "at least") if highest is None else (highest, "at most")
    if value is None:
        return {"name": name, "passed": None, "value": None, "limit": limit, "message": "not measured"}
    passed = (lowest is None or value >= lowest) and (highest is None or value <= highest)
    message = f"{bound} {limit}" if limit is not None else ""
    return {"name": name, "passed": passed, "value": value, "limit": limit, "message": message}


def of_versions(rows: Sequence[Version], shown: Version, deployment: Deployment) -> View:
    """Versions, newest first, what they know of each night, and the experts of one of them."""
    return {"versions": [views.version(row) for row in rows], "matrix": matrix(rows), "experts": experts(shown, deployment)}


def matrix(rows: Sequence[Version]) -> list[View]:
    """A column for each version that a night made and that has served or may, oldest first: what of which nights it knows.

    own      share of the day's questions that it completes as the awake teacher did
    earlier  share of old cues that it completes as the version before it did, over all nights of its ancestors together
    kept     the same of each night alone, where the gate has measured that
    """
    by_id = {row.id: row for row in rows}
    return [_column(row, by_id) for row in reversed(rows) if row.sleep is not None and row.status not in NEVER_SERVED]


def _column(row: Version, by_id: Mapping[str, Version]) -> View:
    metrics = _metrics(row)
    return {
        "version": row.id,
        "night": row.sleep,
        "own": metrics.get("agreement"),
        "earlier": _without(metrics.get("forgotten")),
        "earlier_nights": [before.sleep for before in _ancestors(row, by_id) if before.sleep],
        "kept": row.record.get("kept", {}),
    }


def _metrics(row: Version) -> Mapping[str, float]:
    """What the gate measured of a version: each expert that its night wrote carries it."""
    return next((expert["metrics"] for expert in row.record["lineage"] if expert["sleep"] == row.sleep), {})


def _ancestors(row: Version, by_id: Mapping[str, Version]) -> Iterator[Version]:
    """The versions that it came from, nearest first, as far as they are told."""
    parent = by_id.get(row.parent or "")
    while parent is not None:
        yield parent
        parent = by_id.get(parent.parent or "")


def experts(shown: Version, deployment: Deployment) -> View:
    """Every expert of a version by level: its state, and where it holds something, from which nights and how far that is trusted."""
    written = {(expert["level"], expert["expert"]): expert for expert in shown.record["lineage"]}
    states = _states(shown)
    levels = [
        {
            "level": number,
            "period": level["period"],
            "rank": level["rank"],
            "experts": [_expert(number, i, states, written.get((number, i))) for i in range(level["experts"])],
        }
        for number, level in enumerate(deployment.memory["levels"])
    ]
    return {"version": shown.id, "levels": levels}


def _expert(level: int, expert: int, states: Sequence[Sequence[str]] | None, record: Json | None) -> View:
    state = states[level][expert] if states else ExpertState.SEALED if record else None
    told: dict[str, Any] = {"expert": expert, "state": state}
    if record is None:
        return told
    kept = ("sleep", "nights", "trust", "teachers", "metrics")
    return told | {name: record[name] for name in kept} | {"dreamt_of": len(record["dreamt_of"])}


def _states(shown: Version) -> list[list[str]] | None:
    """None where the folder is gone: of a version that was deleted its record is kept."""
    try:
        return version_state(Path(shown.folder)).names()
    except FileNotFoundError:
        return None


def nights_in(known: View) -> list[str]:
    """The sleeps that versions, matrix and experts name."""
    made = [version["sleep"] for version in known["versions"] or ()]
    levels = known["experts"]["levels"] if known["experts"] else ()
    held = [night.partition("+")[0] for level in levels for expert in level["experts"] for night in expert.get("nights", ())]
    return [sleep for sleep in dict.fromkeys([*made, *held]) if sleep]
