"""One default in one place: what the chart says of the service's settings is what the classes say, and nothing is left out."""

from __future__ import annotations

import json
from typing import Any

import pytest

from services.settings import Settings
from tests.helm.chart import CHART, Object, default_values, of_kind, one, pods, variables

GIVEN_BY_THE_CHART = {
    "home": "where the volume is mounted",
    "host": "all addresses of the pod",
    "port": "the container's",
    "metrics_host": "all addresses of the pod",
    "metrics_port": "the container's",
    "database_migrates": "migrations.enabled",
    "ray_address": "the RayCluster's service",
    "ray_dashboard": "the RayCluster's service",
}
"""Settings that the chart decides, and by what."""
OF_NIGHT_CLUSTERS = {"night_cluster_file", "kubernetes_api", "kubernetes_account"}
"""Settings that the chart decides where nights have clusters of their own (nights.ownCluster)."""
SECRETS = {"database_url", "workflow_database_url", "api_key", "key_pepper", "signing_key_file"}
"""Settings that come as files."""
OF_A_LOCAL_STACK = {"ray_start_seconds", "ray_stop_seconds", "controller_start_seconds"}
"""Settings of `circadian up`, which starts Ray and the controller itself; here the cluster does."""


def chart_settings() -> Object:
    return default_values()["controller"]["settings"]


def schema_of_the_chart() -> Object:
    schema = json.loads((CHART / "values.schema.json").read_text())
    return schema["properties"]["controller"]["properties"]["settings"]["properties"]


def schema_of_the_class() -> Object:
    schema = Settings.model_json_schema()
    return {name: _plain(part, schema["$defs"]) for name, part in schema["properties"].items()}


def test_every_setting_is_in_the_chart_or_has_a_reason_not_to_be() -> None:
    elsewhere = set(GIVEN_BY_THE_CHART) | SECRETS | OF_A_LOCAL_STACK | OF_NIGHT_CLUSTERS
    missing = set(Settings.model_fields) - elsewhere - set(chart_settings())
    assert not missing, (
        f"add to controller.settings in values.yaml and values.schema.json, with the class's defaults: {sorted(missing)}"
    )
    unknown = set(chart_settings()) - set(Settings.model_fields)
    assert not unknown, f"controller.settings has what services/settings.py has not: {sorted(unknown)}"
    assert not elsewhere & set(chart_settings())


def test_every_default_is_the_classs() -> None:
    defaults = Settings.model_construct().model_dump(mode="json")
    different = {name: (value, defaults[name]) for name, value in chart_settings().items() if value != defaults[name]}
    assert different == {}, "chart, class"


def test_the_charts_schema_bounds_settings_as_the_class_does() -> None:
    theirs, ours = schema_of_the_class(), schema_of_the_chart()
    assert set(ours) == set(chart_settings())
    assert {name: ours[name] for name in ours if ours[name] != theirs[name]} == {}


def test_what_a_controller_is_given_is_what_the_class_has(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rendered variables, read by the class itself."""
    for name, value in of_kind("minimal", "ConfigMap")[0]["data"].items():
        monkeypatch.setenv(name, value)
    assert Settings().model_dump() == Settings.model_construct().model_dump()


def test_values_reach_the_controller(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in one("gpu-production", "ConfigMap", "-settings")["data"].items():
        monkeypatch.setenv(name, value)
    settings = Settings()
    assert settings.allowed_models == ("Qwen/*",)
    assert settings.requests_per_minute == 600
    assert settings.most_batch_bytes == 64 * 1024**2


def test_the_chart_gives_what_it_says_it_gives() -> None:
    [controller] = [pod for pod in pods("minimal") if pod.component == "controller"]
    given = variables(controller.containers[0])
    assert {f"CIRCADIAN_{name.upper()}" for name in GIVEN_BY_THE_CHART} | {"CIRCADIAN_SECRETS_FOLDER"} == {
        name for name in given if name.startswith("CIRCADIAN_")
    }
    ports = {port["name"]: port["containerPort"] for port in controller.containers[0]["ports"]}
    assert int(given["CIRCADIAN_PORT"]) == ports["http"] == Settings.model_fields["port"].default
    assert int(given["CIRCADIAN_METRICS_PORT"]) == ports["metrics"]
    assert default_values()["controller"]["service"]["port"] == Settings.model_fields["port"].default


def _plain(part: Any, definitions: Object) -> Any:
    """A schema without words and references."""
    if isinstance(part, list):
        return [_plain(item, definitions) for item in part]
    if not isinstance(part, dict):
        return part
    if "$ref" in part:
        return _plain(definitions[part["$ref"].rsplit("/", 1)[-1]], definitions)
    return {
        key: _plain(value, definitions) for key, value in part.items() if key not in ("title", "description", "default", "format")
    }
