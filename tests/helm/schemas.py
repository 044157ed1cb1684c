"""What rendered objects are held against: Kubernetes' own schemas, and those of custom resources, strictly (no unknown field)."""

from __future__ import annotations

import os

import pytest

from tests.helm import kube_schemas
from tests.helm.chart import Object
from tests.helm.kube_kinds import kind_of
from tests.helm.releases import NEWEST

CUSTOM = ("RayCluster", "RayJob", "ServiceMonitor", "PodMonitor", "PrometheusRule", "HTTPRoute")
"""Kinds that Kubernetes does not know, and that the chart makes."""


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
    """Of a custom resource, in the newest Kubernetes."""
    kind = kind_of(object)
    if kind is None or not kube_schemas.is_there(kind):
        missing(
            f"there is no schema of {object['kind']} in {kube_schemas.CRDS}: those of custom resources lie outside the repository"
        )
    assert kind is not None
    return [f"{problem.path}: {problem.message}" for problem in kube_schemas.problems(NEWEST, kind, object)]
