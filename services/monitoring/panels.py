"""What a dashboard consists of, and its JSON as Grafana reads it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from circadian.metrics import METRICS, Metric

Style = Literal["timeseries", "stat", "bars"]
COLUMNS = 24
HEIGHT, STAT_HEIGHT = 8, 4
SCHEMA = 39
"""Of Grafana's dashboards, which newer Grafanas migrate by themselves."""
UNITS = {"": "short", "seconds": "s", "tokens": "short", "ratio": "percentunit", "nats": "none", "steps": "short"}
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
EVERY = {"text": "All", "value": "$__all"}


@dataclass(frozen=True)
class Query:
    """PromQL, and how its series are named."""

    expr: str
    legend: str = "__auto"


@dataclass(frozen=True)
class Panel:
    """One picture."""

    title: str
    queries: tuple[Query, ...]
    about: tuple[Metric, ...]
    """Whose texts describe it; the first one's unit is the panel's unless `unit` says otherwise."""
    unit: str | None = None
    style: Style = "timeseries"
    width: int = 8
    stacked: bool = False

    @property
    def height(self) -> int:
        return STAT_HEIGHT if self.style == "stat" else HEIGHT

    @property
    def text(self) -> str:
        return ". ".join(f"{metric.text} (`{metric.series}`)" for metric in self.about)


@dataclass(frozen=True)
class Row:
    """Panels below one heading."""

    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True)
class Dashboard:
    """A page of Grafana's."""

    uid: str
    title: str
    text: str
    rows: tuple[Row, ...]

    @property
    def panels(self) -> list[Panel]:
        return [panel for row in self.rows for panel in row.panels]


def series(expr: str) -> set[str]:
    """The constants in circadian/metrics.py whose series an expression names."""
    words = set("".join(letter if letter.isalnum() or letter == "_" else " " for letter in expr).split())
    names = {word.removesuffix(part) for word in words for part in ("", "_bucket", "_sum", "_count")} | words
    return {constant for constant, metric in METRICS.items() if metric.series in names}


def grafana(dashboard: Dashboard) -> dict[str, Any]:
    """As JSON."""
    return {
        "uid": dashboard.uid,
        "title": dashboard.title,
        "description": dashboard.text,
        "tags": ["circadian"],
        "schemaVersion": SCHEMA,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-24h", "to": "now"},
        "timezone": "browser",
        "links": [{"type": "dashboards", "title": "Circadian", "tags": ["circadian"], "asDropdown": False, "keepTime": True}],
        "templating": {"list": [_source(), _names("tenant", ""), _names("deployment", '{tenant=~"$tenant"}')]},
        "panels": list(_placed(dashboard.rows)),
    }


def _source() -> dict[str, Any]:
    return {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus", "hide": 0}


def _names(label: str, where: str) -> dict[str, Any]:
    query = f"label_values({METRICS['REPLICAS'].series}{where}, {label})"
    return {
        "name": label,
        "label": label.capitalize(),
        "type": "query",
        "datasource": SOURCE,
        "definition": query,
        "query": {"query": query, "refId": label},
        "refresh": 2,
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": EVERY,
    }


def _placed(rows: Sequence[Row]) -> Iterator[dict[str, Any]]:
    """From left to right and from the top down."""
    number, y = 0, 0
    for row in rows:
        number, x, height = number + 1, 0, 0
        yield {"id": number, "type": "row", "title": row.title, "collapsed": False, "panels": [], "gridPos": _at(0, y, COLUMNS, 1)}
        y += 1
        for panel in row.panels:
            if x + panel.width > COLUMNS:
                x, y, height = 0, y + height, 0
            number += 1
            yield _panel(panel, number) | {"gridPos": _at(x, y, panel.width, panel.height)}
            x, height = x + panel.width, max(height, panel.height)
        y += height


def _at(x: int, y: int, width: int, height: int) -> dict[str, int]:
    return {"x": x, "y": y, "w": width, "h": height}


def _panel(panel: Panel, number: int) -> dict[str, Any]:
    unit = panel.unit or UNITS[panel.about[0].unit]
    made: dict[str, Any] = {
        "id": number,
        "title": panel.title,
        "description": panel.text,
        "datasource": SOURCE,
        "targets": [
            {"refId": chr(ord("A") + i), "expr": query.expr, "legendFormat": query.legend, "range": True, "datasource": SOURCE}
            for i, query in enumerate(panel.queries)
        ],
    }
    if panel.style == "stat":
        options = {"reduceOptions": {"calcs": ["lastNotNull"]}, "colorMode": "value", "graphMode": "area"}
        return made | {"type": "stat", "options": options, "fieldConfig": {"defaults": {"unit": unit}, "overrides": []}}
    custom: dict[str, Any] = {"lineWidth": 1, "fillOpacity": 10, "showPoints": "never", "spanNulls": False}
    if panel.style == "bars":
        custom |= {"drawStyle": "bars", "fillOpacity": 60}
    if panel.stacked:
        custom["stacking"] = {"mode": "normal", "group": "A"}
    legend = {"displayMode": "list", "placement": "bottom", "showLegend": True}
    return made | {
        "type": "timeseries",
        "options": {"legend": legend, "tooltip": {"mode": "multi", "sort": "desc"}},
        "fieldConfig": {"defaults": {"unit": unit, "min": None, "custom": custom}, "overrides": []},
    }
