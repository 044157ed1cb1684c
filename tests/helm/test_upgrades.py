"""The chart's releases when something changes or fails: replicas, migrations, images, autoscaling, helm; on an API in memory (kube_api)."""

from __future__ import annotations

import re
import subprocess
from collections.abc import ItemsView
from pathlib import Path
from typing import Literal

import pytest

from tests.helm.chart import default_values
from tests.helm.kube_api import KubeApi, kube_api
from tests.helm.kube_control import MADE_TOKEN
from tests.helm.kube_kinds import Object
from tests.helm.releases import CHART, MINIMAL, NAMESPACE, NEWEST, Helm, controller, controllers, found, holds, image, prepare
from tests.helm.tools import kubectl

EXTERNAL = CHART / "ci" / "external-database-values.yaml"
TRIAL = CHART / "ci" / "laptop-cpu-values.yaml"
PRODUCTION = CHART / "ci" / "gpu-production-values.yaml"
NEXT_DIGEST = f"sha256:{'9' * 64}"
HELMS_PATIENCE_SECONDS = 300
"""Its --timeout, where none is given."""
PATIENCE = "12s"
"""With what never gets ready; the way back has as long."""
ROLLS_BACK = {3: "--atomic", 4: "--rollback-on-failure"}


def test_replicas_that_are_asked_for_are_there(api: KubeApi, helm: Helm) -> None:
    assert len(controllers(api)) == 2
    helm.upgrade("-f", MINIMAL, "--set", "controller.replicas=4")
    assert len(controllers(api)) == controller(api)["status"]["readyReplicas"] == 4


def test_a_migration_runs_before_anything_changes(bare: KubeApi, both: tuple[Literal[3, 4], str], tmp_path: Path) -> None:
    helm = Helm(both[0], bare, tmp_path)
    helm.install("-f", MINIMAL)
    order = [write.kind for write in bare.writes if write.verb in ("create", "apply") and write.manager == "helm"]
    assert order.index("Job") < order.index("Deployment")
    seen = len(bare.writes)
    helm.upgrade("-f", MINIMAL, "--set", f"images.controller.digest={NEXT_DIGEST}")
    changed = [write.kind for write in bare.writes[seen:] if write.verb != "delete"]
    assert changed.index("Job") < changed.index("Deployment")
    assert bare.names("Job", NAMESPACE) == [], "a migration that succeeded is taken away"


def test_a_migration_reaches_a_database_that_the_release_before_did_not_know(
    bare: KubeApi, both: tuple[Literal[3, 4], str], tmp_path: Path
) -> None:
    """What the release before has closed is closed while the hooks of the next one run."""
    helm = Helm(both[0], bare, tmp_path)
    helm.install("-f", TRIAL)
    bare.fails = lambda pod: "migrate" in pod["metadata"]["name"] and not reaches_databases(bare, pod)
    helm.upgrade("-f", TRIAL, "--set", "postgres.dev.enabled=false", "--set", "database.existingSecret=circadian-database")
    assert bare.names("StatefulSet", NAMESPACE) == []
    assert [name for name in bare.names("NetworkPolicy", NAMESPACE) if name.endswith("-migrate")] == [], "it was for the Job alone"


def reaches_databases(api: KubeApi, pod: Object) -> bool:
    """Whether the policies that are there now let a pod out to addresses of PostgreSQL, and to those of names."""
    labels = pod["metadata"]["labels"].items()
    chosen = [each["spec"] for each in api.all("NetworkPolicy", NAMESPACE) if _selects(each) <= labels]
    ways = {
        (port["port"], "ipBlock" in peer)
        for spec in chosen
        for rule in spec.get("egress") or []
        for peer in rule["to"]
        for port in rule["ports"]
    }
    return not chosen or {(5432, True), (53, False)} <= ways


def _selects(policy: Object) -> ItemsView[str, str]:
    selected: dict[str, str] = policy["spec"]["podSelector"]["matchLabels"]
    return selected.items()


def test_a_migration_ends_before_helm_gives_up() -> None:
    """Helm takes away what its hooks have made when it gives up, under a Job that still runs."""
    assert default_values()["migrations"]["activeDeadlineSeconds"] < HELMS_PATIENCE_SECONDS


