"""Pictures of dashboards, drawn from the same queries that Grafana would ask, where no Grafana is."""

from __future__ import annotations

import re
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from prometheus import Line, Prometheus

from services.monitoring.panels import COLUMNS, Dashboard, Panel, grafana

WIDTH = 18.0
"""Inches, of 24 columns."""
ROW_INCHES = 0.36
DPI = 84
COLOURS = ("#1f60c4", "#37872d", "#e0752d", "#c4162a", "#8f3bb8", "#e0b400", "#3274a1", "#7f7f7f", "#0a7c7c", "#a352cc")
MOST_LEGEND = 8
"""Names below a panel; more would hide it."""


def draw(dashboard: Dashboard, prometheus: Prometheus, ended: float, path: Path) -> None:
    """The whole page, its panels where Grafana puts them."""
    placed = {panel["id"]: panel for panel in grafana(dashboard)["panels"]}
    height = max(one["gridPos"]["y"] + one["gridPos"]["h"] for one in placed.values())
    with mpl.rc_context({"font.size": 7.5, "font.family": "DejaVu Sans", "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(WIDTH, (height + 2) * ROW_INCHES), dpi=DPI, facecolor="#f4f5f5")
        figure.text(0.01, 1 - 0.8 / (height + 2), dashboard.title, fontsize=15, weight="bold", va="center")
        panels = iter(dashboard.panels)
        for one in placed.values():
            box = one["gridPos"]
            bottom = 1 - (box["y"] + box["h"] + 2) / (height + 2)
            if one["type"] == "row":
                figure.text(0.01, bottom + 0.4 / (height + 2), one["title"], fontsize=11, weight="bold", va="center")
                continue
            whole = (box["x"] / COLUMNS, bottom, box["w"] / COLUMNS, box["h"] / (height + 2))
            _panel(figure, next(panels), prometheus, ended, whole)
        figure.savefig(path)


def _panel(figure: Figure, panel: Panel, prometheus: Prometheus, ended: float, whole: tuple[float, float, float, float]) -> None:
    x, y, width, height = whole
    back = figure.add_axes((x + 0.003, y + 0.001, width - 0.006, height - 0.002), facecolor="white")
    back.set_xticks([])
    back.set_yticks([])
    for spine in back.spines.values():
        spine.set_color("#d8d9da")
    figure.text(x + 0.008, y + height * (0.93 if panel.style != "stat" else 0.82), panel.title, weight="bold", va="center")
    lines = [(_named(query.legend, line), line) for query in panel.queries for line in prometheus.over(query.expr, ended)]
    if panel.style == "stat":
        _stat(back, panel, lines)
    else:
        axes = figure.add_axes((x + 0.028, y + height * 0.27, width - 0.036, height * 0.58), facecolor="white")
        _lines(axes, panel, lines, prometheus.began)
        axes.set_xlim(0, (ended - prometheus.began) / 60)


def _stat(axes: Axes, panel: Panel, lines: list[tuple[str, Line]]) -> None:
    last = [(name, line.points[-1][1]) for name, line in lines]
    text = "   ".join(f"{value:,.4g}" if len(last) == 1 else f"{name} {value:,.4g}" for name, value in last)
    axes.text(
        0.5, 0.4, text, fontsize=17 if len(last) == 1 else 10, ha="center", va="center", color="#37872d", transform=axes.transAxes
    )


def _lines(axes: Axes, panel: Panel, lines: list[tuple[str, Line]], began: float) -> None:
    percent = panel.unit == "percentunit" or (panel.unit is None and panel.about[0].unit == "ratio")
    for i, (name, line) in enumerate(lines):
        xs, ys = [(at - began) / 60 for at, _ in line.points], [value * (100 if percent else 1) for value in line.values]
        colour = COLOURS[i % len(COLOURS)]
        dashed = "--" if name.endswith("limit") else "-"
        axes.plot(
            xs, ys, dashed, color=colour, lw=1.3, label=name if i < MOST_LEGEND else None, marker="." if len(xs) == 1 else None
        )
        if panel.stacked:
            axes.fill_between(xs, ys, color=colour, alpha=0.15, lw=0)
    axes.grid(axis="y", color="#e9e9ea", lw=0.6)
    axes.tick_params(length=2, colors="#555555")
    axes.set_xlabel("minutes" + (", %" if percent else ""), color="#555555", labelpad=1)
    lowest = min((value for _, line in lines for value in line.values), default=0.0)
    axes.set_ylim(bottom=0.0 if lowest >= 0 else None)
    if any(name for name, _ in lines):
        axes.legend(
            loc="upper left",
            bbox_to_anchor=(-0.04, -0.2),
            ncols=4 if len(lines) > 2 else 2,
            frameon=False,
            fontsize=6.3,
            handlelength=1.2,
            columnspacing=1.0,
            borderaxespad=0.2,
        )


def _named(legend: str, line: Line) -> str:
    return re.sub(r"\{\{(\w+)\}\}", lambda found: line.labels.get(found[1], ""), legend).strip()
