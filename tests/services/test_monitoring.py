"""One table of metrics: who tells them, what shows them, who is called; and the files that are made of it."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from in_memory import Service
from ray.dashboard.modules.metrics.dashboards.default_dashboard_panels import default_dashboard_config
from ray.dashboard.modules.metrics.dashboards.train_dashboard_panels import train_dashboard_config

from circadian.metrics import CRITERIA, LABELS, METRICS, OTHER, STAGES, stage_of
from pipelines.gates import judging
from services.cli import app
from services.monitoring.alerts import ALERTS, RUNBOOKS, Alert, rules
from services.monitoring.files import DASHBOARDS_FOLDER, OURS, files
from services.monitoring.panels import series
from services.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
FLOORS = ("circadian", "actors", "pipelines", "services")
MOST_BYTES = 256 * 1024
"""Of a ConfigMap that an ordinary `kubectl apply` takes."""
TABLE = ROOT / "circadian" / "metrics.py"
SHOWN = {ROOT / "services" / "monitoring" / f"{name}.py" for name in ("operators", "scientists", "alerts", "panels")}
SECTIONS = ("What it means", "Look", "Do")
TOOLS = {"circadian", "kubectl", "curl"}


def sources() -> Iterator[tuple[Path, ast.Module]]:
    for floor in FLOORS:
        for path in (ROOT / floor).rglob("*.py"):
            yield path, ast.parse(path.read_text())


def named(tree: ast.Module) -> set[str]:
    """Constants of the table that a file uses, as `metrics.NAME` or imported by their names."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "metrics":
            found.add(node.attr)
        elif isinstance(node, ast.ImportFrom) and node.module == "circadian.metrics":
            found |= {alias.name for alias in node.names}
    return found & set(METRICS)


def test_every_metric_is_told_by_somebody_and_is_shown() -> None:
    told: dict[str, set[str]] = {name: set() for name in METRICS}
    for path, tree in sources():
        if path not in SHOWN and path != TABLE:
            for name in named(tree):
                told[name].add(path.relative_to(ROOT).parts[0])
    floors = {"each": {"services"}, "leader": {"services"}, "node": {"actors"}}
    assert told == {name: floors[metric.by] for name, metric in METRICS.items()}
    shown = {name for one in OURS for panel in one.panels for query in panel.queries for name in series(query.expr)}
    assert shown == set(METRICS)
    assert all(
        set(one.about) == {METRICS[name] for query in one.queries for name in series(query.expr)}
        for page in OURS
        for one in page.panels
        if one.title != "Stage"
    )


def test_no_name_of_a_metric_is_spelt_outside_the_table() -> None:
    names = {name for metric in METRICS.values() for name in (metric.name, metric.series)}
    for path, tree in sources():
        if path != TABLE:
            spelt = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}
            assert not {name for name in names for text in spelt if re.search(rf"\b{name}\b", text) and "\n" not in text}, path


def test_everything_that_a_dashboard_or_an_alert_names_is_defined() -> None:
    defined = {metric.series for metric in METRICS.values()}
    texts = [query.expr for one in OURS for panel in one.panels for query in panel.queries] + [alert.expr for alert in ALERTS]
    for text in texts:
        found = re.findall(r"\b(?:ray_)?circadian_\w+", text)
        assert found, text
        assert {re.sub("_(bucket|sum|count)$", "", name) for name in found} <= defined, text
    keys = {label for text in texts for label in re.findall(r"(\w+)(?:=~|!=|=)\"", text)}
    assert keys <= set(LABELS)


def test_labels_and_names_are_of_one_scheme() -> None:
    for metric in METRICS.values():
        assert re.fullmatch(r"circadian_[a-z_]+", metric.name)
        assert set(metric.labels) <= set(LABELS)
        assert not {
            label for label in metric.labels if label.endswith("id") or label in ("sleep", "version", "experience", "subject")
        }
        assert not metric.name.endswith("_total"), "Prometheus' clients add it"
        assert metric.unit != "seconds" or metric.name.endswith("_seconds"), metric.name
        assert (metric.kind == "histogram") == bool(metric.buckets)
    assert len({metric.name for metric in METRICS.values()}) == len(METRICS)


