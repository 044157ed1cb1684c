"""What KubeRay v1.7.0 makes of a RayCluster: pods and the head's service, as far as a cluster of this chart needs it.

Each addition names where it was read: files below ray-operator/controllers/ray, tag v1.7.0 of ray-project/kuberay. Where KubeRay would do
something that is not written here, NotInManifest is raised. Replicas beyond the first of each group, and what it does to pods later, are
left out.
"""

from __future__ import annotations

import base64
import copy
from collections.abc import Mapping

from pod_manifest import NotInManifest, Object, quantity

HEAD, WORKER = "head", "worker"
DOMAIN = "cluster.local"
GCS, DASHBOARD, CLIENT, METRICS, AGENT, SERVE = 6379, 8265, 10001, 8080, 52365, 8000
"""utils/constant.go: DefaultGcsServerPort, DefaultDashboardPort, DefaultClientPort, DefaultMetricsPort, DefaultDashboardAgentListenPort."""
EXPLICIT_BOOLEANS = ("log-color", "include-dashboard", "include-log-monitor")
"""common/pod.go, convertParamMap: the only parameters whose `false` is passed on."""
SHELL = ["/bin/bash", "-c", "--"]
"""utils/util.go, GetContainerCommand."""
TOKEN_KEY = "auth_token"
"""utils/constant.go, RAY_AUTH_TOKEN_SECRET_KEY."""
UNIFIED_HEALTH = (2, 53, 0)
"""common/pod.go, supportsUnifiedHealthCheck: from this Ray on both probes ask one HTTP address, before that wget in a shell."""
NAMED = ("app.kubernetes.io/name", "app.kubernetes.io/created-by")
UNKNOWN = ("gcsFaultToleranceOptions", "tlsOptions", "historyServerOptions", "networkPolicy")


def token_secret(cluster: Object, token: str) -> Object | None:
    """raycluster_controller.go, reconcileAuthSecret: made where none is named, and named like the cluster."""
    if cluster["spec"]["authOptions"].get("secretName"):
        return None
    metadata = {"name": cluster["metadata"]["name"], "namespace": cluster["metadata"]["namespace"]}
    return {"kind": "Secret", "metadata": metadata, "data": {TOKEN_KEY: base64.b64encode(token.encode()).decode()}}


def head_service(cluster: Object) -> Object:
    """common/service.go, BuildServiceForHeadPod: without an address of its own, so each port is the pod's. The selector has what the pod's
    label app.kubernetes.io/name is (raycluster_controller.go, reconcileHeadService)."""
    head = cluster["spec"]["headGroupSpec"]
    labels = _labels(cluster, HEAD, "headgroup", head["template"])
    selector = {key: labels[key] for key in ("ray.io/cluster", "ray.io/node-type", "ray.io/identifier", *NAMED)}
    given = {port["name"]: port["containerPort"] for port in head["template"]["spec"]["containers"][0].get("ports", [])}
    # common/service.go, getServicePorts: the container's ports where it names any, and metrics always
    ports = {"metrics": METRICS, **(given or {"gcs-server": GCS, "dashboard": DASHBOARD, "client": CLIENT, "serve": SERVE})}
    metadata = {
        "name": f"{cluster['metadata']['name']}-head-svc",
        "namespace": cluster["metadata"]["namespace"],
        "labels": selector,
    }
    spec = {"selector": selector, "clusterIP": "None", "ports": [{"name": name, "port": port} for name, port in ports.items()]}
    return {"kind": "Service", "metadata": metadata, "spec": spec}


def pods(cluster: Object) -> dict[str, Object]:
    """The head's template and one worker's of each group, by the pods' names. Raises NotInManifest."""
    spec = cluster["spec"]
    for field in UNKNOWN:
        if spec.get(field):
            raise NotInManifest(f"what KubeRay makes of {field}")
    if spec.get("enableInTreeAutoscaling"):
        raise NotInManifest("an API server for the autoscaler")
    name = cluster["metadata"]["name"]
    made = {f"{name}-head-x0001": _pod(cluster, HEAD, "headgroup", spec["headGroupSpec"])}
    for group in spec["workerGroupSpecs"]:
        made[f"{name}-{group['groupName']}-worker-x0001"] = _pod(cluster, WORKER, group["groupName"], group)
    return made


