"""What rendered objects are held against: Kubernetes' own schemas, and those of custom resources, strictly (no unknown field)."""

from __future__ import annotations

import json
import os
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from tests.helm.chart import CRDS, Object

CUSTOM = {
    "RayCluster": "ray.io_rayclusters.yaml",
    "RayJob": "ray.io_rayjobs.yaml",
    "ServiceMonitor": "servicemonitor_v1.json",
    "PodMonitor": "podmonitor_v1.json",
    "PrometheusRule": "prometheusrule_v1.json",
    "HTTPRoute": "httproute_v1.json",
}
"""Kinds that Kubernetes does not know, and the file of each one's schema."""


def missing(what: str) -> None:
    """Skips the test, loudly; fails it in CI, which has to bring what is missing."""
    (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(what)


def check_core(object: Object, version: str) -> None:
    """Raises kubernetes_validate.ValidationError."""
    try:
        import kubernetes_validate
    except ImportError:
        missing("kubernetes-validate is not installed: run `make test-helm`")
    kubernetes_validate.validate(object, version, strict=True)


def faults(object: Object) -> list[str]:
    """Of a custom resource."""
    return [f"{error.json_path}: {error.message}" for error in _custom(object["kind"]).iter_errors(object)]


@cache
def _custom(kind: str) -> Draft202012Validator:
    path = CRDS / CUSTOM[kind]
    if not path.exists():
        missing(f"there is no {path}: the schemas of custom resources lie outside the repository, in ../shared/crds")
    schema = json.loads(path.read_text()) if path.suffix == ".json" else _of_crd(path)
    return Draft202012Validator(_strict(schema, top=True))


def _of_crd(path: Path) -> Any:
    [version] = [v for v in yaml.load(path.read_text(), yaml.CSafeLoader)["spec"]["versions"] if v["name"] == "v1"]
    return version["schema"]["openAPIV3Schema"]


def _strict(schema: Any, top: bool = False) -> Any:
    """The schema, with every object closed that names its fields, and Kubernetes' own words said in JSON Schema's."""
    if isinstance(schema, list):
        return [_strict(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("x-kubernetes-int-or-string"):
        return {"type": ["integer", "string"]}
    if schema.get("x-kubernetes-preserve-unknown-fields"):
        return {}
    closed = {name: _strict_member(name, part) for name, part in schema.items() if not name.startswith("x-kubernetes")}
    if isinstance(schema.get("properties"), dict):
        if top:
            closed["properties"]["metadata"] = {"type": "object"}
        closed.setdefault("additionalProperties", False)
    return closed


def _strict_member(name: str, part: Any) -> Any:
    """`properties` maps names to schemas: a field may itself be called `properties` or `items`."""
    return (
        {field: _strict(schema) for field, schema in part.items()}
        if name == "properties" and isinstance(part, dict)
        else _strict(part)
    )
