"""The chart on a Kubernetes API, by real helm 3 and 4: installed, tested, upgraded, failing, rolled back and taken away, with each of its
value files.

What is looked at are objects in the API, which holds them to the oldest or newest release of Kubernetes that the chart supports (kube_api).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest

from tests.helm.kube_api import KubeApi, kube_api
from tests.helm.kube_kinds import Object
from tests.helm.releases import CHART, CLAIMS, NAMESPACE, Helm, found, holds, prepare

FILES = sorted((CHART / "ci").glob("*-values.yaml"))
OLDEST, NEWEST = "1.31", "1.37"
EXTERNAL = CHART / "ci" / "external-database-values.yaml"
"""Secrets, a database elsewhere and so a migration before each upgrade."""
PRODUCTION = CHART / "ci" / "gpu-production-values.yaml"
NEXT_DIGEST = f"sha256:{'9' * 64}"
ROLLS_BACK = {3: "--atomic", 4: "--rollback-on-failure"}

pytestmark = pytest.mark.skipif(not CHART.exists(), reason="there is no chart in helm/circadian")


@pytest.fixture(params=[(3, OLDEST), (4, NEWEST)], ids=lambda both: f"helm{both[0]}-kubernetes{both[1]}")
def both(request: pytest.FixtureRequest) -> tuple[Literal[3, 4], str]:
    return request.param


@pytest.fixture
def api(both: tuple[Literal[3, 4], str]) -> Iterator[KubeApi]:
    with kube_api(both[1]) as api:
        prepare(api)
        yield api


@pytest.fixture
def helm(both: tuple[Literal[3, 4], str], api: KubeApi, tmp_path: Path) -> Helm:
    return Helm(both[0], api, tmp_path)


def controller(api: KubeApi) -> Object:
    (found,) = (each for each in api.list("Deployment", NAMESPACE) if each["metadata"]["name"].endswith("-controller"))
    return found


def image(value: Object) -> str:
    images = {each["image"] for each in value["spec"]["template"]["spec"]["containers"]}
    assert len(images) == 1, "both containers of a controller come from its image"
    return images.pop()


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

    helm("rollback", helm.release, "1", "--wait", "--timeout", "30s")
    assert image(controller(api)) == first
    assert [each["metadata"]["name"] for each in helm.manifest() if not holds(found(api, each), each)] == []
    assert helm.history() == [(1, "superseded"), (2, "superseded"), (3, "deployed")]

    kept = [each["metadata"]["name"] for each in manifest if each["kind"] == "PersistentVolumeClaim"]
    helm("uninstall", helm.release, "--wait", "--timeout", "30s")
    assert {kind: api.names(kind, NAMESPACE) for kind in before} == before
    left = {each for each in api.names("PersistentVolumeClaim", NAMESPACE) if "postgres" not in each}
    assert left == {*CLAIMS, *kept}, "what the volumes hold outlives the release"
    assert api.names("Pod", NAMESPACE) == []


def controllers(api: KubeApi) -> list[Object]:
    """Pods of the controller."""
    return [each for each in api.list("Pod", NAMESPACE) if each["metadata"]["name"].startswith(controller(api)["metadata"]["name"])]


def test_replicas_that_are_asked_for_are_there(api: KubeApi, helm: Helm) -> None:
    helm.install("-f", EXTERNAL)
    assert len(controllers(api)) == 2
    helm.upgrade("-f", EXTERNAL, "--set", "controller.replicas=4")
    assert len(controllers(api)) == controller(api)["status"]["readyReplicas"] == 4


def test_a_migration_runs_before_anything_changes(api: KubeApi, helm: Helm) -> None:
    helm.install("-f", EXTERNAL)
    order = [write.kind for write in api.writes if write.verb in ("create", "apply") and write.manager == "helm"]
    assert order.index("Job") < order.index("Deployment")
    seen = len(api.writes)
    helm.upgrade("-f", EXTERNAL, "--set", f"images.controller.digest={NEXT_DIGEST}")
    changed = [write.kind for write in api.writes[seen:] if write.verb != "delete"]
    assert changed.index("Job") < changed.index("Deployment")
    assert api.names("Job", NAMESPACE) == [], "a migration that succeeded is taken away"


def test_a_migration_that_fails_leaves_everything_as_it_was(api: KubeApi, helm: Helm) -> None:
    helm.install("-f", EXTERNAL)
    was = controller(api)
    api.fails = lambda pod: "migrate" in pod["metadata"]["name"]
    seen = len(api.writes)
    helm.upgrade("-f", EXTERNAL, "--set", f"images.controller.digest={NEXT_DIGEST}", fails=True)
    assert controller(api) == was
    assert {write.kind for write in api.writes[seen:]} <= {"Job", "Secret"}
    assert helm.history() == [(1, "deployed"), (2, "failed")]
    (job,) = api.list("Job", NAMESPACE)
    assert job["status"]["failed"] == job["spec"]["backoffLimit"] + 1, "it stays, so that its log can be read"

    api.fails = lambda pod: False
    helm.upgrade("-f", EXTERNAL, "--set", f"images.controller.digest={NEXT_DIGEST}")
    assert image(controller(api)).endswith(NEXT_DIGEST)
    assert helm.history()[-1] == (3, "deployed")


def test_a_first_installation_that_fails_is_mended_by_the_next(api: KubeApi, helm: Helm) -> None:
    api.fails = lambda pod: "migrate" in pod["metadata"]["name"]
    helm.install("-f", EXTERNAL, fails=True)
    assert api.names("Deployment", NAMESPACE) == api.names("RayCluster", NAMESPACE) == []
    api.fails = lambda pod: False
    helm.upgrade("-f", EXTERNAL, "--install")
    assert controller(api)["status"]["readyReplicas"] == 2


def test_controllers_that_never_get_ready_are_rolled_back_and_the_old_ones_stay(api: KubeApi, helm: Helm) -> None:
    helm.install("-f", EXTERNAL)
    names = {each["metadata"]["name"] for each in controllers(api)}
    api.fails = lambda pod: pod["spec"]["containers"][0]["image"].endswith(NEXT_DIGEST) and "controller" in pod["metadata"]["name"]
    arguments = ["-f", EXTERNAL, "--set", f"images.controller.digest={NEXT_DIGEST}", ROLLS_BACK[helm.version], "--timeout", "6s"]
    helm.upgrade(*arguments, fails=True)
    assert not image(controller(api)).endswith(NEXT_DIGEST)
    assert {each["metadata"]["name"] for each in controllers(api)} == names
    assert [status for _, status in helm.history()] == ["superseded", "failed", "deployed"]


def test_what_the_autoscaler_decided_survives_an_upgrade(api: KubeApi, helm: Helm) -> None:
    helm.install("-f", PRODUCTION)
    key = controller(api)["metadata"]["name"]
    api.scale("Deployment", NAMESPACE, key, 5)
    helm.upgrade("-f", PRODUCTION, "--set", f"images.controller.digest={NEXT_DIGEST}")
    assert controller(api)["spec"]["replicas"] == 5
    assert image(controller(api)).endswith(NEXT_DIGEST)


def test_helm_test_tells_whether_the_release_works(api: KubeApi, helm: Helm) -> None:
    helm.install("-f", EXTERNAL)
    assert "Phase:          Succeeded" in helm("test", helm.release, "--timeout", "20s")
    api.fails = lambda pod: pod["metadata"]["annotations"].get("helm.sh/hook") == "test"
    helm("test", helm.release, "--timeout", "20s", fails=True)


def test_two_releases_live_in_one_namespace(api: KubeApi, helm: Helm, both: tuple[Literal[3, 4], str], tmp_path: Path) -> None:
    helm.install("-f", EXTERNAL)
    other = Helm(both[0], api, tmp_path, "day")
    other.install("-f", EXTERNAL)
    assert len(api.list("Deployment", NAMESPACE)) == len(api.list("RayCluster", NAMESPACE)) == 2
    helm("uninstall", helm.release)
    assert [each["metadata"]["name"] for each in other.manifest() if not holds(found(api, each), each)] == []


def test_a_release_of_helm_3_is_upgraded_by_helm_4(tmp_path: Path) -> None:
    with kube_api(NEWEST) as api:
        prepare(api)
        Helm(3, api, tmp_path).install("-f", EXTERNAL)
        four = Helm(4, api, tmp_path)
        four.upgrade("-f", EXTERNAL, "--set", f"images.controller.digest={NEXT_DIGEST}")
        assert image(controller(api)).endswith(NEXT_DIGEST)
        assert four.history() == [(1, "superseded"), (2, "deployed")]


@pytest.mark.parametrize("version", [3, 4])
def test_without_kuberay_the_installation_says_what_is_missing(version: Literal[3, 4], tmp_path: Path) -> None:
    with kube_api(NEWEST, without=("ray.io",)) as api:
        prepare(api)
        assert "KubeRay" in Helm(version, api, tmp_path).install("-f", EXTERNAL, fails=True)
        assert api.names("Deployment", NAMESPACE) == []
