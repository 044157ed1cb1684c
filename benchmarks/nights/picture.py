"""Every method's nights in one look: recall of all nights so far, held-out text, and who remembers which night at the end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

WIDTH, HEIGHT = 13.0, 4.4
ALLOWED = 0.05
"""Rise that Sleep may have."""


def draw(methods: dict[str, Any], path: Path) -> None:
    """methods: as in nights.json, lists over seeds."""
    figure, (recall, text, matrix) = plt.subplots(1, 3, figsize=(WIDTH, HEIGHT), layout="constrained", width_ratios=(1.2, 1.0, 1.0))
    colors = plt.get_cmap("tab20").colors  # type: ignore[attr-defined]
    for color, (name, found) in zip(colors, methods.items(), strict=False):
        mean = np.mean([[np.mean(row) for row in rows] for rows in found["matrices"]], 0)
        nll = np.mean(found["nll_by_night"], 0)
        nights = range(1, len(mean) + 1)
        recall.plot(nights, mean, color=color, label=name, linewidth=1.6)
        text.plot(nights, nll, color=color, linewidth=1.6)
    recall.set(xlabel="night", ylabel="recall of all nights so far", ylim=(0, 1.03))
    recall.legend(fontsize=7, ncols=2, loc="lower left")
    text.set(xlabel="night", ylabel="rise of held-out NLL, nats a token")
    text.set_yscale("symlog", linthresh=2 * ALLOWED)
    text.set_ylim(bottom=0)
    text.axhline(ALLOWED, color="grey", linewidth=0.8, linestyle="--")
    first = next(iter(methods.values()))
    size = len(first["matrices"][0])
    grid = np.full((size, size), np.nan)
    for i, row in enumerate(np.mean([[r + [np.nan] * (size - len(r)) for r in rows] for rows in first["matrices"]], 0)):
        grid[i] = row
    image = matrix.imshow(grid, vmin=0, vmax=1, cmap="viridis", origin="lower", extent=(0.5, size + 0.5, 0.5, size + 0.5))
    matrix.set(xlabel="facts of night", ylabel="after night", title=next(iter(methods)))
    figure.colorbar(image, ax=matrix, shrink=0.8)
    figure.savefig(path, dpi=130)
    plt.close(figure)