def test_a_migration_that_fails_leaves_everything_as_it_was(api: KubeApi, helm: Helm) -> None:
    was = controller(api)
    api.fails = lambda pod: "migrate" in pod["metadata"]["name"]
    seen = len(api.writes)
    helm.upgrade("-f", MINIMAL, "--set", f"images.controller.digest={NEXT_DIGEST}", fails=True)
    assert controller(api) == was
    assert {write.kind for write in api.writes[seen:]} <= {"Job", "NetworkPolicy", "Secret"}
    assert helm.history() == [(1, "deployed"), (2, "failed")]
    (job,) = api.all("Job", NAMESPACE)
    assert job["status"]["failed"] == job["spec"]["backoffLimit"] + 1, "it stays, so that its log can be read"

    api.fails = lambda pod: False
    helm.upgrade("-f", MINIMAL, "--set", f"images.controller.digest={NEXT_DIGEST}")
    assert image(controller(api)).endswith(NEXT_DIGEST)
    assert helm.history()[-1] == (3, "deployed")


def test_a_first_installation_that_fails_is_mended_by_the_next(
    bare: KubeApi, both: tuple[Literal[3, 4], str], tmp_path: Path
) -> None:
    helm = Helm(both[0], bare, tmp_path)
    bare.fails = lambda pod: "migrate" in pod["metadata"]["name"]
    helm.install("-f", MINIMAL, fails=True)
    assert bare.names("Deployment", NAMESPACE) == bare.names("RayCluster", NAMESPACE) == []
    bare.fails = lambda pod: False
    helm.upgrade("-f", MINIMAL, "--install")
    assert controller(bare)["status"]["readyReplicas"] == 2


def test_controllers_that_never_get_ready_are_rolled_back_and_the_old_ones_stay(api: KubeApi, helm: Helm) -> None:
    names = {each["metadata"]["name"] for each in controllers(api)}
    api.fails = lambda pod: pod["spec"]["containers"][0]["image"].endswith(NEXT_DIGEST) and "controller" in pod["metadata"]["name"]
    arguments: list[str | Path] = [
        "-f",
        MINIMAL,
        "--set",
        f"images.controller.digest={NEXT_DIGEST}",
        ROLLS_BACK[helm.version],
        "--timeout",
        PATIENCE,
    ]
    helm.upgrade(*arguments, fails=True)
    assert not image(controller(api)).endswith(NEXT_DIGEST)
    assert {each["metadata"]["name"] for each in controllers(api)} == names
    assert [status for _, status in helm.history()] == ["superseded", "failed", "deployed"]


def test_what_the_autoscaler_decided_survives_an_upgrade(bare: KubeApi, both: tuple[Literal[3, 4], str], tmp_path: Path) -> None:
    helm = Helm(both[0], bare, tmp_path)
    helm.install("-f", PRODUCTION)
    key = controller(bare)["metadata"]["name"]
    bare.scale("Deployment", NAMESPACE, key, 5)
    helm.upgrade("-f", PRODUCTION, "--set", f"images.controller.digest={NEXT_DIGEST}")
    assert controller(bare)["spec"]["replicas"] == 5
    assert image(controller(bare)).endswith(NEXT_DIGEST)


def test_what_rays_autoscaler_decided_survives_an_upgrade_that_is_made_on_the_clients_side(
    bare: KubeApi, both: tuple[Literal[3, 4], str], tmp_path: Path
) -> None:
    """To Kubernetes `workerGroupSpecs` is one value: who scales a group owns all groups, and helm 4 asks before it takes them back."""
    helm = Helm(both[0], bare, tmp_path)
    helm.install("-f", PRODUCTION)
    bare.scale_group(NAMESPACE, "night-circadian", "learner", 2)
    assert replicas(bare)["learner"] == 2
    upgrade: list[str | Path] = ["-f", PRODUCTION, "--set", f"images.controller.digest={NEXT_DIGEST}"]
    if helm.version == 4:
        assert "workerGroupSpecs" in helm.upgrade(*upgrade, fails=True)
        upgrade.append("--server-side=false")
    helm.upgrade(*upgrade)
    assert image(controller(bare)).endswith(NEXT_DIGEST)
    assert replicas(bare)["learner"] == 2
    if helm.version == 4:
        helm.upgrade(*upgrade[:-1], "--server-side=true", "--force-conflicts")
        assert replicas(bare)["learner"] == 0


