"""What a cluster does with objects, at once and without containers: workloads get pods, pods run or wait for what they refer to, jobs end.

`settle` looks at everything and changes it until nothing changes. A pod waits for each Secret, ConfigMap (and their keys), claim, account
and priority class that it names; one that does not restart ends, the others are ready, except where `fails` says otherwise."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from typing import NamedTuple

from tests.helm import kube_ray
from tests.helm.kube_kinds import Kind, Object, named
from tests.helm.kube_store import CLUSTER, Key, Refused, Store

ROUNDS = 50
"""More than it ever takes: a settling that goes on is a fault here."""
MANAGER = "kube-controller-manager"
POD, CLAIM, REPLICA_SET = named("Pod"), named("PersistentVolumeClaim"), named("ReplicaSet")
MADE_TOKEN = "made-by-the-operator"
HEAD_PORTS = [
    {"name": name, "port": port} for name, port in (("gcs", 6379), ("dashboard", 8265), ("client", 10001), ("metrics", 8080))
]
"""Of the service that KubeRay makes for a head."""
Fails = Callable[[Object], bool]
"""Of a pod: whether its container fails, or never gets ready."""


class Reference(NamedTuple):
    kind: str
    name: str
    key: str | None
    """Of its data."""


def settle(store: Store, fails: Fails) -> None:
    for _ in range(ROUNDS):
        before = store.version
        for namespace in store.all(named("Namespace")):
            _account(store, namespace)
        for kind, step in STEPS.items():
            for value in store.all(named(kind)):
                step(store, key_of(value), value)
        for pod in store.all(POD):
            _pod(store, key_of(pod), pod, fails)
        if store.version == before:
            return
    raise AssertionError("the controllers do not come to rest")


def key_of(value: Object) -> Key:
    return Key(named(value["kind"]), value["metadata"].get("namespace", CLUSTER), value["metadata"]["name"])


# Pods


def references(spec: Object) -> Iterator[Reference]:
    """What a pod cannot start without."""
    yield Reference("ServiceAccount", spec.get("serviceAccountName") or "default", None)
    if spec.get("priorityClassName") and not spec["priorityClassName"].startswith("system-"):
        yield Reference("PriorityClass", spec["priorityClassName"], None)
    for volume in spec.get("volumes") or []:
        for source in [volume, *(volume.get("projected", {}).get("sources") or [])]:
            yield from _of_source(source)
    for container in [*(spec.get("initContainers") or []), *spec["containers"]]:
        for variable in container.get("env") or []:
            source = variable.get("valueFrom") or {}
            for field, kind in (("secretKeyRef", "Secret"), ("configMapKeyRef", "ConfigMap")):
                if field in source and not source[field].get("optional"):
                    yield Reference(kind, source[field]["name"], source[field]["key"])
        for source in container.get("envFrom") or []:
            for field, kind in (("secretRef", "Secret"), ("configMapRef", "ConfigMap")):
                if field in source and not source[field].get("optional"):
                    yield Reference(kind, source[field]["name"], None)


def _of_source(source: Object) -> Iterator[Reference]:
    """A volume, or a part of a projected one."""
    for field, kind in (("secret", "Secret"), ("configMap", "ConfigMap")):
        if field in source and not source[field].get("optional"):
            name = source[field].get("secretName") or source[field]["name"]
            yield Reference(kind, name, None)
            yield from (Reference(kind, name, item["key"]) for item in source[field].get("items") or [])
    if "persistentVolumeClaim" in source:
        yield Reference("PersistentVolumeClaim", source["persistentVolumeClaim"]["claimName"], None)


def missing(store: Store, namespace: str, spec: Object) -> list[str]:
    """What a pod waits for, in words."""
    said = []
    for kind, name, entry in references(spec):
        found = store.find(Key(named(kind), namespace if named(kind).namespaced else CLUSTER, name))
        if found is None:
            said.append(f"{kind.lower()} {name!r} not found")
        elif entry is not None and entry not in (found.get("data") or {}):
            said.append(f"couldn't find key {entry} in {kind} {namespace}/{name}")
    return said


def _pod(store: Store, key: Key, pod: Object, fails: Fails) -> None:
    spec, phase = pod["spec"], pod.get("status", {}).get("phase")
    if phase in ("Succeeded", "Failed"):
        return
    waits = missing(store, key.namespace, spec)
    if waits and phase != "Running":
        state: Object = {"waiting": {"reason": "CreateContainerConfigError", "message": "; ".join(waits)}}
        store.set_status(key, _pod_status(pod, "Pending", False, state))
    elif spec.get("restartPolicy", "Always") == "Always" or "ray.io/cluster" in pod["metadata"].get("labels", {}):
        store.set_status(
            key, _pod_status(pod, "Running", not fails(pod), {"running": {"startedAt": pod["metadata"]["creationTimestamp"]}})
        )
    else:
        failed = fails(pod)
        state = {"terminated": {"exitCode": int(failed), "reason": "Error" if failed else "Completed"}}
        store.set_status(key, _pod_status(pod, "Failed" if failed else "Succeeded", False, state))


def _pod_status(pod: Object, phase: str, ready: bool, state: Object) -> Object:
    containers = [
        {"name": each["name"], "image": each["image"], "imageID": "", "ready": ready, "restartCount": 0, "state": state}
        for each in pod["spec"]["containers"]
    ]
    says = {"Ready": ready, "ContainersReady": ready, "PodScheduled": True, "Initialized": True}
    return {"phase": phase, "conditions": conditions(says), "containerStatuses": containers}


def conditions(says: dict[str, bool], reason: str = "Settled") -> list[Object]:
    return [{"type": type, "status": str(holds), "reason": reason, "message": ""} for type, holds in says.items()]


def waiting(store: Store) -> list[str]:
    """What has not begun, and why."""
    said = []
    for cluster in store.all(named("RayCluster")):
        if "reason" in cluster.get("status", {}):
            said.append(f"KubeRay refuses {cluster['metadata']['name']}: {cluster['status']['reason']}")
    for pod in store.all(POD):
        for container in pod.get("status", {}).get("containerStatuses", []):
            if "waiting" in container["state"]:
                said.append(f"{pod['metadata']['name']} waits: {container['state']['waiting']['message']}")
    return sorted(set(said))


def _ready(pod: Object) -> bool:
    return any(each["type"] == "Ready" and each["status"] == "True" for each in pod.get("status", {}).get("conditions", []))


def _start(store: Store, owner: Key, value: Object, name: str, template: Object, labels: dict[str, str]) -> str | None:
    """A pod of a template; why it may not be, where it is refused."""
    try:
        _create(store, owner, value, POD, name, {"spec": template["spec"]}, {**_labels(template), **labels}, template)
    except Refused as refused:
        return refused.message
    return None


def _create(
    store: Store,
    owner: Key,
    value: Object,
    kind: Kind,
    name: str,
    body: Object,
    labels: dict[str, str],
    template: Object | None = None,
) -> None:
    annotations = ((template or {}).get("metadata") or {}).get("annotations") or {}
    reference = {
        "apiVersion": owner.kind.api_version,
        "kind": owner.kind.kind,
        "name": owner.name,
        "uid": value["metadata"]["uid"],
        "controller": True,
    }
    metadata = {"name": name, "labels": labels, "annotations": annotations, "ownerReferences": [reference]}
    store.create(Key(kind, owner.namespace, name), {**body, "metadata": metadata}, MANAGER)


def _labels(template: Object) -> dict[str, str]:
    return (template.get("metadata") or {}).get("labels") or {}


def _owned(store: Store, kind: Kind, value: Object) -> list[Object]:
    uid = value["metadata"]["uid"]
    namespace = value["metadata"]["namespace"]
    return [
        each
        for each in store.all(kind, namespace)
        if uid in [owner["uid"] for owner in each["metadata"].get("ownerReferences") or []]
    ]


def digest(template: Object) -> str:
    return hashlib.sha256(json.dumps(template, sort_keys=True).encode()).hexdigest()[:10]


# Workloads


def _deployment(store: Store, key: Key, value: Object) -> None:
    """The new set gets its pods first; the old ones go when all of them are ready."""
    spec, wanted = value["spec"], value["spec"]["replicas"]
    current = digest(spec["template"])
    sets = _owned(store, REPLICA_SET, value)
    newest = next((each for each in sets if each["metadata"]["labels"].get("pod-template-hash") == current), None)
    if newest is None:
        _new_set(store, key, value, current)
        return
    ready = newest.get("status", {}).get("readyReplicas", 0)
    _scale(store, newest, wanted)
    if ready >= wanted:
        for old in sets:
            if old is not newest:
                _scale(store, old, 0)
    total = sum(each.get("status", {}).get("replicas", 0) for each in sets)
    done = ready >= wanted
    said = conditions({"Available": done, "Progressing": True}, "NewReplicaSetAvailable" if done else "ReplicaSetUpdated")
    refusal = next((each for each in newest.get("status", {}).get("conditions", []) if each["type"] == "ReplicaFailure"), None)
    counts = {"replicas": total, "updatedReplicas": newest.get("status", {}).get("replicas", 0)}
    counts |= {"readyReplicas": ready, "availableReplicas": ready, "unavailableReplicas": max(0, wanted - ready)}
    counts = {name: count for name, count in counts.items() if count}
    status = {
        "observedGeneration": value["metadata"]["generation"],
        "conditions": [*said, *([refusal] if refusal else [])],
        **counts,
    }
    store.set_status(key, status)


def _new_set(store: Store, key: Key, value: Object, current: str) -> None:
    spec = value["spec"]
    labels = {**_labels(spec["template"]), "pod-template-hash": current}
    template = {**spec["template"], "metadata": {**spec["template"].get("metadata", {}), "labels": labels}}
    selector = {**spec["selector"], "matchLabels": {**(spec["selector"].get("matchLabels") or {}), "pod-template-hash": current}}
    body = {"spec": {"replicas": spec["replicas"], "selector": selector, "template": template}}
    _create(store, key, value, REPLICA_SET, f"{key.name}-{current}", body, labels)


def _scale(store: Store, value: Object, replicas: int) -> None:
    if value["spec"]["replicas"] != replicas:
        store.update(key_of(value), {**value, "spec": {**value["spec"], "replicas": replicas}}, MANAGER)


def _replica_set(store: Store, key: Key, value: Object) -> None:
    pods, wanted = _owned(store, POD, value), value["spec"]["replicas"]
    refused = None
    for pod in pods[wanted:]:
        store.delete(key_of(pod), MANAGER)
    names = {pod["metadata"]["name"] for pod in pods}
    free = (f"{key.name}-{index}" for index in range(wanted + len(pods)) if f"{key.name}-{index}" not in names)
    for _ in range(wanted - len(pods)):
        refused = refused or _start(store, key, value, next(free), value["spec"]["template"], {})
    pods = _owned(store, POD, value)
    ready = sum(map(_ready, pods))
    counts = {"replicas": len(pods), "readyReplicas": ready, "availableReplicas": ready}
    status = {"observedGeneration": value["metadata"]["generation"], **counts}
    if refused:
        status["conditions"] = [{"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": refused}]
    store.set_status(key, status)


def _stateful_set(store: Store, key: Key, value: Object) -> None:
    spec, generation = value["spec"], value["metadata"]["generation"]
    revision = digest(spec["template"])
    for index in range(spec["replicas"]):
        name = f"{key.name}-{index}"
        claims = {each["metadata"]["name"]: f"{each['metadata']['name']}-{name}" for each in spec.get("volumeClaimTemplates") or []}
        for each in spec.get("volumeClaimTemplates") or []:
            claim = Key(CLAIM, key.namespace, claims[each["metadata"]["name"]])
            if store.find(claim) is None:
                store.create(claim, {"spec": each["spec"], "metadata": {"name": claim.name}}, MANAGER)
        pod = store.find(Key(POD, key.namespace, name))
        if pod is not None and pod["metadata"]["labels"].get("controller-revision-hash") != revision:
            store.delete(key_of(pod), MANAGER)
            pod = None
        if pod is None:
            volumes = [{"name": each, "persistentVolumeClaim": {"claimName": claim}} for each, claim in claims.items()]
            pod_spec = {**spec["template"]["spec"], "volumes": [*(spec["template"]["spec"].get("volumes") or []), *volumes]}
            _start(store, key, value, name, {**spec["template"], "spec": pod_spec}, {"controller-revision-hash": revision})
    pods = _owned(store, POD, value)
    for pod in pods:
        if int(pod["metadata"]["name"].rpartition("-")[2]) >= spec["replicas"]:
            store.delete(key_of(pod), MANAGER)
    ready = sum(map(_ready, pods))
    counts = {"replicas": len(pods), "readyReplicas": ready, "availableReplicas": ready, "updatedReplicas": len(pods)}
    revisions = {"currentRevision": revision, "updateRevision": revision, "currentReplicas": len(pods)}
    store.set_status(key, {"observedGeneration": generation, **counts, **revisions})


def _job(store: Store, key: Key, value: Object) -> None:
    pods = _owned(store, POD, value)
    if not pods:
        _start(
            store,
            key,
            value,
            f"{key.name}-0",
            value["spec"]["template"],
            {"job-name": key.name, "batch.kubernetes.io/job-name": key.name},
        )
        return
    phase = pods[0].get("status", {}).get("phase")
    started = {"startTime": pods[0]["metadata"]["creationTimestamp"]}
    if phase == "Succeeded":
        said = conditions({"SuccessCriteriaMet": True, "Complete": True}, "CompletionsReached")
        store.set_status(key, {"succeeded": 1, "conditions": said, "completionTime": started["startTime"], **started})
    elif phase == "Failed":
        tries = value["spec"].get("backoffLimit", 6) + 1
        said = conditions({"FailureTarget": True, "Failed": True}, "BackoffLimitExceeded")
        store.set_status(key, {"failed": tries, "conditions": said, **started})
    else:
        store.set_status(key, {"active": 1, **started})


def _autoscaler(store: Store, key: Key, value: Object) -> None:
    """Keeps the replicas within its bounds, except where somebody has scaled to none; there is no load."""
    target = value["spec"]["scaleTargetRef"]
    scaled = store.find(Key(named(target["kind"]), key.namespace, target["name"]))
    if scaled is not None and scaled["spec"]["replicas"]:
        most, least = value["spec"]["maxReplicas"], value["spec"].get("minReplicas", 1)
        _scale(store, scaled, min(most, max(least, scaled["spec"]["replicas"])))
        store.set_status(key, {"currentReplicas": scaled["spec"]["replicas"], "desiredReplicas": scaled["spec"]["replicas"]})


def _claim(store: Store, key: Key, value: Object) -> None:
    capacity = {"storage": value["spec"]["resources"]["requests"]["storage"]}
    store.set_status(key, {"phase": "Bound", "accessModes": value["spec"]["accessModes"], "capacity": capacity})


def _ray_cluster(store: Store, key: Key, value: Object) -> None:
    """As much of KubeRay as makes its pods and its token; it adds containers and variables of its own, which are not here."""
    spec = value["spec"]
    if refused := list(kube_ray.refusals(value)):
        store.set_status(key, {"observedGeneration": value["metadata"]["generation"], "reason": "; ".join(refused)})
        return
    if spec.get("suspend"):
        for pod in _owned(store, POD, value):
            store.delete(key_of(pod), MANAGER)
        store.set_status(key, {"observedGeneration": value["metadata"]["generation"], "state": "suspended"})
        return
    auth = spec.get("authOptions", {})
    token = Key(named("Secret"), key.namespace, key.name)
    if auth.get("mode") == "token" and not auth.get("secretName") and store.find(token) is None:
        _create(store, key, value, token.kind, token.name, {"stringData": {"auth_token": MADE_TOKEN}}, {})
    service = Key(named("Service"), key.namespace, f"{key.name}-head-svc")
    if store.find(service) is None:
        head = {"ray.io/cluster": key.name, "ray.io/node-type": "head"}
        _create(
            store,
            key,
            value,
            service.kind,
            service.name,
            {"spec": {"clusterIP": "None", "selector": head, "ports": HEAD_PORTS}},
            head,
        )
    _ray_pod(store, key, value, f"{key.name}-head", spec["headGroupSpec"]["template"], "head", "headgroup")
    for group in spec.get("workerGroupSpecs") or []:
        for index in range(group.get("replicas", 0)):
            name = f"{key.name}-{group['groupName']}-worker-{index}"
            _ray_pod(store, key, value, name, group["template"], "worker", group["groupName"])
    pods = _owned(store, POD, value)
    wanted = {group["groupName"]: group.get("replicas", 0) for group in spec.get("workerGroupSpecs") or []}
    for pod in pods:
        group, _, index = pod["metadata"]["name"].removeprefix(f"{key.name}-").rpartition("-worker-")
        if group and int(index) >= wanted.get(group, 0):
            store.delete(key_of(pod), MANAGER)
    ready = all(map(_ready, pods))
    store.set_status(key, {"observedGeneration": value["metadata"]["generation"], **({"state": "ready"} if ready else {})})


def _ray_pod(store: Store, key: Key, value: Object, name: str, template: Object, type: str, group: str) -> None:
    pod = Key(POD, key.namespace, name)
    current = digest(template)
    found = store.find(pod)
    if found is not None and found["metadata"]["labels"]["tests/template"] != current:
        store.delete(pod, MANAGER)
        found = None
    if found is None:
        labels = {"ray.io/cluster": key.name, "ray.io/node-type": type, "ray.io/group": group, "ray.io/is-ray-node": "yes"}
        _start(store, key, value, name, template, {**labels, "tests/template": current})


def _account(store: Store, namespace: Object) -> None:
    key = Key(named("ServiceAccount"), namespace["metadata"]["name"], "default")
    if store.find(key) is None:
        store.create(key, {"metadata": {"name": "default"}}, MANAGER)
    authority = Key(named("ConfigMap"), key.namespace, "kube-root-ca.crt")
    if store.find(authority) is None:
        store.create(authority, {"data": {"ca.crt": ""}}, MANAGER)
    store.set_status(key_of(namespace), {"phase": "Active"})


STEPS = {
    "PersistentVolumeClaim": _claim,
    "HorizontalPodAutoscaler": _autoscaler,
    "Deployment": _deployment,
    "ReplicaSet": _replica_set,
    "StatefulSet": _stateful_set,
    "Job": _job,
    "RayCluster": _ray_cluster,
}
