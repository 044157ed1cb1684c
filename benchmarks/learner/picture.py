"""The scaling curves as a picture: tokens per second and memory over one axis each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

LABELS = {
    "sequence": "tokens of a sequence",
    "experts": "sealed experts that are heard besides",
    "vocabulary": "vocabulary",
}
COLOURS = {
    "circadian": "#1b6ca8",
    "circadian_once": "#8fbfe0",
    "trl_gkd": "#c44e52",
    "trl_distillation": "#dd8452",
    "trl_self": "#8c8c8c",
}
MIB = 2**20


def draw(curves: dict[str, dict[str, dict[str, Any]]], path: Path) -> None:
    """curves: axis -> contender -> value on the axis -> numbers."""
    figure, axes = plt.subplots(2, len(curves), figsize=(4.2 * len(curves), 6.4), squeeze=False)
    for column, (axis, contenders) in enumerate(curves.items()):
        for contender, points in contenders.items():
            where = [int(value) for value in points]
            speed = [point["tokens_per_second"] for point in points.values()]
            memory = [point["own_peak_bytes"] / MIB for point in points.values()]
            for row, values in enumerate((speed, memory)):
                if row and contender == "circadian_once":
                    continue  # the same memory
                axes[row][column].plot(where, values, "o-", ms=3.5, lw=1.4, color=COLOURS.get(contender), label=contender)
        for row, label in enumerate(("tokens per second", "peak MiB, without the libraries")):
            panel = axes[row][column]
            panel.set(xscale="log", xlabel=LABELS[axis], ylabel=label if not column else "")
            panel.set_xticks(where, [str(value) for value in where], minor=False)
            panel.minorticks_off()
            panel.set_ylim(bottom=0)
            panel.grid(alpha=0.3)
    figure.legend(*axes[0][0].get_legend_handles_labels(), loc="upper center", ncols=len(COLOURS), fontsize=9, frameon=False)
    figure.tight_layout(rect=(0, 0, 1, 0.96))
    figure.savefig(path, dpi=130)
    plt.close(figure)
