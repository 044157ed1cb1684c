"""The table of docs/dreaming.md, made of the result."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.page import DOCS

PAGE = DOCS / "dreaming.md"


def tables(result: dict[str, Any]) -> str:
    """As Markdown: accuracy before and after the rounds with its 95 % interval, what the dreams were worth, and what it took."""
    lines = [
        "| method | seeds | before any round | after the last | 95 % | dreams right | of use | instances tried | token passes |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for method, found in result["methods"].items():
        low, high = found["interval"][-1]
        cells = [
            str(len(found["seeds"])),
            f"{_mean(found['accuracy'][0]):.3f}",
            f"{_mean(found['accuracy'][-1]):.3f}",
            f"{low:.3f} to {high:.3f}",
            *(_both(found[name]) for name in ("dreams_right", "dreams_useful")),
            f"{_mean(found['tried']):.0f}" if any(found["tried"]) else "",
            f"{_mean(found['passes']) / 1e6:.2f} M" if any(found["passes"]) else "",
        ]
        lines.append(f"| `{method}` | {' | '.join(cells)} |")
    if result["missing"]:
        lines += ["", f"Not lived yet: {', '.join(result['missing'])}."]
    return "\n".join(lines)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _both(rounds: Sequence[Sequence[float]]) -> str:
    return f"{_mean(rounds[0]):.2f}, then {_mean(rounds[-1]):.2f}" if rounds else ""
