"""Accuracy by round of every method, with its interval."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

WIDTH, HEIGHT = 8.0, 4.6


def draw(methods: dict[str, Any], path: Path) -> None:
    """methods: as in dreaming.json, by round, lists over seeds."""
    figure, axes = plt.subplots(figsize=(WIDTH, HEIGHT), layout="constrained")
    longest = max((len(found["accuracy"]) for found in methods.values()), default=1)
    for color, (name, found) in zip(plt.get_cmap("tab10").colors, methods.items(), strict=False):  # type: ignore[attr-defined]
        mean, edges = np.mean(found["accuracy"], 1), np.array(found["interval"])
        rounds = np.arange(len(mean))
        if len(mean) == 1:
            axes.hlines(mean[0], 0, longest - 1, color=color, linestyle="--", linewidth=1.2, label=name)
            continue
        axes.plot(rounds, mean, color=color, marker="o", linewidth=1.6, label=name)
        axes.fill_between(rounds, edges[:, 0], edges[:, 1], color=color, alpha=0.12)
    axes.set(xlabel="rounds in which the dreamer learned", ylabel="what follows is answered, passage not in view", ylim=(0, 1.03))
    axes.set_xticks(range(longest))
    axes.legend(fontsize=8, ncols=2)
    figure.savefig(path, dpi=130)
    plt.close(figure)
