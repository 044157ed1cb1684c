"""The chart's releases when something changes or fails: replicas, migrations, images, autoscaling, helm; on an API in memory (kube_api)."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest

from tests.helm.kube_api import KubeApi, kube_api
from tests.helm.releases import CHART, NAMESPACE, NEWEST, Helm, controller, controllers, found, holds, image, prepare

EXTERNAL = CHART / "ci" / "external-database-values.yaml"
"""Secrets, a database elsewhere and so a migration before each upgrade."""
PRODUCTION = CHART / "ci" / "gpu-production-values.yaml"
NEXT_DIGEST = f"sha256:{'9' * 64}"
ROLLS_BACK = {3: "--atomic", 4: "--rollback-on-failure"}


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
