"""What the operator's guide and the chart's own page type works as it stands, in a shell, with real helm and kubectl."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Literal

import pytest
import yaml

from tests.helm.chart import pods
from tests.helm.kube_api import KubeApi, kube_api
from tests.helm.kube_kinds import Object
from tests.helm.releases import COMMAND_SECONDS, HELMS, ROOT
from tests.helm.tools import helm, kubectl

GUIDE = (ROOT / "docs" / "operating.md").read_text()
CHARTS_PAGE = (ROOT / "helm" / "circadian" / "README.md").read_text()
GIVEN = {"PASSWORD": "p", "HF_TOKEN": "t", "REDIS_PASSWORD": "r", "JUDGE_KEY": "j"}
"""What the reader has."""
CLIENTS_SIDE = "--server-side=false"
FILES = dict(zip(("restore.yaml", "claims.yaml"), re.findall(r"```yaml\n(.*?)```", GUIDE, re.DOTALL), strict=True))
"""That the guide says to write, in its order."""
MANIFESTS = [each for text in FILES.values() for each in yaml.safe_load_all(text)]
INSTANCE = {"app.kubernetes.io/instance": "circadian"}


def commands(heading: str) -> list[str]:
    """Those of a section that kubectl or helm carries out."""
    return typed(GUIDE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0])


def typed(text: str) -> list[str]:
    lines = [line for block in re.findall(r"```bash\n(.*?)```", text, re.DOTALL) for line in block.splitlines()]
    return [line for line in lines if line.startswith(("helm ", "kubectl "))]


@pytest.mark.parametrize(("version", "release"), HELMS)
def test_the_guide_installs_upgrades_and_goes_back(version: Literal[3, 4], release: str, tmp_path: Path) -> None:
    _tools(tmp_path, version)
    with kube_api(release) as api:
        for command in commands("Install"):
            _type(api, tmp_path, command)
        assert api.waiting() == []
        before = api.get("Deployment", "circadian-controller", "circadian")["status"]
        assert before["readyReplicas"] == before["replicas"] > 1
        api.scale_group("circadian", "circadian", "learner", 2)
        upgrade, rollback = commands("Upgrade, and back")
        more = f" {CLIENTS_SIDE}" if version == 4 else ""
        _type(api, tmp_path, f"{upgrade} --set controller.podAnnotations.new=yes{more}")
        _type(api, tmp_path, f"{rollback}{more}")
        groups = {
            each["groupName"]: each["replicas"]
            for each in api.get("RayCluster", "circadian", "circadian")["spec"]["workerGroupSpecs"]
        }
        assert groups["learner"] == 2, "what a night holds is left to it"


@pytest.mark.parametrize(("version", "release"), HELMS)
def test_the_guide_restores_where_the_release_is(version: Literal[3, 4], release: str, tmp_path: Path) -> None:
    _tools(tmp_path, version)
    with kube_api(release) as api:
        for command in commands("Install"):
            _type(api, tmp_path, command)
        night = {"name": "slp-00a1-a1", "namespace": "circadian", "labels": {"circadian/night": "true", **INSTANCE}}
        api.create({"apiVersion": "ray.io/v1", "kind": "RayJob", "metadata": night, "spec": {"entrypoint": "night"}})
        for command in restoring("circadian"):
            if " exec " in command:
                assert [pod["metadata"]["name"] for pod in api.all("Pod", "circadian") if _has_the_home(pod)] == ["restore"]
                assert api.names("RayJob", "circadian") == [], "no controller would bring it back meanwhile"
                continue
            _type(api, tmp_path, f"{command} {CLIENTS_SIDE}" if version == 4 and command.startswith("helm") else command)
        assert api.waiting() == []
        assert api.get("RayCluster", "circadian", "circadian")["status"]["state"] == "ready"
        controllers = api.get("Deployment", "circadian-controller", "circadian")
        assert controllers["status"]["readyReplicas"] == controllers["spec"]["replicas"] == 2


def test_the_guide_rotates_rays_token_and_the_cluster_is_there_again(tmp_path: Path) -> None:
    version, release = HELMS[-1]
    _tools(tmp_path, version)
    (row,) = (line for line in GUIDE.splitlines() if line.startswith("| Ray's token |"))
    (command,) = re.findall(r"`(kubectl [^`]+)`", row)
    with kube_api(release) as api:
        for line in typed(CHARTS_PAGE)[:-1]:
            _type(api, tmp_path, line)
        before = {pod["metadata"]["uid"] for pod in api.all("Pod", "circadian") if pod["metadata"]["labels"].get("ray.io/cluster")}
        _type(api, tmp_path, "kubectl --namespace circadian delete secret circadian")
        _type(api, tmp_path, command.replace("kubectl ", "kubectl --namespace circadian "))
        after = {pod["metadata"]["uid"] for pod in api.all("Pod", "circadian") if pod["metadata"]["labels"].get("ray.io/cluster")}
        assert len(after) == len(before) > 1
        assert not after & before
        assert api.get("RayCluster", "circadian", "circadian")["status"]["state"] == "ready"
        assert "auth_token" in api.get("Secret", "circadian", "circadian")["data"]


@pytest.mark.parametrize(("version", "release"), HELMS)
def test_the_guide_restores_into_a_new_namespace(version: Literal[3, 4], release: str, tmp_path: Path) -> None:
    _tools(tmp_path, version)
    with kube_api(release) as api:
        for command in commands("Install"):
            if command.startswith("kubectl create") or command.startswith("kubectl --namespace"):
                _type(api, tmp_path, re.sub(r"(?<=namespace )circadian\b", "drill", command))
        for command in restoring("drill"):
            if " exec " in command:
                assert [pod["metadata"]["name"] for pod in api.all("Pod", "drill") if _has_the_home(pod)] == ["restore"]
                continue
            _type(api, tmp_path, command)
        assert api.waiting() == []
        assert {claim for pod in api.all("Pod", "drill") for claim in _claims(pod)} == {"circadian-home", "circadian-models"}
        assert set(api.names("PersistentVolumeClaim", "drill")) == {"circadian-home", "circadian-models"}


def test_the_pod_that_restores_writes_the_home_where_the_controllers_read_it() -> None:
    (pod,) = (each for each in MANIFESTS if each["kind"] == "Pod")
    (container,) = pod["spec"]["containers"]
    (controller,) = (each for each in pods("minimal") if each.component == "controller")
    theirs = controller.containers[0]
    mounts = [each for each in theirs["volumeMounts"] if each["name"] in ("home", "models")]
    assert container["volumeMounts"] == mounts
    assert container["image"] == theirs["image"]
    users = ("runAsUser", "runAsGroup", "fsGroup", "runAsNonRoot", "seccompProfile")
    assert {each: pod["spec"]["securityContext"][each] for each in users} == {
        each: controller.spec["securityContext"][each] for each in users
    }


def restoring(namespace: str) -> list[str]:
    """Those of the restore in one namespace, in order; what kubectl only could do with a container is among them."""
    return [line for line in commands("Back up and restore") if f"namespace {namespace} " in line and "--create" not in line]


def _has_the_home(pod: Object) -> bool:
    return "circadian-home" in _claims(pod)


def _claims(pod: Object) -> set[str]:
    volumes = pod["spec"].get("volumes") or []
    return {each["persistentVolumeClaim"]["claimName"] for each in volumes if "persistentVolumeClaim" in each}


def _tools(folder: Path, version: Literal[3, 4]) -> None:
    """helm and kubectl under the names that are typed, and the files that the guide says to write."""
    (folder / "helm").symlink_to(helm(version))
    (folder / "kubectl").symlink_to(kubectl())
    for name, text in FILES.items():
        (folder / name).write_text(text)


@pytest.mark.parametrize(("version", "release"), HELMS)
def test_what_the_charts_page_types_first_comes_up(version: Literal[3, 4], release: str, tmp_path: Path) -> None:
    _tools(tmp_path, version)
    lines = typed(CHARTS_PAGE)
    assert len(lines) == 5
    with kube_api(release) as api:
        for command in lines:
            _type(api, tmp_path, command)
        assert api.waiting() == []


def test_the_guide_says_what_helm_4_needs() -> None:
    assert f"With helm 4 add `{CLIENTS_SIDE}`" in GUIDE


def _type(api: KubeApi, folder: Path, command: str) -> None:
    env = {"PATH": f"{folder}:/usr/bin:/bin", "HOME": str(folder), "KUBECONFIG": str(api.kubeconfig(folder)), **GIVEN}
    command = command.replace("--filename ", f"--filename {folder}/")
    ended = subprocess.run(["bash", "-euc", command], capture_output=True, text=True, env=env, cwd=ROOT, timeout=COMMAND_SECONDS)
    assert ended.returncode == 0, "\n".join([command, ended.stdout, ended.stderr, *api.waiting()])