def test_stages_and_criteria_are_those_of_nights() -> None:
    assert tuple(judging.CRITERIA) == CRITERIA
    found = set()
    for name in ("night", "dreaming"):
        for node in ast.walk(ast.parse((ROOT / "pipelines" / f"{name}.py").read_text())):
            if (
                isinstance(node, ast.Call)
                and node.args
                and (getattr(node.func, "attr", "") == "run" or getattr(node.func, "id", "") == "run")
            ):
                first = node.args[0]
                if isinstance(first, ast.JoinedStr):
                    first = first.values[0]
                if isinstance(first, ast.Constant):
                    found.add(stage_of(str(first.value).rstrip("_")))
    assert found == set(STAGES) - {"dawn"}, "dawn is the controller's"
    assert stage_of("knowledge_seeding_level-2") == "knowledge_seeding"
    assert stage_of("gate_without_dreams") == "gate_without_dreams"
    assert stage_of("somewhere") == stage_of("gateway") == OTHER


def test_what_is_made_of_the_metrics_is_in_git_as_it_is_made() -> None:
    made = files()
    assert {name: (ROOT / name).read_text() for name in made} == made, "run `make dashboards`"
    there = {str(path.relative_to(ROOT)) for path in (ROOT / DASHBOARDS_FOLDER).iterdir()}
    assert there == {name for name in made if name.startswith(DASHBOARDS_FOLDER)}
    assert all(len(text.encode()) < MOST_BYTES for text in made.values())


def test_dashboards_have_the_uids_by_which_they_are_found() -> None:
    uids = {path.stem: json.loads(path.read_text())["uid"] for path in (ROOT / DASHBOARDS_FOLDER).glob("*.json")}
    assert uids == {
        "circadian-operators": "circadian-operators",
        "circadian-scientists": "circadian-scientists",
        "ray-default": default_dashboard_config.default_uid,
        "ray-train": train_dashboard_config.default_uid,
    }


def test_panels_of_a_dashboard_do_not_lie_on_each_other() -> None:
    for one in OURS:
        panels = json.loads((ROOT / DASHBOARDS_FOLDER / f"{one.uid}.json").read_text())["panels"]
        cells = [
            (x, y)
            for panel in panels
            for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
            for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
        ]
        assert len(cells) == len(set(cells))
        assert max(x for x, _ in cells) < 24
        assert len({panel["id"] for panel in panels}) == len(panels)


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert.name)
def test_every_alert_has_a_page_that_says_what_to_do(alert: Alert) -> None:
    text = (ROOT / RUNBOOKS / alert.page).read_text()
    assert text.startswith(f"# {alert.name}\n")
    assert tuple(re.findall(r"^## (.+)$", text, re.MULTILINE)) == SECTIONS
    for line in (line for block in re.findall(r"^```\n(.*?)^```$", text, re.MULTILINE | re.DOTALL) for line in block.splitlines()):
        tool, *words = line.split()
        assert tool in TOOLS, line
        if tool == "circadian":
            check_command(words, line)
    fields = {f"CIRCADIAN_{name.upper()}" for name in Settings.model_fields} | {"CIRCADIAN_URL"}  # where clients find the service
    assert set(re.findall(r"CIRCADIAN_[A-Z_]+", text)) <= fields
    others = {one.name for one in ALERTS}
    assert set(re.findall(r"\bCircadian[A-Z]\w+", text)) <= others


def test_every_path_that_a_page_names_is_a_route(service: Service) -> None:
    routes = {re.sub(r"\{\w+\}", "ID", path) for path in service.client.app.openapi()["paths"]}  # type: ignore[attr-defined]
    named = {path for page in (ROOT / RUNBOOKS).iterdir() for path in re.findall(r"/(?:v1/[\w/]+|readyz)", page.read_text())}
    assert len(named) > 3
    assert {re.sub(r"/[A-Z]+", "/ID", path) for path in named} <= routes


def check_command(words: list[str], line: str) -> None:
    command = typer.main.get_command(app)
    while getattr(command, "commands", None):
        assert words, line
        assert words[0] in command.commands, line  # type: ignore[attr-defined]
        command = command.commands[words.pop(0)]  # type: ignore[attr-defined]
    options = {option for parameter in command.params for option in parameter.opts}
    assert {word for word in words if word.startswith("--")} <= options, line


def test_no_page_is_left_of_an_alert_that_is_gone() -> None:
    assert {path.name for path in (ROOT / RUNBOOKS).iterdir()} == {alert.page for alert in ALERTS}


def test_rules_say_how_bad_it_is_and_where_to_read() -> None:
    found = [rule for group in rules()["groups"] for rule in group["rules"]]
    assert [rule["alert"] for rule in found] == [alert.name for alert in ALERTS]
    for rule in found:
        assert rule["labels"]["severity"] in ("critical", "warning", "info")
        assert rule["annotations"]["runbook_url"].startswith(f"{RUNBOOKS}/")
        assert rule["annotations"]["summary"]
        assert rule["annotations"]["description"]
