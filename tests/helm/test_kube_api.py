"""The API for tests itself: it refuses what a server refuses, merges as a server does, and runs nothing that a cluster would not run."""

from __future__ import annotations

import copy
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.helm import kube_merge, kube_schemas, kube_wire
from tests.helm.kube_api import KubeApi, kube_api
from tests.helm.kube_control import digest, references
from tests.helm.kube_kinds import Object, named
from tests.helm.kube_rules import amount
from tests.helm.kube_selectors import selected
from tests.helm.kube_store import Refused
from tests.helm.tools import kubectl

RELEASE = "1.34"
APPLY = {"Content-Type": "application/apply-patch+yaml"}


@pytest.fixture
def api() -> Iterator[KubeApi]:
    with kube_api(RELEASE) as api:
        yield api


def container(name: str = "app", **more: Any) -> Object:
    return {"name": name, "image": "circadian/cpu:1", **more}


def deployment(name: str = "night", **more: Any) -> Object:
    template = {"metadata": {"labels": {"app": name}}, "spec": {"containers": [container(**more)]}}
    metadata = {"name": name, "namespace": "default"}
    spec = {"replicas": 2, "selector": {"matchLabels": {"app": name}}, "template": template}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": spec}


def changed(value: Object, path: str, to: object) -> Object:
    """A copy with one field set, "spec.template.spec.containers.0.image"; None takes it away."""
    value = copy.deepcopy(value)
    *parents, last = path.split(".")
    place = value
    for name in parents:
        place = place[int(name)] if isinstance(place, list) else place.setdefault(name, {})
    if to is None:
        del place[last]
    else:
        place[last] = to
    return value


BROKEN = {
    "unknown field": ("spec.replica", 3, "strict decoding error"),
    "wrong type": ("spec.replicas", "two", "is not of type"),
    "bad name": ("metadata.name", "Night_1", "RFC 1123"),
    "bad label": ("metadata.labels", {"a": "b c"}, "valid label"),
    "bad label key": ("metadata.labels", {"a b": "c"}, "qualified name"),
    "selector of others": ("spec.selector.matchLabels", {"app": "day"}, "does not match template"),
    "no containers": ("spec.template.spec.containers", [], "Required value"),
    "twice the same name": ("spec.template.spec.containers", [container(), container()], "Duplicate value"),
    "mount of nothing": (
        "spec.template.spec.containers.0.volumeMounts",
        [{"name": "home", "mountPath": "/h"}],
        "Not found: 'home'",
    ),
    "long port name": ("spec.template.spec.containers.0.ports", [{"name": "a-name-of-16-long", "containerPort": 1}], "at most 15"),
    "two handlers": (
        "spec.template.spec.containers.0.livenessProbe",
        {"httpGet": {"port": 1}, "tcpSocket": {"port": 1}},
        "exactly one handler",
    ),
    "more asked than allowed": (
        "spec.template.spec.containers.0.resources",
        {"requests": {"memory": "2Gi"}, "limits": {"memory": "1500Mi"}},
        "less than or equal",
    ),
    "GPU without a limit": (
        "spec.template.spec.containers.0.resources",
        {"requests": {"nvidia.com/gpu": 1}},
        "non overcommitable",
    ),
    "a job's restart policy": ("spec.template.spec.restartPolicy", "Never", "Unsupported value"),
    "annotations of 256 KiB": ("metadata.annotations", {"a": "x" * 262144}, "Too long"),
}


@pytest.mark.parametrize("broken", BROKEN)
def test_what_a_server_refuses_is_refused(api: KubeApi, broken: str) -> None:
    path, to, message = BROKEN[broken]
    with pytest.raises(Refused, match=message) as refused:
        api.create(changed(deployment(), path, to))
    assert refused.value.code in (400, 422)
    assert api.names("Deployment") == []
    api.create(deployment())


