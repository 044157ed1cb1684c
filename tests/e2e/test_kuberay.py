"""What kuberay.py says KubeRay makes: pods that Kubernetes takes, commands that a shell reads as they are meant, nothing passed over."""

from __future__ import annotations

import copy
import json
import shlex
from typing import Any

import kuberay
import pytest
from pod_manifest import NotInManifest, Object

CLUSTER: Object = {
    "metadata": {"name": "night", "namespace": "dreams"},
    "spec": {
        "rayVersion": "2.60.0",
        "authOptions": {"mode": "token"},
        "headGroupSpec": {
            "rayStartParams": {"num-cpus": "0"},
            "template": {
                "metadata": {"labels": {"app.kubernetes.io/name": "circadian", "ray.io/group": "mine"}},
                "spec": {"containers": [{"name": "ray-head", "image": "ray", "ports": [{"name": "gcs", "containerPort": 6379}]}]},
            },
        },
        "workerGroupSpecs": [
            {
                "groupName": "learner",
                "rayStartParams": {"resources": "'{\"role\": 1}'", "include-dashboard": "false", "verbose": "false"},
                "template": {
                    "spec": {
                        "containers": [
                            {
                                "name": "ray-worker",
                                "image": "ray",
                                "env": [{"name": "RAY_PORT", "value": "1"}],
                                "resources": {"limits": {"cpu": "1500m", "memory": "2Gi"}},
                            }
                        ]
                    }
                },
            }
        ],
    },
}
HEAD = "night-head-svc.dreams.svc.cluster.local"


def container(name: str) -> Object:
    (found,) = [pod["spec"]["containers"][0] for key, pod in kuberay.pods(CLUSTER).items() if name in key]
    return found


def variables(item: Object) -> dict[str, Any]:
    return {one["name"]: one.get("value", one.get("valueFrom")) for one in item["env"]}


def test_pods_are_what_kubernetes_takes() -> None:
    validate = pytest.importorskip("kubernetes_validate", reason="run `make .venv/.helm`").validate
    for name, pod in kuberay.pods(CLUSTER).items():
        validate({"apiVersion": "v1", "kind": "Pod", **pod, "metadata": {**pod["metadata"], "name": name}}, "1.34", strict=True)


def test_a_worker_is_started_as_its_parameters_say() -> None:
    ulimit, start = container("worker")["args"][0].split("; ")
    assert ulimit.startswith("ulimit -n")
    words = shlex.split(start)
    assert words[:2] == ["ray", "start"]
    flags = dict(word.partition("=")[::2] for word in words[2:])
    assert json.loads(flags["--resources"]) == {"role": 1}
    assert flags["--address"] == f"{HEAD}:6379"
    assert (flags["--num-cpus"], flags["--memory"]) == ("2", str(2 * 1024**3))
    assert flags["--include-dashboard"] == "false"
    assert "--verbose" not in flags
    assert flags["--block"] == ""


def test_what_the_user_gives_is_kept_and_the_rest_is_added() -> None:
    worker, head = variables(container("worker")), variables(container("head"))
    assert worker["RAY_PORT"] == "1"
    assert worker["RAY_ADDRESS"] == f"{HEAD}:6379"
    assert head["RAY_ADDRESS"] == "127.0.0.1:6379"
    assert head["RAY_AUTH_TOKEN"] == {"secretKeyRef": {"name": "night", "key": "auth_token"}}


def test_the_heads_service_selects_the_head_alone() -> None:
    selector = kuberay.head_service(CLUSTER)["spec"]["selector"]
    chosen = [name for name, pod in kuberay.pods(CLUSTER).items() if selector.items() <= pod["metadata"]["labels"].items()]
    assert chosen == ["night-head-x0001"]
    assert selector["app.kubernetes.io/name"] == "circadian"


def test_the_operator_makes_a_token_where_none_is_given() -> None:
    made = kuberay.token_secret(CLUSTER, "word")
    assert made is not None
    assert made["metadata"]["name"] == "night"
    given = copy.deepcopy(CLUSTER)
    given["spec"]["authOptions"]["secretName"] = "mine"
    assert kuberay.token_secret(given, "word") is None


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"enableInTreeAutoscaling": True}, "autoscaler"),
        ({"gcsFaultToleranceOptions": {"backend": "redis"}}, "gcsFaultToleranceOptions"),
        ({"rayVersion": "2.40.0"}, "probes"),
    ],
)
def test_what_is_not_written_here_is_refused(change: Object, told: str) -> None:
    with pytest.raises(NotInManifest, match=told):
        kuberay.pods({**CLUSTER, "spec": {**CLUSTER["spec"], **change}})
