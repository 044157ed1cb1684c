"""What KubeRay's operator (v1.7) refuses though the API server took it: a RayCluster whose pods it would never make.

As in ValidateRayClusterMetadata and ValidateRayClusterSpec of ray-operator/controllers/ray/utils/validation.go, without what needs a
feature gate."""

from __future__ import annotations

from collections.abc import Iterator

from tests.helm.kube_kinds import Object
from tests.helm.kube_rules import LABEL_1035

LONGEST_NAME = 53
"""Of a RayCluster, so that its services have names of 63 characters at most."""
OLDEST_RAY = (2, 52)
"""That has tokens."""
STARTED_WITH = ("num-cpus", "num-gpus", "memory", "resources")
AUTOSCALER = "RAY_enable_autoscaler_v2"
REDIS = ("REDIS_PASSWORD", "RAY_REDIS_ADDRESS")


def refusals(value: Object) -> Iterator[str]:
    spec, name = value["spec"], value["metadata"]["name"]
    head, workers = spec["headGroupSpec"], spec.get("workerGroupSpecs") or []
    if len(name) > LONGEST_NAME or not LABEL_1035.fullmatch(name):
        yield f"the name {name} is no DNS label of {LONGEST_NAME} characters at most that begins with a letter"
    for group in [head, *workers]:
        yield from _group(group)
    variables = {each["name"]: each.get("value") for each in head["template"]["spec"]["containers"][0].get("env") or []}
    if spec.get("gcsFaultToleranceOptions"):
        yield from (f"{each} is set beside gcsFaultToleranceOptions" for each in REDIS if each in variables)
    elif "RAY_REDIS_ADDRESS" in variables:
        yield "RAY_REDIS_ADDRESS is set without gcsFaultToleranceOptions"
    if spec.get("enableInTreeAutoscaling"):
        yield from _autoscaled(spec, variables)
    elif variables.get(AUTOSCALER) in ("1", "true"):
        yield f"{AUTOSCALER} is set without enableInTreeAutoscaling"
    if spec.get("authOptions", {}).get("mode") == "token" and tuple(map(int, spec["rayVersion"].split(".")[:2])) < OLDEST_RAY:
        yield f"Ray {spec['rayVersion']} knows no tokens"


def _group(group: Object) -> Iterator[str]:
    name, started = group.get("groupName", "head"), group.get("rayStartParams") or {}
    if group.get("resources") and any(each in started for each in STARTED_WITH):
        yield f"resources of {name} are given twice, in rayStartParams and in resources"
    if "labels" in started:
        yield f"labels of {name} belong into its field `labels`, not into rayStartParams"


def _autoscaled(spec: Object, variables: dict[str, str | None]) -> Iterator[str]:
    workers = spec.get("workerGroupSpecs") or []
    version = spec.get("autoscalerOptions", {}).get("version")
    if version and AUTOSCALER in variables:
        yield f"{AUTOSCALER} is set beside autoscalerOptions.version"
    yield from (f"{group['groupName']} is suspended in a cluster that scales" for group in workers if group.get("suspend"))
    if version == "v2":
        for group in [spec["headGroupSpec"], *workers]:
            if group["template"]["spec"].get("restartPolicy", "Never") != "Never":
                yield f"pods of {group.get('groupName', 'the head')} restart, which autoscaler v2 does not allow"
