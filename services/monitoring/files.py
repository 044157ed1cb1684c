"""The files that are made of the metrics, the dashboards and the alerts; they are in git, and a test makes them again."""

from __future__ import annotations

import json
from pathlib import Path

import yaml
from ray.dashboard.modules.metrics import grafana_dashboard_factory

from circadian.metrics import LABELS, METRICS, STATUS_ASLEEP, Metric
from services.monitoring.alerts import ALERTS, RUNBOOKS, rules
from services.monitoring.operators import OPERATORS
from services.monitoring.panels import Dashboard, grafana, series
from services.monitoring.scientists import SCIENTISTS

DASHBOARDS_FOLDER, ALERTS_FILE, PAGE_FILE = "helm/circadian/dashboards", "helm/circadian/alerts.yaml", "docs/metrics.md"
OURS = (OPERATORS, SCIENTISTS)
MADE = "# Made by `make dashboards` from services/monitoring/alerts.py.\n"
TELLERS = {
    "each": "each controller",
    "leader": "the leading controller",
    "node": "a process of a night, at its Ray node",
}


def write(root: Path) -> None:
    """All of them, below this folder."""
    for name, text in files().items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def files() -> dict[str, str]:
    """By their paths."""
    ours = {f"{DASHBOARDS_FOLDER}/{one.uid}.json": _json(grafana(one)) for one in OURS}
    return ours | _rays() | {ALERTS_FILE: MADE + yaml.safe_dump(rules(), sort_keys=False, width=140), PAGE_FILE: page()}


def _rays() -> dict[str, str]:
    """Ray's own, of the release that is installed, with the uids under which Ray's dashboard looks for them."""
    made = {
        "ray-default": grafana_dashboard_factory.generate_default_grafana_dashboard(),
        "ray-train": grafana_dashboard_factory.generate_train_grafana_dashboard(),
    }
    return {f"{DASHBOARDS_FOLDER}/{name}.json": _compact(json.loads(text)) for name, (text, _) in made.items()}


def _json(value: object) -> str:
    return json.dumps(value, indent=1) + "\n"


def _compact(value: object) -> str:
    """A ConfigMap of more than 256 KiB cannot be applied by an ordinary client."""
    return json.dumps(value, separators=(",", ":")) + "\n"


def page() -> str:
    """docs/metrics.md."""
    lines = [
        "# Metrics",
        "",
        "Made by `make dashboards` from [`circadian/metrics.py`](../circadian/metrics.py). The controller tells its own on the port",
        "`CIRCADIAN_METRICS_PORT`, without a key, so never where clients can reach it. Processes of a night tell theirs on the port",
        "of their Ray node, where Ray puts `ray_` before the name and labels of its own behind ours.",
        "",
        "| series | kind | labels | told by | what |",
        "|---|---|---|---|---|",
        *(_line(metric) for metric in METRICS.values()),
        "",
        "Values of labels are bounded: names of tenants and deployments, templates of routes, HTTP statuses, levels, states of",
        f"rows, and these. `{STATUS_ASLEEP}` is the status of an answer that is no error: all replicas of a deployment sleep, and",
        "the client was told to come again.",
        "",
        "| label | values |",
        "|---|---|",
        *(f"| `{name}` | {', '.join(f'`{value}`' for value in values)} |" for name, values in LABELS.items() if values),
        "",
        "## Dashboards",
        "",
        *(f"- **{one.title}** (`{one.uid}`): {one.text} {_shown(one)}" for one in OURS),
        "- Ray's own for the release that is pinned, `ray-default` and `ray-train`, under the uids that Ray's dashboard embeds.",
        "",
        "## Alerts",
        "",
        "| alert | severity | when | runbook |",
        "|---|---|---|---|",
        *(
            f"| {alert.name} | {alert.severity} | `{alert.expr.replace('|', chr(92) + '|')}` for {alert.lasts} "
            f"| [{alert.page}]({RUNBOOKS.removeprefix('docs/')}/{alert.page}) |"
            for alert in ALERTS
        ),
    ]
    return "\n".join(lines) + "\n"


def _line(metric: Metric) -> str:
    labels = ", ".join(f"`{label}`" for label in metric.labels)
    unit = f" ({metric.unit})" if metric.unit else ""
    return f"| `{metric.series}` | {metric.kind} | {labels} | {TELLERS[metric.by]} | {metric.text}{unit} |"


def _shown(dashboard: Dashboard) -> str:
    count = len({name for panel in dashboard.panels for query in panel.queries for name in series(query.expr)})
    return f"{len(dashboard.panels)} panels over {count} metrics."
