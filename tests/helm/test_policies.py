"""What must hold of the pods of every values file: security, resources, probes, disruption, storage."""

from __future__ import annotations

import re

from tests.helm.chart import (
    NIGHTS,
    PodTemplate,
    default_values,
    every_file,
    every_pod,
    objects,
    of_kind,
    one,
    pods,
    variables,
    worker_groups,
)

ALLOWED_VOLUMES = {"emptyDir", "persistentVolumeClaim", "secret", "projected", "configMap"}


@every_pod
def test_pods_are_restricted(name: str, pod: PodTemplate) -> None:
    security = pod.spec["securityContext"]
    assert security["runAsNonRoot"] is True
    assert security["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not {"hostNetwork", "hostPID", "hostIPC", "hostUsers"} & set(pod.spec)
    for volume in pod.spec.get("volumes", []):
        assert set(volume) - {"name"} <= ALLOWED_VOLUMES


@every_pod
def test_containers_are_restricted_and_cannot_write_their_root(name: str, pod: PodTemplate) -> None:
    for container in pod.containers:
        security = container["securityContext"]
        assert security["allowPrivilegeEscalation"] is False
        assert security["readOnlyRootFilesystem"] is True
        assert security["runAsNonRoot"] is True
        assert security["capabilities"] == {"drop": ["ALL"]}
        assert "privileged" not in security
        assert all("hostPort" not in port for port in container.get("ports", []))


@every_pod
def test_users_are_fixed_except_where_the_platform_gives_them(name: str, pod: PodTemplate) -> None:
    users = {pod.spec["securityContext"].get(field) for field in ("runAsUser", "runAsGroup", "fsGroup")}
    expected = {None} if name == "openshift" else {999} if pod.component == "postgres" else {1000}
    assert users == expected
    assert all("runAsUser" not in container["securityContext"] for container in pod.containers)


@every_pod
def test_no_pod_gets_a_token_for_kubernetes_but_a_head_that_scales(name: str, pod: PodTemplate) -> None:
    scales = pod.is_ray and pod.component == "ray-head" and pod.owner["spec"].get("enableInTreeAutoscaling", False)
    assert pod.spec["automountServiceAccountToken"] is scales
    rights = {object["kind"] for object in objects(name)} & {"Role", "ClusterRole", "RoleBinding", "ClusterRoleBinding"}
    assert rights == ({"Role", "RoleBinding"} if name == NIGHTS else set()), "who makes clusters for nights has an account"


@every_pod
def test_what_is_written_to_is_a_volume(name: str, pod: PodTemplate) -> None:
    there = {volume["name"] for volume in pod.spec.get("volumes", [])}
    there |= {claim["metadata"]["name"] for claim in pod.owner["spec"].get("volumeClaimTemplates", [])}
    for container in pod.containers:
        mounts = {mount["mountPath"]: mount["name"] for mount in container.get("volumeMounts", [])}
        assert set(mounts.values()) <= there
        assert mounts["/tmp"] == "tmp"
        home = variables(container).get("HOME", "/tmp")
        assert home in mounts


@every_pod
def test_engines_caches_are_each_pods_own(name: str, pod: PodTemplate) -> None:
    """vLLM, Triton and torch run what lies in their caches."""
    shared = {volume["name"] for volume in pod.spec.get("volumes", []) if "persistentVolumeClaim" in volume}
    for container in pod.containers:
        paths = [mount["mountPath"] for mount in container["volumeMounts"] if mount["name"] in shared]
        caches = {name: value for name, value in variables(container).items() if re.search(r"CACHE|HF_HOME", name)}
        caches.pop("HF_HUB_CACHE", None)  # of weights, which are verified before they are read
        assert not [cache for cache in caches.values() for path in paths if cache.startswith(path)]
        if pod.is_ray and container["name"] != "autoscaler":
            assert {"VLLM_CACHE_ROOT", "TRITON_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR", "XDG_CACHE_HOME", "HF_HOME"} <= set(caches)
            assert variables(container)["HF_HUB_OFFLINE"] == "1"
            [models] = [mount for mount in container["volumeMounts"] if mount["name"] == "models"]
            assert models["readOnly"] is True


@every_pod
def test_every_container_says_what_it_takes(name: str, pod: PodTemplate) -> None:
    for container in pod.containers:
        resources = container["resources"]
        assert {"cpu", "memory"} <= set(resources["requests"])
        assert resources["limits"]["memory"] == resources["requests"]["memory"]


@every_pod
def test_gpus_are_requested_as_they_are_limited_and_only_by_workers(name: str, pod: PodTemplate) -> None:
    for container in pod.containers:
        asked, limited = ({k: v for k, v in container["resources"][w].items() if "gpu" in k} for w in ("requests", "limits"))
        assert asked == limited
        if asked:
            assert pod.component not in ("controller", "ray-head", "migrate", "test", "postgres")
            assert [t for t in pod.spec["tolerations"] if t["key"] == "nvidia.com/gpu" and t["operator"] == "Exists"]


@every_file
def test_each_group_has_the_gpus_that_its_values_say(name: str) -> None:
    gpus = {"laptop-cpu": {"all": 0}, "one-gpu": {"gpu": 1}, "gpu-production": {"wake": 1, "rollout": 1, "learner": 8}}
    expected = gpus.get(name, {group: spec["gpus"] for group, spec in default_values()["ray"]["groups"].items()})
    limits = {g["groupName"]: g["template"]["spec"]["containers"][0]["resources"]["limits"] for g in worker_groups(name)}
    assert {group: limit.get("nvidia.com/gpu", 0) for group, limit in limits.items()} == expected
    assert {g["groupName"]: int(g["rayStartParams"]["num-gpus"]) for g in worker_groups(name)} == expected


@every_pod
def test_probes_ask_different_questions(name: str, pod: PodTemplate) -> None:
    """Those of Ray's head and workers are KubeRay's own: the chart gives none, and a version for which they are by HTTP."""
    if pod.is_ray:
        assert not [probe for container in pod.containers for probe in container if probe.endswith("Probe")]
        major, minor, _ = pod.owner["spec"]["rayVersion"].split(".")
        assert (int(major), int(minor)) >= (2, 60)
        return
    if pod.owner["kind"] in ("Job", "Pod"):
        assert "activeDeadlineSeconds" in pod.owner["spec"]
        return
    for container in pod.containers:
        assert "livenessProbe" in container
    if pod.component == "controller":
        [controller] = [c for c in pod.containers if c["name"] == "controller"]
        paths = [controller[f"{probe}Probe"]["httpGet"]["path"] for probe in ("startup", "liveness", "readiness")]
        assert paths == ["/startupz", "/livez", "/readyz"]
        [node] = [c for c in pod.containers if c["name"] == "ray-node"]
        assert "readinessProbe" not in node, "the API would be gone whenever Ray is"
        assert node["command"] == ["python", "-m", "services.ray_node", "8702", "ray", "start"], (
            "it would be, too, if Ray's end were its own"
        )
        keeper = {port["name"]: port["containerPort"] for port in node["ports"]}["keeper"]
        assert (node["livenessProbe"]["httpGet"]["port"], str(keeper)) == ("keeper", node["command"][3])


@every_file
def test_the_head_and_the_controllers_have_budgets(name: str) -> None:
    budgets = {
        b["spec"]["selector"]["matchLabels"]["app.kubernetes.io/component"]: b["spec"] for b in of_kind(name, "PodDisruptionBudget")
    }
    assert budgets["ray-head"]["minAvailable"] == 1
    if name not in ("laptop-cpu", "one-gpu"):
        assert budgets["controller"]["maxUnavailable"] == 1
    selected = {pod.component for pod in pods(name)}
    assert set(budgets) <= selected


@every_pod
def test_no_node_is_emptied_under_a_night(name: str, pod: PodTemplate) -> None:
    if not pod.is_ray:
        return
    parameters = [g["rayStartParams"].get("resources", "") for g in worker_groups(name) if pod.component == f"ray-{g['groupName']}"]
    if pod.component == "ray-head" or re.search("learner|rollout", "".join(parameters)):
        assert pod.metadata["annotations"]["cluster-autoscaler.kubernetes.io/safe-to-evict"] == "false"
        assert pod.metadata["annotations"]["karpenter.sh/do-not-disrupt"] == "true"
    assert pod.spec["terminationGracePeriodSeconds"] > 30, "Ray drains for 30 s"


def test_a_night_has_another_priority_than_what_serves() -> None:
    classes = {pod.component: pod.spec.get("priorityClassName") for pod in pods("gpu-production")}
    assert classes["ray-wake"] == classes["controller"] == "serving"
    assert classes["ray-learner"] == classes["ray-rollout"] == "sleeping"


@every_file
def test_volumes_outlive_the_release_and_are_shared_where_there_are_nodes(name: str) -> None:
    claims = of_kind(name, "PersistentVolumeClaim")
    assert len(claims) == (0 if name == "openshift" else 2)
    for claim in claims:
        assert claim["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
        modes = ["ReadWriteOnce"] if name in ("laptop-cpu", "one-gpu") else ["ReadWriteMany"]
        assert claim["spec"]["accessModes"] == modes


def test_controllers_scale_without_a_fixed_number() -> None:
    [hpa] = of_kind("gpu-production", "HorizontalPodAutoscaler")
    deployment = one("gpu-production", "Deployment")
    assert "replicas" not in deployment["spec"]
    assert hpa["spec"]["scaleTargetRef"]["name"] == deployment["metadata"]["name"]
    assert hpa["spec"]["minReplicas"] >= 2
    assert one("minimal", "Deployment")["spec"]["replicas"] == 2
