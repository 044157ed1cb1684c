"""The report of a sleep: what went in, what was asked of it, what it showed, what it cost, and where its knowledge lies. Pure functions.

`facts` is the report as JSON; `sections` is the same for people, and report_text.py writes those as Markdown or HTML. What the night itself
reported (pipelines/publish.py) is part of the JSON as it was.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

from services.budget import Spent
from services.tables import Json, Sleep

GATES = {
    "agreement": ("min_agreement", "of the day's cues, completed as the awake self does"),
    "taught": ("min_taught", "of what other models taught, completed as they do"),
    "dreamt": ("min_dreamt", "of the kept dreams' cues, completed as the self that had learned them does"),
    "forgotten": ("max_forgotten", "of the old cues, completed otherwise than before"),
    "lost": ("max_lost", "of the words of its own text that it was sure of and is no more"),
    "nll_rise": ("max_nll_rise", "nats a token, on text that it wrote itself before"),
}
"""What the gate measures: the limit in the recipe, and in words. A limit that begins with `max_` is not to be passed."""
FORGETTING = ("forgotten", "lost", "nll_rise")
COLLECTED = ("experiences", "tokens", "rows", "day_cues", "old_cues", "documents_cut")
"""Of what the stage `collect` put out."""


@dataclass(frozen=True)
class Section:
    """A heading, lines of text, and a table where there are rows."""

    title: str
    lines: tuple[str, ...] = ()
    head: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()


def facts(sleep: Sleep, spent: Spent, collected: Json | None, lineage: Sequence[Json]) -> Json:
    """The report of a sleep that has one. collected: what its night collected, if that is still there; lineage: of its version, if any."""
    assert sleep.report is not None, "its sleep has ended with an outcome"
    night = sleep.report
    written = [expert for expert in lineage if expert["sleep"] == sleep.id]
    return {
        "object": "sleep.report",
        **night,
        "sleep": sleep.id,
        "outcome": sleep.outcome,
        "version": sleep.result_version,
        "left_out": sleep.left_out,
        "inputs": {name: (collected or {}).get(name) for name in COLLECTED}
        | {"left_out": sleep.left_out, "selection": sleep.selection, "held_out": len(sleep.held_out)},
        "config": {"sha256": digest(sleep.recipe), "seed": sleep.seed, "attempts": sleep.attempt},
        "gates": gates(night.get("gate"), sleep.recipe["gate"]),
        "before_after": [
            {
                "transfer": name,
                "loss_before": told.get("first_loss"),
                "loss_after": told.get("final_loss"),
                "steps": told.get("steps"),
            }
            for name, told in (night.get("transfers") or {}).items()
        ],
        "forgetting": {name: ((night.get("gate") or {}).get("measured") or {}).get(name) for name in FORGETTING},
        "cost": spent.told() | {"stages": night.get("stages", {})},
        "lineage": {"parent": sleep.parent_version, "version": sleep.result_version, "written": written},
    }


def digest(recipe: Json) -> str:
    """SHA-256 of a recipe, whatever the order of its fields."""
    return hashlib.sha256(json.dumps(recipe, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def gates(told: Json | None, limits: Json) -> list[Json]:
    """What the gate measured against each limit; nothing of a night that had none. What could not be measured has not been judged."""
    found = []
    for name, (field, words) in GATES.items() if told else ():
        value, limit = (told or {}).get("measured", {}).get(name), limits.get(field)
        good = None if value is None or limit is None else value <= limit if field.startswith("max_") else value >= limit
        found.append({"name": name, "passed": good, "value": value, "limit": limit, "message": words})
    return found


def sections(report: Json) -> list[Section]:
    """For people."""
    return [
        Section(f"Sleep {report['sleep']}", _summary(report)),
        Section("Inputs", rows=_pairs(report["inputs"]), head=("what", "value")),
        Section("Configuration", rows=_pairs(report["config"]), head=("what", "value")),
        _gates(report),
        Section(
            "Before and after",
            ("Loss of each transfer of knowledge, nats a token.",),
            ("transfer", "before", "after", "steps"),
            tuple(
                (line["transfer"], _text(line["loss_before"]), _text(line["loss_after"]), _text(line["steps"]))
                for line in report["before_after"]
            ),
        ),
        Section("Forgetting", rows=_pairs(report["forgetting"]), head=("what", "value")),
        _cost(report["cost"]),
        _lineage(report["lineage"]),
    ]


def _summary(report: Json) -> tuple[str, ...]:
    version = f"It woke as {report['version']}." if report["version"] else "It woke as what fell asleep."
    told = report.get("reason")
    return (f"Outcome: {_text(report['outcome'])}.", version, *((str(told),) if told else ()))


def _gates(report: Json) -> Section:
    words = {True: "passed", False: "failed", None: "not measured"}
    rows = tuple(
        (gate["name"], _text(gate["value"]), _text(gate["limit"]), words[gate["passed"]], gate["message"])
        for gate in report["gates"]
    )
    reasons = tuple(str(reason) for reason in (report.get("gate") or {}).get("reasons", ()))
    return Section(
        "Gates", reasons or (() if rows else ("The night came to no gate.",)), ("gate", "value", "limit", "", "what"), rows
    )


def _cost(cost: Json) -> Section:
    stages = tuple((name, f"{seconds:.1f}") for name, seconds in sorted(cost["stages"].items(), key=lambda item: -item[1]))
    line = f"{cost['wall_seconds']:.1f} s, {cost['gpu_seconds']:.1f} GPU seconds."
    return Section("Cost", (line,), ("stage", "seconds"), stages)


def _lineage(lineage: Json) -> Section:
    rows = tuple(
        (str(expert["level"]), str(expert["expert"]), ", ".join(expert["nights"]), expert["trust"], expert["data_sha256"])
        for expert in lineage["written"]
    )
    return Section(
        "Lineage", (f"Parent: {lineage['parent']}.",), ("level", "expert", "nights", "trust", "SHA-256 of the data"), rows
    )


def _pairs(told: Json) -> tuple[tuple[str, ...], ...]:
    return tuple((name.replace("_", " "), _text(value)) for name, value in told.items())


def _text(value: object) -> str:
    """As people read it."""
    if value is None:
        return "not known"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict):
        return ", ".join(f"{key}: {_text(item)}" for key, item in value.items()) or "none"
    return str(value)
