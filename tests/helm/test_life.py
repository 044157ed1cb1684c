"""The chart with each value file on a Kubernetes API in memory, by real helm 3 and 4: installed, upgraded, rolled back and taken away.

What is looked at are objects in the API, which holds them to the oldest or newest release of Kubernetes that the chart supports (kube_api).
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Literal

import pytest

from tests.helm.kube_api import KubeApi, kube_api
from tests.helm.releases import CHART, CLAIMS, HELMS, NAMESPACE, Helm, controller, controllers, found, holds, image, prepare

FILES = sorted((CHART / "ci").glob("*-values.yaml"))
NEXT_DIGEST = f"sha256:{'9' * 64}"
OF_A_RELEASE = ("Secret", "ConfigMap", "Deployment", "StatefulSet", "RayCluster", "Service", "NetworkPolicy", "ServiceAccount")
"""Kinds of which nothing is left."""
Lives = dict[tuple[Literal[3, 4], Path], Future[None]]


@pytest.fixture(scope="module")
def lives(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lives]:
    """All of them side by side, each on an API of its own: helm waits far more than it works."""
    with ThreadPoolExecutor(max_workers=len(FILES)) as pool:
        started = {
            (version, values): pool.submit(live, version, release, values, tmp_path_factory.mktemp("helm"))
            for version, release in HELMS
            for values in FILES
        }
        yield started


@pytest.mark.parametrize("version", [version for version, _ in HELMS], ids=lambda version: f"helm{version}")
@pytest.mark.parametrize("values", FILES, ids=lambda path: path.name.removesuffix("-values.yaml"))
def test_a_release_is_installed_upgraded_rolled_back_and_taken_away(lives: Lives, version: Literal[3, 4], values: Path) -> None:
    lives[version, values].result()


def live(version: Literal[3, 4], release: str, values: Path, folder: Path) -> None:
    with kube_api(release) as api:
        prepare(api)
        before = {kind: api.names(kind, NAMESPACE) for kind in OF_A_RELEASE}
        helm = Helm(version, api, folder)
        first = _installed(helm, api, values)
        manifest = helm.manifest()
        _upgraded_and_rolled_back(helm, api, values, first)
        helm("uninstall", helm.release)
        assert {kind: api.names(kind, NAMESPACE) for kind in before} == before
        assert api.names("Pod", NAMESPACE) == []
        kept = [each["metadata"]["name"] for each in manifest if each["kind"] == "PersistentVolumeClaim"]
        left = {each for each in api.names("PersistentVolumeClaim", NAMESPACE) if "postgres" not in each}
        assert left == {*CLAIMS, *kept}, "what the volumes hold outlives the release"


def _installed(helm: Helm, api: KubeApi, values: Path) -> str:
    """The controller's image."""
    helm.install("-f", values)
    manifest = helm.manifest()
    assert {each["kind"] for each in manifest} >= {"Deployment", "RayCluster", "Service", "NetworkPolicy", "ServiceAccount"}
    assert [each["metadata"]["name"] for each in manifest if not holds(found(api, each), each)] == []
    (cluster,) = api.all("RayCluster", NAMESPACE)
    assert cluster["status"].get("state") == "ready", api.waiting()
    return image(controller(api))


def _upgraded_and_rolled_back(helm: Helm, api: KubeApi, values: Path, first: str) -> None:
    helm.upgrade("-f", values, "--set", f"images.controller.digest={NEXT_DIGEST}")
    assert not first.endswith(NEXT_DIGEST)
    assert image(controller(api)).endswith(NEXT_DIGEST)
    assert {each["spec"]["containers"][0]["image"] for each in controllers(api)} == {image(controller(api))}
    helm("rollback", helm.release, "1")
    assert image(controller(api)) == first
    assert [each["metadata"]["name"] for each in helm.manifest() if not holds(found(api, each), each)] == []
    assert helm.history() == [(1, "superseded"), (2, "superseded"), (3, "deployed")]
