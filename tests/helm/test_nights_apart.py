"""Nights with clusters of their own: what the chart writes down is what the controller makes RayJobs of, and it may do no more."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import yaml

from services.night_clusters import ray_job, read_cluster_file
from tests.helm.chart import (
    NAMES,
    Object,
    cluster_of_nights,
    default_values,
    objects,
    of_kind,
    one,
    pods,
    template,
    values_file,
    variables,
)
from tests.helm.chart import NIGHTS as NAME
from tests.helm.schemas import faults


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "rayjob.yaml"
    path.write_text(one(NAME, "ConfigMap", "-night")["data"]["rayjob.yaml"])
    return path


def test_a_night_of_it_is_a_rayjob_that_kuberay_takes(file: Path) -> None:
    metadata = {"sleep_id": "slp_00a1", "tenant": "ours", "deployment": "mine", "phase": "night"}
    job = ray_job(read_cluster_file(file), "slp_00a1-a1", Path("/var/lib/circadian/job.json"), metadata)
    assert faults(job) == []
    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "nights"
    assert job["spec"]["rayClusterSpec"]["authOptions"] == {"mode": "token", "secretName": "day-circadian"}


def test_it_has_the_groups_of_nights_and_none_that_answers(file: Path) -> None:
    spec = read_cluster_file(file).spec.rayClusterSpec
    roles = {name: group["roles"] for name, group in default_values()["ray"]["groups"].items()}
    assert {group["groupName"] for group in spec["workerGroupSpecs"]} == {name for name in roles if roles[name] != ["wake"]}
    assert all(group["replicas"] >= 1 for group in spec["workerGroupSpecs"])
    assert not {"suspend", "gcsFaultToleranceOptions"} & set(spec)
    head, day = spec["headGroupSpec"], copy.deepcopy(one(NAME, "RayCluster")["spec"]["headGroupSpec"])
    assert head["template"]["metadata"]["labels"].pop("circadian/night") == "true", "no budget of the day's head counts it"
    assert head["template"]["spec"].pop("automountServiceAccountToken") is False, "nothing scales what a queue has admitted"
    assert day["template"]["spec"].pop("automountServiceAccountToken") is True
    assert head == day


@pytest.mark.parametrize("name", NAMES)
def test_kueue_takes_every_ray_cluster_that_has_a_queue(name: str) -> None:
    """As its webhooks decide (pkg/controller/jobs/raycluster and rayjob): the annotation counts, a label does not."""
    made = [*objects(name), *(cluster for each in objects(name) if (cluster := cluster_of_nights(each)))]
    for cluster in (each for each in made if each["kind"] == "RayCluster"):
        assert not refused_by_kueue(cluster["metadata"], cluster["spec"])
        if "enableInTreeAutoscaling" not in cluster["spec"]:
            assert "autoscalerOptions" not in cluster["spec"]


def test_nights_scale_where_no_queue_or_an_elastic_one_admits_them(tmp_path: Path) -> None:
    queue, elastic = {"kueue.x-k8s.io/queue-name": "nights"}, {"kueue.x-k8s.io/elastic-job": "true"}
    for own in ({}, {"labels": queue, "annotations": elastic}):
        cluster = nights_of(own, {}, tmp_path)
        assert cluster["spec"]["enableInTreeAutoscaling"] is True
        assert not refused_by_kueue(cluster["metadata"], cluster["spec"])
        assert cluster["spec"]["headGroupSpec"]["template"]["spec"]["automountServiceAccountToken"] is True
    idle = {"groups": {"rollout": {"idleTimeoutSeconds": 600}}}
    queued = nights_of({}, {"commonLabels": queue, "ray": {"annotations": elastic, **idle}}, tmp_path)
    assert "enableInTreeAutoscaling" not in queued["spec"]
    assert all("idleTimeoutSeconds" not in group for group in queued["spec"]["workerGroupSpecs"]), "which is the autoscaler's"


def refused_by_kueue(metadata: Object, spec: Object) -> bool:
    queued = "kueue.x-k8s.io/queue-name" in metadata["labels"]
    elastic = metadata.get("annotations", {}).get("kueue.x-k8s.io/elastic-job") == "true"
    return queued and not elastic and spec.get("enableInTreeAutoscaling", False)


def nights_of(own: Object, values: Object, folder: Path) -> Object:
    """The cluster of a night by nights.ownCluster and more values, beside the minimal ones."""
    file = folder / "more.yaml"
    file.write_text(yaml.safe_dump({"nights": {"ownCluster": {"enabled": True, **own}}, **values}))
    done = template("--values", values_file("minimal"), "--values", file)
    assert done.returncode == 0, done.stderr
    (cluster,) = (found for each in yaml.safe_load_all(done.stdout) if each and (found := cluster_of_nights(each)))
    return cluster


def test_the_controller_finds_it_and_its_account_and_may_touch_rayjobs_alone() -> None:
    (pod,) = [pod for pod in pods(NAME) if pod.component == "controller"]
    containers = {container["name"]: container for container in pod.containers}
    given, mounts = variables(containers["controller"]), mounted(containers["controller"])
    assert given["CIRCADIAN_NIGHT_CLUSTER_FILE"] == f"{mounts['night']}/rayjob.yaml"
    assert given["CIRCADIAN_KUBERNETES_ACCOUNT"] == mounts["account"]
    assert "account" not in mounted(containers["ray-node"]), "what runs on Ray has no account"
    (role,) = of_kind(NAME, "Role")
    assert role["rules"] == [{"apiGroups": ["ray.io"], "resources": ["rayjobs"], "verbs": ["create", "get", "list", "delete"]}]
    (bound,) = of_kind(NAME, "RoleBinding")
    assert bound["subjects"][0]["name"] == pod.spec["serviceAccountName"]


def test_without_it_the_controller_has_no_account_and_no_way_to_the_api() -> None:
    assert not of_kind("gpu-production", "Role")
    (pod,) = [pod for pod in pods("gpu-production") if pod.component == "controller"]
    assert "account" not in {volume["name"] for volume in pod.spec["volumes"]}


def test_kuberay_reaches_the_head_to_submit_a_night() -> None:
    policy = one(NAME, "NetworkPolicy", "-ray-head")
    peers = [
        peer for rule in policy["spec"]["ingress"] for peer in rule["from"] if rule["ports"] == [{"protocol": "TCP", "port": 8265}]
    ]
    assert peers == [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kuberay-system"}}}]


def test_without_an_address_of_the_api_it_is_refused() -> None:
    done = template(
        "--values", values_file(NAME), "--set-json", "networkPolicy.apiServer.cidrs=[]", "--set", "ray.autoscaling.enabled=false"
    )
    assert done.returncode == 1
    assert "nights.ownCluster.enabled=false" in done.stderr


def mounted(container: Object) -> dict[str, str]:
    return {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}


def test_the_file_is_yaml_of_one_document() -> None:
    assert len(list(yaml.safe_load_all(one(NAME, "ConfigMap", "-night")["data"]["rayjob.yaml"]))) == 1
