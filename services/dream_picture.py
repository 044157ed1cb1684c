"""A night's dreams as a picture: where they were drawn, how well instances did that learned them, and which were kept."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from services.dreams import FINAL, compared
from services.tables import Json

NIGHT, REWARDED, TRIED = "#39456e", "#c0563b", "#b9c3dd"


def draw_dreams(dreams: Sequence[Json], curriculum: Sequence[Json], path: Path) -> None:
    """Write the picture as SVG. Both as services/dreams.py tells them; raises ValueError where nothing was dreamt."""
    names = list(dict.fromkeys(line["round"] for line in curriculum))
    if not names:
        raise ValueError("no context was drawn in this night: there is nothing to draw")
    matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "circadian", "font.size": 9})
    figure = Figure(figsize=(9.2, 4.4), layout="constrained")
    need, tried = figure.subplots(1, 2, width_ratios=[1.2, 1.0])
    _curriculum(need, curriculum, names)
    _tried(tried, dreams, names)
    figure.savefig(path, metadata={"Date": None})


def _curriculum(axes: Axes, curriculum: Sequence[Json], names: Sequence[str]) -> None:
    """A line for each context, a column for each round: how much it needed dreams; a dot where it was drawn."""
    contexts = sorted({line["context"] for line in curriculum}, key=lambda name: _need(curriculum, name))
    grid = [[0.0] * len(names) for _ in contexts]
    for line in curriculum:
        row, column = contexts.index(line["context"]), names.index(line["round"])
        grid[row][column] = line["need"]
        if line["drawn"]:
            axes.plot(column, row, ".", color=REWARDED, ms=4)
    shown = axes.imshow(grid, aspect="auto", cmap="Blues", vmin=0.0, origin="lower")
    axes.figure.colorbar(shown, ax=axes, label="need")
    axes.set_xticks(range(len(names)), names)
    axes.set_yticks([])
    axes.set_xlabel("round")
    axes.set_ylabel(f"{len(contexts)} contexts; dots: dreamt of")


def _need(curriculum: Sequence[Json], context: str) -> float:
    return next(line["need"] for line in curriculum if line["context"] == context)


def _tried(axes: Axes, dreams: Sequence[Json], names: Sequence[str]) -> None:
    """Of each dream that was tried, what its instance knew against the undreamt one."""
    for column, name in enumerate(names):
        tried = compared([dream for dream in dreams if dream["round"] == name])
        spread = [column + 0.6 * ((i + 0.5) / max(1, len(tried)) - 0.5) for i in range(len(tried))]
        colours = [REWARDED if dream["rewarded"] else TRIED for dream in tried]
        axes.scatter(spread, [dream["score"] - dream["undreamt"] for dream in tried], s=14, c=colours)
    axes.axhline(0.0, color=NIGHT, lw=0.8)
    axes.set_xticks(range(len(names)), ["kept from" if name == FINAL else name for name in names])
    axes.set_xlabel("round")
    axes.set_ylabel("score above the undreamt instance")
    for label, colour in (("rewarded", REWARDED), ("tried", TRIED)):
        axes.scatter([], [], s=14, c=colour, label=label)
    axes.legend(loc="upper left", frameon=False)