def test_what_does_not_change_cannot_be_changed(api: KubeApi) -> None:
    api.create(deployment())
    other = changed(changed(deployment(), "spec.selector.matchLabels", {"app": "x"}), "spec.template.metadata.labels", {"app": "x"})
    answer = httpx.put(f"{api.url}/apis/apps/v1/namespaces/default/deployments/night", json=other)
    assert answer.status_code == 422
    assert "field is immutable" in answer.json()["message"]


def test_unknown_kinds_and_namespaces_are_not_found(api: KubeApi) -> None:
    assert httpx.post(f"{api.url}/apis/apps/v1/namespaces/nowhere/deployments", json=deployment()).status_code in (400, 404)
    assert httpx.get(f"{api.url}/apis/apps/v1/namespaces/default/dreams").status_code == 404
    elsewhere = changed(deployment(), "metadata.namespace", "kube-system")
    answer = httpx.post(f"{api.url}/apis/apps/v1/namespaces/default/deployments", json=elsewhere)
    assert answer.status_code == 400
    assert "does not match the namespace" in answer.json()["message"]


def test_a_write_on_what_has_changed_meanwhile_is_a_conflict(api: KubeApi) -> None:
    first = api.create(deployment())
    api.scale("Deployment", "default", "night", 3)
    answer = httpx.put(f"{api.url}/apis/apps/v1/namespaces/default/deployments/night", json=first)
    assert answer.json()["reason"] == "Conflict"


def test_pods_wait_for_what_they_refer_to(api: KubeApi) -> None:
    variable = {"name": "URL", "valueFrom": {"secretKeyRef": {"name": "database", "key": "url"}}}
    api.create(deployment(env=[variable]))
    assert api.waiting() == [f"{name} waits: secret 'database' not found" for name in api.names("Pod")]
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "database", "namespace": "default"},
        "stringData": {"key": "x"},
    }
    api.create(secret)
    assert "couldn't find key url" in api.waiting()[0]
    url = f"{api.url}/api/v1/namespaces/default/secrets/database"
    merge = {"Content-Type": "application/merge-patch+json"}
    assert httpx.patch(url, json={"stringData": {"url": "y"}}, headers=merge).status_code == 200
    assert api.get("Deployment", "night", "default")["status"]["readyReplicas"] == 2


def test_references_are_found_wherever_a_pod_has_them() -> None:
    spec = {
        "serviceAccountName": "runner",
        "priorityClassName": "serving",
        "volumes": [
            {"name": "a", "secret": {"secretName": "s", "items": [{"key": "k", "path": "p"}]}},
            {"name": "b", "projected": {"sources": [{"configMap": {"name": "c"}}, {"secret": {"name": "o", "optional": True}}]}},
            {"name": "c", "persistentVolumeClaim": {"claimName": "home"}},
        ],
        "initContainers": [container("init", envFrom=[{"secretRef": {"name": "e"}}])],
        "containers": [container()],
    }
    assert {(each.kind, each.name, each.key) for each in references(spec)} == {
        ("ServiceAccount", "runner", None),
        ("PriorityClass", "serving", None),
        ("Secret", "s", None),
        ("Secret", "s", "k"),
        ("ConfigMap", "c", None),
        ("PersistentVolumeClaim", "home", None),
        ("Secret", "e", None),
    }


def test_old_pods_stay_until_new_ones_are_ready(api: KubeApi) -> None:
    api.create(deployment())
    old = api.names("Pod")
    api.fails = lambda pod: pod["spec"]["containers"][0]["image"].endswith(":2")
    merge = {"Content-Type": "application/strategic-merge-patch+json"}
    url = f"{api.url}/apis/apps/v1/namespaces/default/deployments/night"
    patch = {"spec": {"template": {"spec": {"containers": [{"name": "app", "image": "circadian/cpu:2"}]}}}}
    httpx.patch(url, json=patch, headers=merge)
    assert set(old) < set(api.names("Pod"))
    api.fails = lambda pod: False
    api.store.settle()
    current = digest(api.get("Deployment", "night", "default")["spec"]["template"])
    assert api.names("Pod") == [f"night-{current}-0", f"night-{current}-1"]


