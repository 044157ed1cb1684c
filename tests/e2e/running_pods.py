"""Pods as local processes: each with a network address, namespaces and a root of its own, run as a kubelet would run it.

    with Machine(folder, images, objects) as machine:
        machine.start([pod, ...]); machine.await_ready([pod, ...], seconds)

Names of services are found through /etc/hosts of each pod: this is one machine, so there is no proxy for services (a service's port must be
its pod's own), no name server (what resolv.conf names refuses at once) and no network policy. What a pod asks of the world outside is
refused at once. Pods are started in the order that the caller decides; what is needed must be there, as in a cluster.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from pod_manifest import Image, NotInManifest, Object, Pod, Store, port_number
from pod_network import Network
from running_pod import LOOK_SECONDS, RunningPod

TOOLS = ("ip", "nsenter", "unshare", "setpriv", "pivot_root", "mount")


def why_not() -> str | None:
    """What is missing on this machine for pods to run on it, if anything is."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "needs root on Linux: it makes namespaces and mounts"
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing:
        return f"needs {', '.join(missing)} (iproute2, util-linux)"
    tried = subprocess.run(["unshare", "--mount", "--net", "--pid", "--fork", "true"], capture_output=True, text=True)
    return None if tried.returncode == 0 else f"may not make namespaces: {tried.stderr.strip()}"


class Machine:
    """Where pods run. Pods find the objects that are there when they are started."""

    def __init__(self, folder: Path, images: Callable[[str], Image], objects: Sequence[Object], namespace: str) -> None:
        self.folder, self.image, self.namespace = folder, images, namespace
        claims = folder / "claims"
        claims.mkdir(parents=True)
        self.store = Store(claims, namespace)
        self.network = Network()
        self.pods: dict[str, Pod] = {}
        self.running: dict[str, RunningPod] = {}
        self._services: list[Object] = []
        self.add(objects)

    def __enter__(self) -> Self:
        self.network.open()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.end(list(self.running))
        self.network.close()

    def add(self, objects: Iterable[Object]) -> None:
        """From now on these are there, too."""
        objects = list(objects)
        self.store.add(objects)
        self._services += [item for item in objects if item["kind"] == "Service"]

    def plan(self, name: str, template: Object, namespace: str | None = None) -> Pod:
        """A pod of a template, with its address. Plan all before the first is started: they find each other by these."""
        metadata = {**(template.get("metadata") or {}), "name": name}
        pod = Pod(name, namespace or self.namespace, metadata, template["spec"], self.network.address())
        self.pods[name] = pod
        return pod

    def start(self, pods: Iterable[Pod]) -> None:
        for pod in pods:
            self.running[pod.name] = RunningPod(pod, self)
            self.running[pod.name].start()

    def await_ready(self, names: Iterable[str], seconds: float) -> None:
        self._await(names, seconds, lambda running: running.ready, "ready")

    def await_success(self, names: Iterable[str], seconds: float) -> None:
        """Of jobs and tests."""
        self._await(names, seconds, lambda running: running.ended, "ended")
        for name in names:
            assert self.running[name].succeeded, self.running[name].told()

    def end(self, names: Iterable[str]) -> None:
        """Ask all to end, and wait until they have."""
        for name in names:
            self.running[name].ask_to_end()
        for name in names:
            self.running[name].end()

    def endpoints(self, service: Object) -> list[Pod]:
        selector = service["spec"].get("selector") or {}
        namespace = service["metadata"].get("namespace", self.namespace)
        return [
            pod for pod in self.pods.values() if selector and pod.namespace == namespace and selector.items() <= pod.labels.items()
        ]

    def hosts(self, pod: Pod) -> str:
        lines = ["127.0.0.1 localhost", f"{pod.address} {pod.name}"]
        for service in self._services:
            name, namespace = service["metadata"]["name"], service["metadata"].get("namespace", self.namespace)
            long = [f"{name}.{namespace}", f"{name}.{namespace}.svc", f"{name}.{namespace}.svc.cluster.local"]
            names = " ".join([*long, *([name] if namespace == pod.namespace else [])])
            for endpoint in self.endpoints(service):
                _no_proxy_needed(service, endpoint)
                lines.append(f"{endpoint.address} {names}")
        return "\n".join(lines) + "\n"

    def _await(self, names: Iterable[str], seconds: float, holds: Callable[[RunningPod], bool], what: str) -> None:
        deadline = time.monotonic() + seconds
        for name in names:
            running = self.running[name]
            while not holds(running):
                assert running.failure is None, running.told()
                assert time.monotonic() < deadline, f"{name} was not {what} in {seconds:.0f} s\n{running.told()}"
                time.sleep(LOOK_SECONDS)


def _no_proxy_needed(service: Object, endpoint: Pod) -> None:
    """Raises NotInManifest where a service's port is not its pod's own, or no container of the pod has it."""
    for port in service["spec"]["ports"]:
        target = port.get("targetPort", port["port"])
        holders = [
            one
            for one in endpoint.spec["containers"]
            if isinstance(target, int) or any(p.get("name") == target for p in one.get("ports", []))
        ]
        if not holders:
            raise NotInManifest(f"port {target} of service {service['metadata']['name']} in pod {endpoint.name}")
        if port_number(holders[0], target) != port["port"]:
            raise NotInManifest(f"a proxy for service {service['metadata']['name']}: its port is not its pod's")
