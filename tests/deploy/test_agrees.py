"""deploy/compose.yaml and helm/circadian run the same: images, commands, variables, ports, users, and files at the same places."""

from __future__ import annotations

import json
import subprocess
from functools import cache
from typing import Any

import pytest
import yaml

from tests.deploy.tools import DEPLOY, ROOT, configured
from tests.helm.tools import helm

CHART = ROOT / "helm/circadian"
VALUES = {
    "postgres.dev.enabled": "false",
    "database.existingSecret": "db",
    "secrets.keepInHome": "false",
    "secrets.existingSecret": "app",
    "ray.dashboard.prometheusUrl": "http://prometheus:9090",
}
"""Beside those for a laptop: what compose has, too."""
CONTAINERS = ("migrate", "controller", "ray-node", "ray-head", "ray-worker")
OPERATOR = {"RAY_AUTH_TOKEN_PATH"}
"""What KubeRay gives its nodes in a way of its own: Ray's token."""
OPERATOR_SWITCHES = {"address", "block", "dashboard-port", "disable-usage-stats", "head", "num-cpus", "port"}
"""What KubeRay itself adds to `ray start`, or reads off a container's resources."""

every_container = pytest.mark.parametrize("name", CONTAINERS)


@cache
def rendered() -> tuple[dict[str, Any], ...]:
    command = [helm(4), "template", "circadian", CHART, "-f", CHART / "ci/laptop-cpu-values.yaml", "--api-versions", "ray.io/v1"]
    switches = [part for name, value in VALUES.items() for part in ("--set", f"{name}={value}")]
    done = subprocess.run([*command, *switches], capture_output=True, text=True, check=True)
    return tuple(document for document in yaml.safe_load_all(done.stdout) if document)


def one(kind: str) -> dict[str, Any]:
    (found,) = [document for document in rendered() if document["kind"] == kind]
    return found


def pod_of(name: str) -> dict[str, Any]:
    cluster = one("RayCluster")["spec"]
    templates = {
        "migrate": one("Job")["spec"]["template"],
        "controller": one("Deployment")["spec"]["template"],
        "ray-node": one("Deployment")["spec"]["template"],
        "ray-head": cluster["headGroupSpec"]["template"],
        "ray-worker": cluster["workerGroupSpecs"][0]["template"],
    }
    return templates[name]["spec"]


def container(name: str) -> dict[str, Any]:
    (found,) = [part for part in pod_of(name)["containers"] if part["name"] == name]
    return found


def service(name: str) -> dict[str, Any]:
    return configured()["services"][name]


def here(text: str) -> str:
    """With the head's name in compose instead of its name in the chart."""
    return text.replace("circadian-head-svc.default.svc", "ray-head")


def variables(name: str) -> dict[str, str]:
    return {variable["name"]: here(variable["value"]) for variable in container(name)["env"]}


def ray_switches(name: str) -> dict[str, str]:
    """Of `ray start` in compose."""
    return dict(part.removeprefix("--").partition("=")[::2] for part in service(name)["command"] if part.startswith("--"))


def without_operators(switches: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in switches.items() if name not in OPERATOR_SWITCHES}


def mounted(name: str) -> set[str]:
    spaces = {"/dev/shm"}
    """Compose has a size for it, or shares that of the controller."""
    files = {"/etc/circadian/secrets", "/etc/circadian/ray"}
    return {mount["mountPath"] for mount in container(name)["volumeMounts"]} - spaces - files


@every_container
def test_both_run_the_same_image(name: str) -> None:
    assert service(name)["image"] == container(name)["image"]


@every_container
def test_both_give_the_same_variables(name: str) -> None:
    ours, theirs = service(name)["environment"], variables(name)
    if name in ("ray-head", "ray-worker"):
        ours = {key: value for key, value in ours.items() if key not in OPERATOR}
    assert ours == theirs


@pytest.mark.parametrize("name", ["migrate", "controller", "ray-node"])
def test_both_run_the_same_command(name: str) -> None:
    theirs = [here(part) for part in container(name)["command"] + container(name).get("args", [])]
    assert service(name)["command"] == theirs


@pytest.mark.parametrize(("name", "group"), [("ray-head", "headGroupSpec"), ("ray-worker", "workerGroupSpecs")])
def test_both_start_ray_with_the_same_switches(name: str, group: str) -> None:
    spec = one("RayCluster")["spec"][group]
    theirs = dict((spec[0] if isinstance(spec, list) else spec)["rayStartParams"])
    ours = ray_switches(name)
    for switches in (ours, theirs):
        if "resources" in switches:  # the operator runs `ray start` in a shell, so the chart quotes this
            switches["resources"] = json.loads(switches["resources"].strip("'"))
    assert without_operators(ours) == without_operators(theirs)
    assert ours.get("num-cpus") == "0" if name == "ray-head" else "num-cpus" in ours