def test_what_owns_takes_what_it_owns_with_it(api: KubeApi) -> None:
    api.create(deployment())
    assert httpx.delete(f"{api.url}/apis/apps/v1/namespaces/default/deployments/night").status_code == 200
    assert api.names("ReplicaSet") == api.names("Pod") == []


def test_a_watch_tells_what_is_there_and_what_happens(api: KubeApi) -> None:
    api.create(deployment())
    query = {
        "watch": "true",
        "sendInitialEvents": "true",
        "resourceVersionMatch": "NotOlderThan",
        "fieldSelector": "metadata.name=night",
    }
    seen: list[tuple[str, str]] = []
    url = f"{api.url}/apis/apps/v1/namespaces/default/deployments"
    with httpx.stream("GET", url, params=query, timeout=20) as stream:
        assert stream.status_code == 200
        threading.Timer(0.2, lambda: httpx.delete(f"{url}/night")).start()
        for line in stream.iter_lines():
            event = httpx.Response(200, content=line).json()
            seen.append((event["type"], event["object"]["metadata"].get("name", "")))
            if event["type"] == "DELETED":
                break
    assert seen == [("ADDED", "night"), ("BOOKMARK", ""), ("DELETED", "night")]


def test_apply_keeps_what_others_own_and_takes_back_what_it_no_longer_says(api: KubeApi) -> None:
    url = f"{api.url}/apis/apps/v1/namespaces/default/deployments/night"
    said = changed(deployment(env=[{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]), "metadata.labels", {"mine": "yes"})
    query = {"fieldManager": "helm"}
    assert httpx.patch(url, params=query, json=said, headers=APPLY).status_code == 200
    strategic = {"Content-Type": "application/strategic-merge-patch+json"}
    more = {"spec": {"template": {"spec": {"containers": [{"name": "app", "env": [{"name": "C", "value": "3"}]}]}}}}
    httpx.patch(url, json=more, headers=strategic)
    said = changed(deployment(env=[{"name": "A", "value": "1"}]), "metadata.labels", {})
    answer = httpx.patch(url, params=query, json=said, headers=APPLY)
    assert answer.status_code == 200, answer.text
    there = answer.json()
    assert "mine" not in there["metadata"].get("labels", {})
    assert {each["name"] for each in there["spec"]["template"]["spec"]["containers"][0]["env"]} == {"A", "C"}


def test_apply_conflicts_with_another_owner_unless_forced(api: KubeApi) -> None:
    url = f"{api.url}/apis/apps/v1/namespaces/default/deployments/night"
    httpx.patch(url, params={"fieldManager": "helm"}, json=deployment(), headers=APPLY)
    api.scale("Deployment", "default", "night", 5)
    same = httpx.patch(url, params={"fieldManager": "helm"}, json=deployment(), headers=APPLY)
    assert same.status_code == 409
    assert ".spec.replicas" in same.json()["message"]
    without = changed(deployment(), "spec.replicas", None)
    assert httpx.patch(url, params={"fieldManager": "helm"}, json=without, headers=APPLY).json()["spec"]["replicas"] == 5
    forced = httpx.patch(url, params={"fieldManager": "helm", "force": "true"}, json=deployment(), headers=APPLY)
    assert forced.json()["spec"]["replicas"] == 2


def test_strategic_patches_merge_lists_by_their_keys() -> None:
    node = kube_schemas.root(RELEASE, named("Deployment"))
    patch = {
        "spec": {
            "template": {"spec": {"containers": [container("side"), {"name": "app", "args": ["x"]}], "volumes": [{"name": "v"}]}}
        }
    }
    merged = kube_merge.strategic(deployment(), patch, node)["spec"]["template"]["spec"]
    assert [(each["name"], each.get("args")) for each in merged["containers"]] == [("app", ["x"]), ("side", None)]
    gone = {"spec": {"template": {"spec": {"containers": [{"name": "app", "$patch": "delete"}, container("new")]}}}}
    merged = kube_merge.strategic(deployment(), gone, node)["spec"]["template"]["spec"]
    assert [each["name"] for each in merged["containers"]] == ["new"]


def test_merge_patch_is_that_of_the_standard() -> None:
    """RFC 7396, appendix A, in part."""
    assert kube_merge.merge_patch({"a": {"b": "c", "d": 1}}, {"a": {"b": None, "e": [1]}}) == {"a": {"d": 1, "e": [1]}}
    assert kube_merge.merge_patch({"a": [1, 2]}, {"a": [3]}) == {"a": [3]}
    assert kube_merge.merge_patch("x", {"a": {"b": None}}) == {"a": {}}


def test_a_secret_as_protobuf_is_read() -> None:
    def field(number: int, raw: bytes) -> bytes:
        return bytes([number << 3 | 2, len(raw)]) + raw

    label = field(1, b"owner") + field(2, b"helm")
    metadata = field(1, b"sh.helm.release") + field(3, b"models") + field(11, label)
    secret = field(1, metadata) + field(2, field(1, b"release") + field(2, b"\x00\xff")) + field(3, b"helm.sh/release.v1")
    body = kube_wire.MAGIC + field(1, field(1, b"v1") + field(2, b"Secret")) + field(2, secret)
    assert kube_wire.decoded(body) == {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "sh.helm.release", "namespace": "models", "labels": {"owner": "helm"}},
        "data": {"release": "AP8="},
        "type": "helm.sh/release.v1",
    }