def replicas(api: KubeApi) -> dict[str, int]:
    """Of the groups of the only RayCluster; as many pods are there."""
    (cluster,) = api.all("RayCluster", NAMESPACE)
    said = {each["groupName"]: each["replicas"] for each in cluster["spec"]["workerGroupSpecs"]}
    groups = [each["metadata"]["labels"].get("ray.io/group") for each in api.all("Pod", NAMESPACE)]
    assert said == {group: groups.count(group) for group in said}
    return said


@pytest.mark.parametrize("name", ["a" * 53, "night-circadian"])
def test_any_name_that_helm_takes_can_be_installed(name: str, tmp_path: Path) -> None:
    with kube_api(NEWEST) as api:
        prepare(api)
        helm = Helm(4, api, tmp_path, name)
        helm.install("-f", MINIMAL)
        assert [each["status"].get("state") for each in api.all("RayCluster", NAMESPACE)] == ["ready"], api.waiting()


def test_helm_test_tells_whether_the_release_works(api: KubeApi, helm: Helm) -> None:
    assert "Phase:          Succeeded" in helm("test", helm.release, "--timeout", "20s")
    api.fails = lambda pod: pod["metadata"]["annotations"].get("helm.sh/hook") == "test"
    helm("test", helm.release, "--timeout", "20s", fails=True)


def test_what_the_notes_say_to_type_works(bare: KubeApi, both: tuple[Literal[3, 4], str], tmp_path: Path) -> None:
    """Secrets are there under the names and keys that the notes give, and services with their ports."""
    notes = Helm(both[0], bare, tmp_path).install("-f", EXTERNAL)
    (tmp_path / "kubectl").symlink_to(kubectl())
    env = {"PATH": f"{tmp_path}:/usr/bin:/bin", "KUBECONFIG": str(bare.kubeconfig(tmp_path)), "HOME": str(tmp_path)}
    asked = re.findall(r"kubectl .* get secret [^)\n]*", notes)
    assert len(asked) == 2, notes
    for command in asked:
        said = subprocess.run(["bash", "-ec", f"set -o pipefail; {command}"], capture_output=True, text=True, env=env, timeout=60)
        assert (said.returncode, said.stderr) == (0, "")
        assert said.stdout in ("ck_replace-this-operator-key", MADE_TOKEN)
    forwarded = re.findall(r"port-forward svc/(\S+) \d+:(\d+)", notes)
    assert len(forwarded) == 1, "the API has an Ingress here"
    for name, port in forwarded:
        assert int(port) in [each["port"] for each in bare.get("Service", name, NAMESPACE)["spec"]["ports"]]


def test_two_releases_live_in_one_namespace(api: KubeApi, helm: Helm, both: tuple[Literal[3, 4], str], tmp_path: Path) -> None:
    other = Helm(both[0], api, tmp_path, "day")
    other.install("-f", MINIMAL)
    assert len(api.all("Deployment", NAMESPACE)) == len(api.all("RayCluster", NAMESPACE)) == 2
    helm("uninstall", helm.release)
    assert [each["metadata"]["name"] for each in other.manifest() if not holds(found(api, each), each)] == []


def test_a_release_of_helm_3_is_upgraded_by_helm_4(tmp_path: Path) -> None:
    with kube_api(NEWEST) as api:
        prepare(api)
        Helm(3, api, tmp_path).install("-f", MINIMAL)
        four = Helm(4, api, tmp_path)
        four.upgrade("-f", MINIMAL, "--set", f"images.controller.digest={NEXT_DIGEST}")
        assert image(controller(api)).endswith(NEXT_DIGEST)
        assert four.history() == [(1, "superseded"), (2, "deployed")]


@pytest.mark.parametrize("version", [3, 4])
def test_without_kuberay_the_installation_says_what_is_missing(version: Literal[3, 4], tmp_path: Path) -> None:
    with kube_api(NEWEST, without=("ray.io",)) as api:
        prepare(api)
        assert "KubeRay" in Helm(version, api, tmp_path).install("-f", MINIMAL, fails=True)
        assert api.names("Deployment", NAMESPACE) == []
