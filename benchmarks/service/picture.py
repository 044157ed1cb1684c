"""What clients saw of a night: every answer by its time and latency, coloured by the version that gave it, over the night's stages."""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from benchmarks.service.life import Lived

WIDTH, HEIGHT = 11.0, 4.2
COLORS = {"parent": "#4c72b0", "parent with the night's fast memory": "#dd8452", "child": "#55a868"}
FAILED = "#c44e52"


def draw(lived: Lived, path: Path) -> None:
    begin = lived.lines[0]["at"]
    figure, axes = plt.subplots(figsize=(WIDTH, HEIGHT), layout="constrained")
    for name, color in COLORS.items():
        mine = [line for line in lived.lines if line["status"] == 200 and _name(line["version"], lived) == name]
        axes.scatter([line["at"] - begin for line in mine], [1e3 * line["seconds"] for line in mine], s=7, color=color, label=name)
    failed = [line for line in lived.lines if line["status"] != 200]
    times, latencies = [line["at"] - begin for line in failed], [1e3 * line["seconds"] for line in failed]
    axes.scatter(times, latencies, marker="x", color=FAILED, label="failed")
    for event in lived.stages:
        if event["type"] == "sleep.stage_started":
            at = event["created_at"] - begin
            axes.axvline(at, color="0.85", linewidth=0.8, zorder=0)
            axes.text(
                at, 1.01, event["data"]["stage"], rotation=45, fontsize=6.5, transform=axes.get_xaxis_transform(), color="0.35"
            )
    for window_begin, window_end in lived.windows["promotion"]:
        axes.axvspan(window_begin - begin, window_end - begin, color="#ccb974", alpha=0.25, linewidth=0, zorder=0)
    axes.set(xlabel="seconds", ylabel="latency, ms", yscale="log")
    axes.legend(loc="upper right", fontsize=8, markerscale=2)
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def _name(version: str | None, lived: Lived) -> str:
    base, _, memory = (version or "").partition("+")
    if memory:
        return "parent with the night's fast memory"
    return "child" if base == lived.versions["child"] else "parent"
