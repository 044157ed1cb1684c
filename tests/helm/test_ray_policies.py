"""What must hold of the Ray cluster of every values file, and of the controllers that belong to it."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import yaml
from ray.autoscaler._private.kuberay.autoscaling_config import _get_custom_resources

from tests.helm.chart import CHART, default_values, every_file, one, pods, template, values_file, variables, worker_groups


@every_file
def test_ray_always_asks_for_its_token(name: str) -> None:
    assert one(name, "RayCluster")["spec"]["authOptions"]["mode"] == "token"
    for pod in pods(name):
        for container in pod.containers:
            assert variables(container).get("RAY_AUTH_MODE", "token") == "token"
    [controller] = [pod for pod in pods(name) if pod.component == "controller"]
    for container in controller.containers:
        assert variables(container)["RAY_AUTH_MODE"] == "token"
        assert variables(container)["RAY_AUTH_TOKEN_PATH"].startswith("/etc/circadian/ray/")


@every_file
def test_controllers_read_the_token_that_the_cluster_has(name: str) -> None:
    cluster = one(name, "RayCluster")
    [controller] = [pod for pod in pods(name) if pod.component == "controller"]
    [token] = [volume["secret"] for volume in controller.spec["volumes"] if volume["name"] == "ray-token"]
    assert token["secretName"] == cluster["spec"]["authOptions"].get("secretName", cluster["metadata"]["name"])


@every_file
def test_the_head_takes_no_work(name: str) -> None:
    head = one(name, "RayCluster")["spec"]["headGroupSpec"]
    assert {head["rayStartParams"][param] for param in ("num-cpus", "num-gpus")} == {"0"}
    assert "resources" not in head["rayStartParams"]
    assert head["serviceType"] == "ClusterIP"
    assert not {"enableIngress", "ingressOptions"} & set(head)


@every_file
def test_groups_offer_their_roles_in_a_form_that_all_readers_take(name: str) -> None:
    """The shell that runs `ray start`, KubeRay (trims quotes, then JSON) and Ray's autoscaler, here by its own code."""
    offered: dict[str, set[str]] = {}
    for group in worker_groups(name):
        parameter = group["rayStartParams"]["resources"]
        assert re.fullmatch(r"'\{.*\}'", parameter), "single quotes, for the shell"
        found = _get_custom_resources({}, group["rayStartParams"], group["groupName"])
        assert found
        assert set(found.values()) == {1000}
        offered[group["groupName"]] = set(found)
    assert set().union(*offered.values()) == {"circadian_wake", "circadian_rollout", "circadian_learner"}
    if len(offered) > 1:
        assert offered == {role: {f"circadian_{role}"} for role in ("wake", "rollout", "learner")}


@every_file
def test_whatever_starts_work_knows_that_nodes_have_roles(name: str) -> None:
    for pod in pods(name):
        if pod.is_ray or pod.component == "controller":
            for container in pod.containers:
                if container["name"] != "autoscaler":
                    assert variables(container)["NODES_HAVE_ROLES"] == "1"


@every_file
def test_a_controllers_node_joins_the_same_cluster_and_takes_no_work(name: str) -> None:
    cluster = one(name, "RayCluster")["metadata"]["name"]
    [controller] = [pod for pod in pods(name) if pod.component == "controller"]
    main, node = controller.spec["containers"]
    address = f"{cluster}-head-svc.dreams.svc:6379"
    assert node["args"][0] == f"--address={address}"
    assert {"--num-cpus=0", "--num-gpus=0", "--block"} <= set(node["args"])
    assert variables(main)["CIRCADIAN_RAY_ADDRESS"] == address
    shared = [{m["mountPath"]: m["name"] for m in container["volumeMounts"]} for container in (main, node)]
    for path in ("/tmp/ray", "/dev/shm"):
        assert shared[0][path] == shared[1][path]
    assert main["image"] == node["image"]
    # A node with this variable would be taken for one that KubeRay's autoscaler has made.
    assert "RAY_CLOUD_INSTANCE_ID" not in variables(node)


@every_file
def test_all_who_read_and_write_the_home_have_the_same_one_at_the_same_place(name: str) -> None:
    homes = set()
    for pod in pods(name):
        claims = {
            v["name"]: v["persistentVolumeClaim"]["claimName"] for v in pod.spec.get("volumes", []) if "persistentVolumeClaim" in v
        }
        for container in pod.containers:
            for mount in container["volumeMounts"]:
                if mount["mountPath"] == "/var/lib/circadian":
                    homes.add((claims[mount["name"]], mount.get("subPath")))
        if pod.is_ray or pod.component == "controller":
            assert "home" in claims
    assert len(homes) == 1


@every_file
def test_shared_memory_is_memory_and_holds_the_object_store(name: str) -> None:
    units = {"Mi": 2**20, "Gi": 2**30}
    for pod in pods(name):
        for volume in pod.spec.get("volumes", []):
            if volume["name"] == "shared-memory":
                assert volume["emptyDir"]["medium"] == "Memory"
                limit = volume["emptyDir"]["sizeLimit"]
                assert int(limit[:-2]) * units[limit[-2:]] >= default_values()["ray"]["objectStoreBytes"]


def test_autoscaling_is_the_second_version_and_careful() -> None:
    spec = one("gpu-production", "RayCluster")["spec"]
    assert spec["enableInTreeAutoscaling"] is True
    assert (spec["autoscalerOptions"]["version"], spec["autoscalerOptions"]["upscalingMode"]) == ("v2", "Conservative")
    assert spec["upgradeStrategy"] == {"type": "Recreate"}
    assert "autoscalerOptions" not in one("laptop-cpu", "RayCluster")["spec"]


def test_rays_state_in_redis_has_its_password_by_reference() -> None:
    options = one("gpu-production", "RayCluster")["spec"]["gcsFaultToleranceOptions"]
    assert options["backend"] == "redis"
    assert options["redisPassword"] == {"valueFrom": {"secretKeyRef": {"name": "ray-redis", "key": "password"}}}


def test_a_kueue_queue_is_a_label_of_the_cluster_and_that_it_scales_an_annotation() -> None:
    metadata = one("gpu-production", "RayCluster")["metadata"]
    assert metadata["labels"]["kueue.x-k8s.io/queue-name"] == "nights"
    assert metadata["annotations"] == {"kueue.x-k8s.io/elastic-job": "true"}


def test_another_version_of_the_chart_leaves_the_cluster_as_it_is(tmp_path: Path) -> None:
    """KubeRay makes it anew when anything of its spec but sizes has changed; images are given by digest here."""
    chart = tmp_path / "circadian"
    shutil.copytree(CHART, chart)
    told = yaml.safe_load((chart / "Chart.yaml").read_text())
    (chart / "Chart.yaml").write_text(yaml.safe_dump(told | {"version": "9.9.9", "appVersion": "9.9.8"}))
    done = template("--values", values_file("gpu-production"), "--set", "commonLabels.team=others", chart=chart)
    assert done.returncode == 0, done.stderr
    (later,) = (each for each in yaml.safe_load_all(done.stdout) if each and each["kind"] == "RayCluster")
    assert later["spec"] == one("gpu-production", "RayCluster")["spec"]
    assert later["metadata"]["labels"]["helm.sh/chart"] == "circadian-9.9.9"
