"""Accuracy by round of every method, with its interval."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

WIDTH, HEIGHT = 8.0, 4.6
PANELS = (
    ("accuracy", "interval", "the best of its dreams by the score, where a method selects"),
    ("accuracy_one", "interval_one", "a single dream, for every method"),
)


def draw(methods: dict[str, Any], path: Path) -> None:
    """methods: as in dreaming.json, by round, lists over seeds."""
    figure, panels = plt.subplots(1, 2, figsize=(2 * WIDTH * 0.75, HEIGHT), layout="constrained", sharey=True)
    longest = max((len(found["accuracy"]) for found in methods.values()), default=1)
    for axes, (values, edges, title) in zip(panels, PANELS, strict=True):
        for color, (name, found) in zip(plt.get_cmap("tab10").colors, methods.items(), strict=False):  # type: ignore[attr-defined]
            known, between = (found[values], found[edges]) if found[values] else (found["accuracy"], found["interval"])
            mean, around = np.mean(known, 1), np.array(between)
            if len(mean) == 1:
                axes.hlines(mean[0], 0, longest - 1, color=color, linestyle="--", linewidth=1.2, label=name)
                continue
            axes.plot(np.arange(len(mean)), mean, color=color, marker="o", linewidth=1.6, label=name)
            axes.fill_between(np.arange(len(mean)), around[:, 0], around[:, 1], color=color, alpha=0.12)
        axes.set(xlabel="rounds in which the dreamer learned", ylim=(0, 1.03), title=title)
        axes.set_xticks(range(longest))
    panels[0].set_ylabel("what follows is answered, passage not in view")
    if methods:
        panels[0].legend(fontsize=8, ncols=2)
    figure.savefig(path, dpi=130)
    plt.close(figure)