@pytest.mark.parametrize(
    ("labels", "fields", "chosen"),
    [
        ("app=a,tier!=x", "", True),
        ("app in (a, b),tier notin (x)", "", True),
        ("app,!tier", "metadata.name=n", True),
        ("app=b", "", False),
        ("tier", "", False),
        ("app notin (a)", "", False),
        ("", "metadata.name!=n", False),
        ("", "status.phase=Running", True),
    ],
)
def test_selectors_choose(labels: str, fields: str, chosen: bool) -> None:
    value = {"metadata": {"name": "n", "labels": {"app": "a"}}, "status": {"phase": "Running"}}
    assert selected(value, labels, fields) is chosen


def test_quantities_are_numbers() -> None:
    assert amount("500m") == amount("0.5")
    assert amount("1Gi") == amount(1024**3)
    assert amount("2e3") == amount("2k") == 2000
    assert amount("a lot") is None


def test_kubectl_reads_writes_and_waits(api: KubeApi, tmp_path: Path) -> None:
    def run(*arguments: str, given: str = "") -> str:
        command = [str(kubectl()), "--kubeconfig", str(api.kubeconfig(tmp_path)), *arguments]
        ended = subprocess.run(command, input=given, capture_output=True, text=True, timeout=60, env={"HOME": str(tmp_path)})
        assert ended.returncode == 0, ended.stderr
        return ended.stdout

    assert "created" in run("create", "configmap", "words", "--from-literal=night=dream")
    assert "serverside-applied" in run("apply", "--server-side", "-f", "-", given=httpx.Response(200, json=deployment()).text)
    assert "successfully rolled out" in run("rollout", "status", "deploy/night", "--timeout=10s")
    assert "scaled" in run("scale", "deploy/night", "--replicas=3")
    assert run("get", "pods", "-l", "app=night", "-o", "name").count("pod/night-") == 3
    assert "circadian/cpu:1" in run("describe", "deploy", "night")
    assert "deleted" in run("delete", "deploy", "night", "--wait=true", "--timeout=10s")
    assert api.names("Pod") == []
