"""The chart with each value file on a Kubernetes API in memory, by real helm 3 and 4: installed, upgraded, rolled back and taken away.

What is looked at are objects in the API, which holds them to the oldest or newest release of Kubernetes that the chart supports (kube_api).
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helm.kube_api import KubeApi
from tests.helm.releases import CHART, CLAIMS, NAMESPACE, Helm, controller, controllers, found, holds, image

FILES = sorted((CHART / "ci").glob("*-values.yaml"))
NEXT_DIGEST = f"sha256:{'9' * 64}"


@pytest.mark.parametrize("values", FILES, ids=lambda path: path.name.removesuffix("-values.yaml"))
def test_a_release_is_installed_upgraded_rolled_back_and_taken_away(api: KubeApi, helm: Helm, values: Path) -> None:
    before = {
        kind: api.names(kind, NAMESPACE) for kind in ("Secret", "ConfigMap", "Deployment", "StatefulSet", "RayCluster", "Service")
    }
    helm.install("-f", values)
    manifest = helm.manifest()
    assert {each["kind"] for each in manifest} >= {"Deployment", "RayCluster", "Service", "NetworkPolicy", "ServiceAccount"}
    assert [each["metadata"]["name"] for each in manifest if not holds(found(api, each), each)] == []
    first = image(controller(api))

    helm.upgrade("-f", values, "--set", f"images.controller.digest={NEXT_DIGEST}")
    assert not first.endswith(NEXT_DIGEST)
    assert image(controller(api)).endswith(NEXT_DIGEST)
    assert {each["spec"]["containers"][0]["image"] for each in controllers(api)} == {image(controller(api))}

    helm("rollback", helm.release, "1")
    assert image(controller(api)) == first
    assert [each["metadata"]["name"] for each in helm.manifest() if not holds(found(api, each), each)] == []
    assert helm.history() == [(1, "superseded"), (2, "superseded"), (3, "deployed")]

    kept = [each["metadata"]["name"] for each in manifest if each["kind"] == "PersistentVolumeClaim"]
    helm("uninstall", helm.release)
    assert {kind: api.names(kind, NAMESPACE) for kind in before} == before
    left = {each for each in api.names("PersistentVolumeClaim", NAMESPACE) if "postgres" not in each}
    assert left == {*CLAIMS, *kept}, "what the volumes hold outlives the release"
    assert api.names("Pod", NAMESPACE) == []
