"""The table of docs/consolidation.md, made of the result, so that no number there is typed by hand.

Of every method the mean over seeds, and the worst of them in brackets. Bold is what was asked of Sleep and missed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.page import DOCS

PAGE = DOCS / "consolidation.md"
OURS = ("sleep", "distillation")
"""The methods of which it was asked; the others are there to be compared."""
COLUMNS: dict[str, tuple[str, Callable[[Sequence[float]], float], Callable[[float], bool]]] = {
    "final_recall": ("recall of all nights", min, lambda mean: mean < 0.95),
    "acquired": ("of the day", min, lambda mean: False),
    "forgetting": ("forgetting", max, lambda mean: mean > 0.02),
    "base": ("base", min, lambda mean: mean < 0.98),
    "nll_delta": ("held-out NLL", max, lambda mean: mean > 0.05),
    "open_book": ("open book", min, lambda mean: False),
    "passes_a_night": ("thousand token passes a night", max, lambda mean: False),
    "seconds_a_night": ("s a night", max, lambda mean: False),
}
"""By name in the result: title, which seed is the worst, and whether a mean misses what was asked for."""
DIGITS = {"seconds_a_night": 0, "passes_a_night": 0}
UNITS = {"passes_a_night": 1000}


def table(methods: dict[str, Any]) -> list[str]:
    """A row for each method."""
    titles = [title for title, _, _ in COLUMNS.values()]
    lines = [f"| method | seeds | lr | {' | '.join(titles)} |", "|---|---|---|" + "---|" * len(titles)]
    for method, numbers in methods.items():
        cells = [_cell(method, name, numbers[name]) for name in COLUMNS]
        lines.append(f"| `{method}` | {len(numbers['seeds'])} | {numbers['lr']:g} | {' | '.join(cells)} |")
    return lines


def tables(result: dict[str, Any]) -> str:
    """As Markdown."""
    lines = table({method: numbers for method, numbers in result.items() if method != "about"})
    if result["about"]["missing"]:
        lives: dict[str, list[str]] = {}
        for life in result["about"]["missing"]:
            lives.setdefault(life.split()[0], []).append(life.split()[1])
        told = [f"`{method}` {' '.join(seeds)}" for method, seeds in lives.items()]
        lines += ["", f"Not lived yet (seeds): {', '.join(told)}."]
    return "\n".join(lines)


def _cell(method: str, name: str, values: Sequence[float]) -> str:
    _, worst, misses = COLUMNS[name]
    values = [value / UNITS.get(name, 1) for value in values]
    mean, digits = sum(values) / len(values), DIGITS.get(name, 3)
    text = f"{mean:.{digits}f}" + (f" ({worst(values):.{digits}f})" if len(values) > 1 else "")
    return f"**{text}**" if method in OURS and misses(mean) else text