def test_both_have_the_same_ports() -> None:
    theirs = {
        name: {port["containerPort"] for port in container(name)["ports"]} for name in CONTAINERS if "ports" in container(name)
    }
    controller = service("controller")
    environment = controller["environment"]
    assert theirs["controller"] == {int(environment["CIRCADIAN_PORT"]), int(environment["CIRCADIAN_METRICS_PORT"])}
    assert [port["target"] for port in controller["ports"]] == [int(environment["CIRCADIAN_PORT"])]
    head = ray_switches("ray-head")
    scraped = yaml.safe_load((DEPLOY / "monitoring/prometheus.yaml").read_text())["scrape_configs"]
    others = {
        int(target.partition(":")[2]) for job in scraped for part in job.get("static_configs", []) for target in part["targets"]
    }
    assert theirs["ray-head"] == {int(head["port"]), int(head["dashboard-port"]), int(head["metrics-export-port"])} | others
    keeper = int(service("ray-node")["command"][3])
    for name, more in (("ray-node", {keeper}), ("ray-worker", set())):
        assert theirs[name] <= more | {
            int(ray_switches(name)[key]) for key in ("metrics-export-port", "dashboard-agent-listen-port")
        }


@every_container
def test_both_run_as_the_same_user_who_may_as_little(name: str) -> None:
    pod, own = pod_of(name)["securityContext"], container(name)["securityContext"]
    assert service(name)["user"] == f"{pod['runAsUser']}:{pod['runAsGroup']}"
    assert service(name)["read_only"] is own["readOnlyRootFilesystem"] is True
    assert service(name)["cap_drop"] == own["capabilities"]["drop"]
    assert ("no-new-privileges:true" in service(name)["security_opt"]) is (own["allowPrivilegeEscalation"] is False)


@every_container
def test_both_write_at_the_same_places(name: str) -> None:
    ours = {volume["target"] for volume in service(name).get("volumes", [])} | {
        entry.partition(":")[0] for entry in service(name)["tmpfs"]
    }
    assert ours == mounted(name)
    models = {mount["mountPath"]: mount.get("readOnly", False) for mount in container(name)["volumeMounts"]}
    for volume in service(name).get("volumes", []):
        assert volume.get("read_only", False) is models[volume["target"]]


@pytest.mark.parametrize("name", ["migrate", "controller"])
def test_both_put_secrets_into_the_same_files(name: str) -> None:
    (folder,) = [mount["mountPath"] for mount in container(name)["volumeMounts"] if mount["name"] == "secrets"]
    (volume,) = [volume for volume in pod_of(name)["volumes"] if volume["name"] == "secrets"]
    sources = [source["secret"] for source in volume["projected"]["sources"]] if "projected" in volume else [volume["secret"]]
    theirs = {f"{folder}/{item['path']}" for source in sources for item in source["items"]}
    ours = {secret["target"] for secret in service(name)["secrets"] if secret["source"] != "ray_token"}
    assert ours == theirs
    assert service(name)["environment"]["CIRCADIAN_SECRETS_FOLDER"] == folder


@pytest.mark.parametrize("name", ["controller", "ray-node"])
def test_both_put_rays_token_into_the_same_file(name: str) -> None:
    (folder,) = [mount["mountPath"] for mount in container(name)["volumeMounts"] if mount["name"] == "ray-token"]
    (volume,) = [volume for volume in pod_of(name)["volumes"] if volume["name"] == "ray-token"]
    (item,) = volume["secret"]["items"]
    (target,) = [secret["target"] for secret in service(name)["secrets"] if secret["source"] == "ray_token"]
    assert target == f"{folder}/{item['path']}" == service(name)["environment"]["RAY_AUTH_TOKEN_PATH"]


def test_both_let_the_controller_find_its_raylet() -> None:
    assert one("Deployment")["spec"]["template"]["spec"]["shareProcessNamespace"] is True
    assert service("ray-node")["pid"] == "service:controller"


def test_both_show_the_same_dashboards_and_alerts() -> None:
    mounts = {volume["target"]: volume["source"] for name in ("grafana", "prometheus") for volume in service(name)["volumes"]}
    assert (DEPLOY / mounts["/etc/circadian/dashboards"]).resolve() == CHART / "dashboards"
    assert (DEPLOY / mounts["/etc/prometheus/alerts.yaml"]).resolve() == CHART / "alerts.yaml"
