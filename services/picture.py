"""The hypnogram of a night: what the deployment did, what served meanwhile, and what it knew, drawn from the night's own events."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from services.depths import DEPTHS, DREAMING, depth_of

Event = dict[str, Any]
SERVED = (("before", "#b9c3dd"), ("awake", "#f0c987"), ("after", "#9cc9a7"))
SERVED_NAMES = {"before": "yesterday's version", "awake": "with fast memory", "after": "new version"}
NIGHT = "#39456e"
LEAD_SECONDS = 30.0
"""Of waking life drawn before and after the night."""


def draw_night(report: dict[str, Any], events: Sequence[Event], path: Path) -> None:
    """Write the picture as SVG."""
    matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "circadian", "font.size": 9})
    start = events[0]["created_at"]
    told = [(event["created_at"] - start, event["type"], event["data"]) for event in events]
    figure = Figure(figsize=(9.2, 5.2), layout="constrained")
    serving, depth, loss = figure.subplots(3, 1, sharex=True, height_ratios=[1.1, 2.2, 1.6])
    _serving(serving, report, told)
    _hypnogram(depth, told)
    _losses(loss, told)
    loss.set_xlim(-LEAD_SECONDS, told[-1][0] + LEAD_SECONDS)
    loss.set_xlabel("seconds since the sleep was asked for")
    figure.savefig(path, metadata={"Date": None})


def _at(told: Sequence[tuple[float, str, Any]], kind: str) -> float:
    return next(seconds for seconds, type_, _ in told if type_ == kind)


def _serving(axes: Axes, report: dict[str, Any], told: Sequence[tuple[float, str, Any]]) -> None:
    """Who answers, and how much of the day and of the past it knows."""
    dusk, dawn, end = _at(told, "deployment.fast_memory_live"), _at(told, "version.promoted"), told[-1][0] + LEAD_SECONDS
    spans = zip(SERVED, ((-LEAD_SECONDS, dusk), (dusk, dawn), (dawn, end)), strict=True)
    for (moment, colour), (left, right) in spans:
        axes.axvspan(left, right, color=colour, lw=0)
        text = f"{SERVED_NAMES[moment]}\nday {report['recall'][moment]:.2f}\npast {report['base'][moment]:.2f}"
        axes.text((left + right) / 2, 0.5, text, ha="center", va="center", transform=axes.get_xaxis_transform())
    axes.set_yticks([])
    axes.set_ylabel("answers")


def _hypnogram(axes: Axes, told: Sequence[tuple[float, str, Any]]) -> None:
    drawn = [(at, label) for at, kind, data in told if kind == "sleep.stage_started" and (label := depth_of(data["stage"]))]
    dreamt = any(label == DREAMING for _, label in drawn)
    labels = [label for label in DEPTHS if dreamt or label != DREAMING]
    times = [-LEAD_SECONDS, *(at for at, _ in drawn)]
    depths = [0, *(-labels.index(label) for _, label in drawn)]
    axes.step([*times, told[-1][0] + LEAD_SECONDS], [*depths, 0], where="post", color=NIGHT, lw=2)
    axes.set_yticks([-i for i in range(len(labels))], labels)
    axes.grid(axis="y", color="#dddddd", lw=0.6)
    for seconds, kind, _ in told:
        if kind == "sleep.learner_started":
            axes.plot(seconds, -0.06, marker="v", color="#c0563b", ms=5, clip_on=False)
    axes.plot([], [], "v", color="#c0563b", ms=5, label="learner starts")
    axes.legend(loc="lower left", frameon=False)


def _losses(axes: Axes, told: Sequence[tuple[float, str, Any]]) -> None:
    for task, colour in (("fast_learning", "#d39a3a"), ("seeding", NIGHT)):
        points = [(seconds, data["loss"]) for seconds, kind, data in told if kind == "sleep.progress" and data["task"] == task]
        axes.plot([x for x, _ in points], [y for _, y in points], color=colour, label=task.replace("_", " "))
    axes.set_yscale("log")
    axes.set_ylabel("loss, nats/token")
    axes.legend(loc="upper right", frameon=False)