def _pod(cluster: Object, kind: str, group: str, spec: Object) -> Object:
    """common/pod.go, DefaultHeadPodTemplate or DefaultWorkerPodTemplate, then BuildPod."""
    pod = copy.deepcopy(spec["template"])
    pod["metadata"] = {**(pod.get("metadata") or {}), "labels": _labels(cluster, kind, group, pod)}
    container = pod["spec"]["containers"][0]
    head = f"{cluster['metadata']['name']}-head-svc.{cluster['metadata']['namespace']}.svc.{DOMAIN}"
    if kind == WORKER:
        pod["spec"].setdefault("initContainers", []).append(_wait_for_gcs(container, head))
        _add(pod["spec"]["initContainers"][-1], _token(cluster))
    if not any(port["name"] == "metrics" for port in container.get("ports", [])):
        container.setdefault("ports", []).append({"name": "metrics", "containerPort": METRICS})
    _add(container, _token(cluster))
    parameters = _parameters(kind, dict(spec.get("rayStartParams") or {}), head)
    _shared_memory(pod, container, parameters)
    start = _start(kind, parameters, container.get("resources") or {})
    if container.get("command") or container.get("args"):
        raise NotInManifest("a Ray container with a command of its own")
    container["command"] = SHELL
    container["args"] = [f"ulimit -n ${{RAY_START_ULIMIT_OPEN_FILES:-65536}}; {start}"]
    for init in pod["spec"].get("initContainers", []):
        # common/pod.go, setInitContainerEnvVars
        init.setdefault("env", []).extend(
            [{"name": "FQ_RAY_IP", "value": head}, {"name": "RAY_IP", "value": head.partition(".")[0]}]
        )
    _environment(kind, container, head, start)
    _probes(kind, container, parameters, cluster["spec"]["rayVersion"])
    return pod


def _labels(cluster: Object, kind: str, group: str, template: Object) -> dict[str, str]:
    """common/pod.go, labelPod: three of them are not the user's to change."""
    name = cluster["metadata"]["name"]
    fixed = {"ray.io/cluster": name, "ray.io/node-type": kind, "ray.io/group": group}
    made = {"ray.io/is-ray-node": "yes", "ray.io/identifier": f"{name}-{kind}", NAMED[0]: "kuberay", NAMED[1]: "kuberay-operator"}
    return {**made, **((template.get("metadata") or {}).get("labels") or {}), **fixed}


def _token(cluster: Object) -> list[Object]:
    """common/pod.go, SetContainerTokenAuthEnvVars."""
    options = cluster["spec"].get("authOptions") or {}
    if options.get("mode") != "token":
        return []
    secret = {"name": options.get("secretName") or cluster["metadata"]["name"], "key": TOKEN_KEY}
    return [{"name": "RAY_AUTH_MODE", "value": "token"}, {"name": "RAY_AUTH_TOKEN", "valueFrom": {"secretKeyRef": secret}}]


def _wait_for_gcs(container: Object, head: str) -> Object:
    """common/pod.go, DefaultWorkerPodTemplate: with the Ray container's image, environment, mounts and rights."""
    like = {key: copy.deepcopy(container[key]) for key in ("image", "env", "volumeMounts", "securityContext") if key in container}
    script = f"until ray health-check --address {head}:{GCS}; do echo waiting for GCS; sleep 5; done"
    return {"name": "wait-gcs-ready", **like, "command": SHELL, "args": [script]}


def _parameters(kind: str, given: dict[str, str], head: str) -> dict[str, str]:
    """common/pod.go, setMissingRayStartParams."""
    missing = {"address": f"{head}:{GCS}"} if kind == WORKER else {"dashboard-host": "0.0.0.0"}
    return {**missing, "metrics-export-port": str(METRICS), "dashboard-agent-listen-port": str(AGENT), **given, "block": "true"}


