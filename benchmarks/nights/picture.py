"""Every method's nights in one look: recall of all nights so far, held-out text, and who remembers which night."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from benchmarks.nights.life import BASELINES

WIDTH, CURVES, ROW, ACROSS = 15.0, 4.6, 1.75, 7
"""Inches: the picture's width, the height of the curves and of a row of matrices; and matrices in a row."""
ALLOWED = 0.05
"""Rise that Sleep may have."""


def draw(methods: dict[str, Any], path: Path) -> None:
    """methods: as in nights.json, lists over seeds. Above the curves, below each method's mean matrix; baselines are dashed."""
    rows = -(-len(methods) // ACROSS)
    figure = plt.figure(figsize=(WIDTH, CURVES + ROW * rows), layout="constrained")
    above, below = figure.subfigures(2, 1, squeeze=False, height_ratios=(CURVES, ROW * rows))[:, 0]
    _curves(above, methods)
    grids = below.subplots(rows, ACROSS, sharex=True, sharey=True, squeeze=False).flat
    size = max(len(found["matrices"][0]) for found in methods.values())
    for axes, (name, found) in zip(grids, methods.items(), strict=False):
        axes.imshow(_mean_matrix(found, size), vmin=0, vmax=1, origin="lower", extent=(0.5, size + 0.5, 0.5, size + 0.5))
        axes.set_title(name, fontsize=9)
        axes.set(xticks=(1, size), yticks=(1, size))
    for axes in below.axes[len(methods) :]:
        axes.set_visible(False)
    below.supxlabel("facts of night", fontsize=9)
    below.supylabel("asked after night", fontsize=9)
    below.colorbar(below.axes[0].images[0], ax=below.axes, shrink=0.8, label="recall")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _curves(figure: Any, methods: dict[str, Any]) -> None:
    recall, text = figure.subplots(1, 2)
    colors = plt.get_cmap("tab20").colors  # type: ignore[attr-defined]
    for number, (name, found) in enumerate(methods.items()):
        mean = np.mean([[np.mean(row) for row in rows] for rows in found["matrices"]], 0)
        nights = range(1, len(mean) + 1)
        style = {"color": colors[number % len(colors)], "linewidth": 1.6, "linestyle": "--" if name in BASELINES else "-"}
        recall.plot(nights, mean, label=name, **style)
        text.plot(nights, np.mean(found["nll_by_night"], 0), **style)
    recall.set(xlabel="night", ylabel="recall of all nights so far", ylim=(0, 1.03))
    text.set(xlabel="night", ylabel="rise of held-out NLL, nats a token")
    text.set_yscale("symlog", linthresh=2 * ALLOWED)
    text.set_ylim(bottom=0)
    text.axhline(ALLOWED, color="grey", linewidth=0.8, linestyle=":")
    figure.legend(loc="outside right center", fontsize=8)


def _mean_matrix(found: dict[str, Any], size: int) -> np.ndarray[Any, Any]:
    """Over seeds; what cannot be asked yet is empty."""
    grid = np.full((size, size), np.nan)
    for i, row in enumerate(np.mean([[r + [np.nan] * (size - len(r)) for r in rows] for rows in found["matrices"]], 0)):
        grid[i, : len(row)] = row
    return grid
