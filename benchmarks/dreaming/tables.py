"""The table of docs/dreaming.md, made of the result."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.page import DOCS

PAGE = DOCS / "dreaming.md"
TITLES = (
    *("method", "seeds", "before any round", "after the last", "95 %", "one dream: before", "after", "95 %"),
    *("over `seal`: best of many", "one dream", "dreams right", "of use", "instances tried", "token passes", "of the last test"),
)
NIGHTS_TITLES = (
    *("whole nights", "seeds", "what was said", "what follows", "base"),
    *("past lost while dreaming", "of the day", "base lost", "most lost", "s a night"),
)
COSTED = ("seal", "sleep")
"""Whose seconds are told: the others do the same steps."""
STEPS = ("generate", "score", "apply", "evaluate")


def tables(result: dict[str, Any]) -> str:
    """As Markdown, of the result's `about`: accuracy before and after the rounds with its interval, what the dreams were worth, what it
    took."""
    lines = ["| " + " | ".join(TITLES) + " |", "|" + "---|" * len(TITLES)]
    for method, found in result["methods"].items():
        low, high = found["interval"][-1]
        cells = [
            str(len(found["seeds"])),
            f"{_mean(found['accuracy'][0]):.3f}",
            f"{_mean(found['accuracy'][-1]):.3f}",
            f"{low:.3f} to {high:.3f}",
            *_alone(found),
            *_over(found),
            *(_both(found[name]) for name in ("dreams_right", "dreams_useful")),
            f"{_mean(found['tried']):.0f}" if any(found["tried"]) else "",
            f"{_mean(found['passes']) / 1e6:.2f} M" if any(found["passes"]) else "",
            f"{_mean(found['test_passes']) / 1e6:.2f} M" if any(found["test_passes"]) else "",
        ]
        lines.append(f"| `{method}` | {' | '.join(cells)} |")
    if result["nights"]:
        lines += ["", "| " + " | ".join(NIGHTS_TITLES) + " |", "|" + "---|" * len(NIGHTS_TITLES)]
    for method, found in result["nights"].items():
        names = ("said", "follows", "base", "past_lost_while_dreaming", "day_lost_while_dreaming", "base_lost_while_dreaming")
        cells = [str(len(found["seeds"])), *(f"{_mean(found[name]):.3f}" for name in names)]
        cells += [f"{max(found['most_lost_while_dreaming']):.3f}", f"{_mean(found['seconds_a_night']):.0f}"]
        lines.append(f"| `{method}` | {' | '.join(cells)} |")
    lines += _costs(result["methods"])
    if rates := {method: found for method, found in result["tuning"].items() if found}:
        lines += ["", "Accuracy by the rate at which instances learn, on a seed that is not reported:", ""]
        lines += [
            f"- `{method}`: " + ", ".join(f"{lr} {value:.3f}" for lr, value in found.items()) for method, found in rates.items()
        ]
    if result["missing"]:
        lines += ["", f"Not lived yet: {', '.join(result['missing'])}."]
    return "\n".join(lines)


def _costs(methods: dict[str, Any]) -> list[str]:
    """Seconds a dream, of one process with one thread, in the last round of the life that was disturbed least."""
    told = {method: methods[method]["seconds_each"] for method in COSTED if method in methods}
    if not told:
        return []
    lines = ["", "| seconds a dream | " + " | ".join(STEPS) + " |", "|" + "---|" * (1 + len(STEPS))]
    return lines + [f"| `{method}` | {' | '.join(f'{found[step]:.3f}' for step in STEPS)} |" for method, found in told.items()]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _over(found: dict[str, Any]) -> list[str]:
    cells = []
    for name in ("accuracy", "accuracy_one"):
        told = (found["over_seal"] or {}).get(name)
        cells.append(f"{told['mean']:+.3f} ({told['interval'][0]:+.3f} to {told['interval'][1]:+.3f})" if told else "")
    return cells


def _alone(found: dict[str, Any]) -> list[str]:
    if not found["accuracy_one"]:
        return [""] * 3
    low, high = found["interval_one"][-1]
    return [f"{_mean(found['accuracy_one'][0]):.3f}", f"{_mean(found['accuracy_one'][-1]):.3f}", f"{low:.3f} to {high:.3f}"]


def _both(rounds: Sequence[Sequence[float]]) -> str:
    return f"{_mean(rounds[0]):.2f}, then {_mean(rounds[-1]):.2f}" if rounds else ""
