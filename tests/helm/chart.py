"""The chart rendered by real helm, once for each values file, and its objects as Python has them."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import pytest
import yaml

from tests.helm.tools import helm

ROOT = Path(__file__).parents[2]
CHART = ROOT / "helm" / "circadian"
NAMES = sorted(path.name.removesuffix("-values.yaml") for path in (CHART / "ci").glob("*-values.yaml"))
"""Of the values files."""
RELEASE, NAMESPACE = "day", "dreams"
KUBERAY = "ray.io/v1"
NIGHTS = "night-clusters"
"""The values file in which nights have clusters of their own."""
KINDS_OF_PODS = ("Deployment", "StatefulSet", "Job", "Pod", "RayCluster")

Object = dict[str, Any]
Version = Literal[3, 4]


@dataclass(frozen=True)
class PodTemplate:
    """A pod that an object makes: its own name for it, its metadata and its spec."""

    name: str
    owner: Object
    metadata: Object
    spec: Object

    @property
    def component(self) -> str:
        return self.metadata["labels"]["app.kubernetes.io/component"]

    @property
    def is_ray(self) -> bool:
        return self.owner["kind"] == "RayCluster"

    @property
    def containers(self) -> list[Object]:
        """All that the pod runs; of a Ray head also what KubeRay puts beside it on our word."""
        options = self.owner["spec"].get("autoscalerOptions") if self.component == "ray-head" else None
        return (
            self.spec["containers"] + self.spec.get("initContainers", []) + ([{"name": "autoscaler", **options}] if options else [])
        )


def values_file(name: str) -> Path:
    return CHART / "ci" / f"{name}-values.yaml"


def template(
    *arguments: str | Path, version: Version = 4, kuberay: bool = True, chart: Path = CHART
) -> subprocess.CompletedProcess[str]:
    """`helm template` with these arguments, whatever becomes of it."""
    known = ["--api-versions", KUBERAY] if kuberay else []
    command = [helm(version), "template", RELEASE, chart, "--namespace", NAMESPACE, *known, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


@cache
def text(name: str, version: Version = 4) -> str:
    """What a values file becomes."""
    done = template("--values", values_file(name), version=version)
    assert done.returncode == 0, done.stderr
    return done.stdout


@cache
def objects(name: str) -> tuple[Object, ...]:
    """Of a rendered values file."""
    return tuple(object for object in yaml.load_all(text(name), yaml.CSafeLoader) if object)


@cache
def default_values() -> Object:
    return yaml.safe_load((CHART / "values.yaml").read_text())


def of_kind(name: str, kind: str) -> list[Object]:
    return [object for object in objects(name) if object["kind"] == kind]


def one(name: str, kind: str, ending: str = "") -> Object:
    """The only object of a kind, or the only one whose name ends so."""
    [found] = [object for object in of_kind(name, kind) if object["metadata"]["name"].endswith(ending)]
    return found


@cache
def pods(name: str) -> tuple[PodTemplate, ...]:
    """Every pod that a rendered values file makes, or that the controller makes by its word."""
    made = [*objects(name), *(cluster for object in objects(name) if (cluster := cluster_of_nights(object)))]
    return tuple(pod for object in made if object["kind"] in KINDS_OF_PODS for pod in _pods_of(object))


def cluster_of_nights(object: Object) -> Object | None:
    """The RayCluster that KubeRay makes for a night, where this is the file that says so."""
    if object["kind"] != "ConfigMap" or "rayjob.yaml" not in object["data"]:
        return None
    job = yaml.safe_load(object["data"]["rayjob.yaml"])
    metadata = job["metadata"] | {"name": "slp-00a1-a1-x7k2p", "namespace": NAMESPACE}
    return {"apiVersion": "ray.io/v1", "kind": "RayCluster", "metadata": metadata, "spec": job["spec"]["rayClusterSpec"]}


def _pods_of(object: Object) -> list[PodTemplate]:
    kind, own = object["kind"], object["metadata"]["name"]
    if kind == "Pod":
        return [PodTemplate(f"Pod {own}", object, object["metadata"], object["spec"])]
    spec = object["spec"]
    groups = (
        {"head": spec["headGroupSpec"]} | {g["groupName"]: g for g in spec["workerGroupSpecs"]}
        if kind == "RayCluster"
        else {"": spec}
    )
    return [
        PodTemplate(f"{kind} {own} {group}".strip(), object, found["template"]["metadata"], found["template"]["spec"])
        for group, found in groups.items()
    ]


every_file = pytest.mark.parametrize("name", NAMES)


def every_pod(check: Callable[[str, PodTemplate], None]) -> Callable[..., None]:
    """A test of each values file that holds of each of its pods; a failure names the pod."""

    def test(name: str) -> None:
        for pod in pods(name):
            try:
                check(name, pod)
            except AssertionError as error:
                error.add_note(f"of {pod.name} in {name}")
                raise

    test.__name__, test.__doc__ = check.__name__, check.__doc__
    return every_file(test)


def worker_groups(name: str) -> list[Object]:
    return one(name, "RayCluster")["spec"]["workerGroupSpecs"]


def variables(container: Object) -> dict[str, str]:
    """Those with a value of their own."""
    return {variable["name"]: variable.get("value", "") for variable in container.get("env", [])}
