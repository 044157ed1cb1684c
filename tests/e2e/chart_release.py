"""A release of the chart on this machine: helm's order of hooks and objects, and the pods that come of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import kuberay
from pod_manifest import Object, Pod
from running_pods import Machine

HOOK, WEIGHT = "helm.sh/hook", "helm.sh/hook-weight"
TOKEN = "b5d8c1" * 8
"""What the operator makes of itself where no secret is given: any random string."""
JOB_SECONDS = 300.0


@dataclass
class Release:
    """What was rendered. Pods of all kinds are planned at once, so that each knows the others' addresses."""

    machine: Machine
    objects: Sequence[Object]
    pods: dict[str, list[Pod]] = field(default_factory=dict)
    """By `KIND/NAME` of the object that they come of."""

    def plan(self) -> None:
        for item in self.objects:
            name, kind = item["metadata"]["name"], item["kind"]
            made = _pods(item)
            if made:
                self.pods[f"{kind}/{name}"] = [self.machine.plan(pod, template) for pod, template in made.items()]

    def install(self) -> list[Pod]:
        """Hooks before it, by weight, each to its end; then everything at once. The pods that run from now on."""
        self._hooks("pre-install")
        plain = [item for item in self.objects if not _hooks_of(item)]
        self.machine.add(plain)
        for cluster in (item for item in plain if item["kind"] == "RayCluster"):
            secret = kuberay.token_secret(cluster, TOKEN)
            self.machine.add([kuberay.head_service(cluster), *([secret] if secret else [])])
        running = [pod for item in plain for pod in self.pods_of(item)]
        self.machine.start(running)
        return running

    def test(self) -> None:
        """`helm test`."""
        self._hooks("test")

    def pods_of(self, item: Object) -> list[Pod]:
        return self.pods.get(f"{item['kind']}/{item['metadata']['name']}", [])

    def of_kind(self, kind: str) -> list[Pod]:
        return [pod for key, pods in self.pods.items() if key.startswith(f"{kind}/") for pod in pods]

    def _hooks(self, event: str) -> None:
        hooks = [item for item in self.objects if event in _hooks_of(item)]
        for item in sorted(hooks, key=lambda item: int(item["metadata"]["annotations"].get(WEIGHT, "0"))):
            self.machine.add([item])
            pods = self.pods_of(item)
            self.machine.start(pods)
            self.machine.await_success([pod.name for pod in pods], JOB_SECONDS)


def _hooks_of(item: Object) -> list[str]:
    return [word for word in (item["metadata"].get("annotations") or {}).get(HOOK, "").split(",") if word]


def _pods(item: Object) -> dict[str, Object]:
    """Templates by the pods' names, as controllers name them."""
    name, kind, spec = item["metadata"]["name"], item["kind"], item.get("spec") or {}
    if kind == "Deployment":
        return {f"{name}-7d9f-x000{number}": spec["template"] for number in range(spec.get("replicas", 1))}
    if kind == "StatefulSet":
        return {f"{name}-{number}": spec["template"] for number in range(spec.get("replicas", 1))}
    if kind == "Job":
        return {f"{name}-x0000": spec["template"]}
    if kind == "Pod":
        return {name: {"metadata": item["metadata"], "spec": spec}}
    return kuberay.pods(item) if kind == "RayCluster" else {}
