"""What clients saw of a night: every answer by its time and latency, coloured by the version that gave it, over the night's stages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.ticker import FixedLocator, NullLocator, ScalarFormatter

from benchmarks.service.life import Lived

WIDTH, HEIGHT = 11.0, 4.2
COLORS = {"parent": "#4c72b0", "parent with the night's fast memory": "#dd8452", "child": "#55a868"}
FAILED = "#c44e52"
TICKS_MS = (10, 20, 50, 100, 200, 500, 1000, 2000, 5000)
APART_SECONDS = 3.0
"""Names of stages that begin closer than this would lie on one another."""


def draw(lived: Lived, path: Path) -> None:
    begin = lived.lines[0]["at"]
    figure, axes = plt.subplots(figsize=(WIDTH, HEIGHT), layout="constrained")
    for name, color in COLORS.items():
        mine = [line for line in lived.lines if line["status"] == 200 and _name(line["version"], lived) == name]
        axes.scatter([line["at"] - begin for line in mine], [1e3 * line["seconds"] for line in mine], s=7, color=color, label=name)
    failed = [line for line in lived.lines if line["status"] != 200]
    times, latencies = [line["at"] - begin for line in failed], [1e3 * line["seconds"] for line in failed]
    axes.scatter(times, latencies, marker="x", color=FAILED, label="failed")
    for at, name in _marks(lived.stages, begin):
        axes.axvline(at, color="0.85", linewidth=0.8, zorder=0)
        axes.text(at, 1.01, name, rotation=30, fontsize=7, transform=axes.get_xaxis_transform(), color="0.35")
    for number, (window_begin, window_end) in enumerate([*lived.windows["promotion"], lived.revocation]):
        label = None if number else "promotion, rollback, revocation"
        axes.axvspan(window_begin - begin, window_end - begin, color="#ccb974", alpha=0.25, linewidth=0, zorder=0, label=label)
    axes.set(xlabel="seconds", ylabel="latency, ms", yscale="log")
    axes.yaxis.set_major_locator(FixedLocator(TICKS_MS))
    axes.yaxis.set_major_formatter(ScalarFormatter())
    axes.yaxis.set_minor_locator(NullLocator())
    figure.legend(loc="outside lower center", ncols=len(COLORS) + 2, fontsize=8, markerscale=2, frameon=False)
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def _marks(stages: list[dict[str, Any]], begin: float) -> list[tuple[float, str]]:
    """When stages began, in seconds; those that began at once have one mark, named after the last of them, which went on."""
    marks: list[tuple[float, str]] = []
    for event in stages:
        if event["type"] == "sleep.stage_started":
            at, name = event["created_at"] - begin, event["data"]["stage"].replace("_", " ")
            if marks and at - marks[-1][0] < APART_SECONDS:
                marks.pop()
            marks.append((at, name))
    return marks


def _name(version: str | None, lived: Lived) -> str:
    base, _, memory = (version or "").partition("+")
    if memory:
        return "parent with the night's fast memory"
    return "child" if base == lived.versions["child"] else "parent"