def _start(kind: str, parameters: dict[str, str], resources: Object) -> str:
    """common/pod.go, generateRayStartCommand: CPUs and memory from the container's limits where they are not given."""
    limits, requests = resources.get("limits") or {}, resources.get("requests") or {}
    if cpus := limits.get("cpu") or requests.get("cpu"):
        parameters.setdefault("num-cpus", str(quantity(cpus)))
    if "memory" in limits:
        parameters.setdefault("memory", str(quantity(limits["memory"])))
    if any(name.endswith("gpu") for name in limits):
        raise NotInManifest("GPUs")
    return f"ray start {'--head ' if kind == HEAD else ''}{_flags(parameters)}"


def _flags(parameters: Mapping[str, str]) -> str:
    """common/pod.go, convertParamMap: sorted, handed to a shell as they are written."""
    flags = []
    for name, value in sorted(parameters.items()):
        if value.lower() not in ("true", "false") or name in EXPLICIT_BOOLEANS:
            flags.append(f"--{name}={value}")
        elif value.lower() == "true":
            flags.append(f"--{name}")
    return " ".join(flags)


def _shared_memory(pod: Object, container: Object, parameters: Mapping[str, str]) -> None:
    """common/pod.go, BuildPod and addEmptyDir: /dev/shm unless something is mounted there, as large as the container's memory."""
    if "plasma-directory" in parameters or any(mount["mountPath"] == "/dev/shm" for mount in container.get("volumeMounts", [])):
        return
    resources = container.get("resources") or {}
    memory = (resources.get("limits") or {}).get("memory") or (resources.get("requests") or {}).get("memory")
    volume = {"medium": "Memory", **({"sizeLimit": memory} if memory else {})}
    pod["spec"].setdefault("volumes", []).append({"name": "shared-mem", "emptyDir": volume})
    container.setdefault("volumeMounts", []).append({"name": "shared-mem", "mountPath": "/dev/shm"})


def _environment(kind: str, container: Object, head: str, start: str) -> None:
    """common/pod.go, setContainerEnvVars. The first five are appended, whatever the user gives."""
    ip = head if kind == WORKER else "127.0.0.1"
    fields = {
        "RAY_CLUSTER_NAME": "metadata.labels['ray.io/cluster']",
        "RAY_CLUSTER_NAMESPACE": "metadata.namespace",
        "RAY_CLOUD_INSTANCE_ID": "metadata.name",
        "RAY_NODE_TYPE_NAME": "metadata.labels['ray.io/group']",
    }
    env = container.setdefault("env", [])
    if kind == WORKER:
        env += [{"name": "FQ_RAY_IP", "value": head}, {"name": "RAY_IP", "value": head.partition(".")[0]}]
    env += [{"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}} for name, path in fields.items()]
    env += [{"name": "KUBERAY_GEN_RAY_START_CMD", "value": start}]
    if kind == HEAD:
        env += [{"name": "RAY_USAGE_STATS_EXTRA_TAGS", "value": "kuberay_version=v1.7.0;kuberay_crd=RayCluster"}]
    more = {
        "RAY_PORT": str(GCS),
        "RAY_ADDRESS": f"{ip}:{GCS}",
        "RAY_USAGE_STATS_KUBERAY_IN_USE": "1",
        "RAY_DASHBOARD_ENABLE_K8S_DISK_USAGE": "1",
    }
    _add(container, [{"name": name, "value": value} for name, value in more.items()])


def _add(container: Object, variables: list[Object]) -> None:
    """Those that the user has not given."""
    env = container.setdefault("env", [])
    there = {variable["name"] for variable in env}
    env += [variable for variable in variables if variable["name"] not in there]


def _probes(kind: str, container: Object, parameters: Mapping[str, str], version: str) -> None:
    """common/pod.go, initLivenessAndReadinessProbe, with the numbers of utils/constant.go."""
    if tuple(int(part) for part in version.split(".")[:3]) < UNIFIED_HEALTH:
        raise NotInManifest(f"the probes of Ray {version}")
    get = {"httpGet": {"path": "/api/healthz", "port": int(parameters["dashboard-agent-listen-port"])}}
    often = {"timeoutSeconds": 5 if kind == HEAD else 2, "periodSeconds": 5, "successThreshold": 1}
    container.setdefault("livenessProbe", {**get, **often, "initialDelaySeconds": 30, "failureThreshold": 120})
    container.setdefault("readinessProbe", {**get, **often, "initialDelaySeconds": 10, "failureThreshold": 10})
