"""A kubelet's care for one pod: its namespaces, init containers, containers, probes, restarts, and its end."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

from pod_container import Container, child, children, mounts_of, send, sweep
from pod_manifest import (
    Image,
    NotInManifest,
    Object,
    Pod,
    Store,
    Volume,
    command,
    environment,
    privileges,
    read_only_root,
    volumes,
)
from pod_network import Network
from pod_probes import Probes

RUNTIME = Path(__file__).with_name("container_root.py")
LOOK_SECONDS = 0.2
BACK_OFF_SECONDS = 5.0
"""Before a container is started again; a kubelet's first is 10 s, and doubles."""
GRACE_SECONDS = 30
USERS = "root:x:0:0:root:/root:/usr/sbin/nologin\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n"
GROUPS = "root:x:0:\nnogroup:x:65534:\n"


class PodFailed(Exception):
    """A container that others wait for came to nothing."""


class Surroundings(Protocol):
    """What a pod needs of the machine that it runs on."""

    folder: Path
    store: Store
    network: Network

    def image(self, name: str) -> Image: ...

    def hosts(self, pod: Pod) -> str: ...


class RunningPod:
    """Begins with start; what runs in it ends with its thread, whatever happens. Raises NotInManifest for what it cannot be given."""

    def __init__(self, pod: Pod, machine: Surroundings) -> None:
        pod.check()
        self.pod = pod
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=pod.name)
        self.seconds_to_end: float | None = None
        """From the request to end until nothing ran any more."""
        self._machine, self._ending = machine, threading.Event()
        self._folder = machine.folder / "pods" / pod.name
        self._folder.mkdir(parents=True)
        self._volumes = volumes(pod, machine.store, self._folder / "volumes")
        self.init = [self._container(spec) for spec in pod.spec.get("initContainers", [])]
        self.containers = [self._container(spec) for spec in pod.spec["containers"]]

    @property
    def grace(self) -> float:
        return float(self.pod.spec.get("terminationGracePeriodSeconds", GRACE_SECONDS))

    @property
    def all_containers(self) -> list[Container]:
        return [*self.init, *self.containers]

    @property
    def ready(self) -> bool:
        return all(one.code is None and one.probes is not None and one.probes.ready for one in self.containers)

    @property
    def ended(self) -> bool:
        """Of its own."""
        return all(one.process is not None and one.code is not None for one in self.containers)

    @property
    def succeeded(self) -> bool:
        return self.ended and all(one.code == 0 for one in self.containers)

    def container(self, name: str) -> Container:
        (found,) = [one for one in self.all_containers if one.name == name]
        return found

    def start(self) -> None:
        self._life = self._thread.submit(self._run)

    def end(self) -> None:
        """Wait until it has ended, once it was asked to."""
        self._thread.shutdown()

    @property
    def failure(self) -> str | None:
        """Of the care for it, or of what must come before its containers."""
        if self._life.done() and (error := self._life.exception()):
            return f"{type(error).__name__}: {error}"
        return None

    def _run(self) -> None:
        try:
            self._hold()
            if self._initialise():
                for one in self.containers:
                    self._begin(one)
                while not self._ending.wait(LOOK_SECONDS) and not self._is_over():
                    for one in [*self._sidecars, *self.containers]:
                        self._care(one)
        finally:
            self._end()

    def ask_to_end(self) -> None:
        self._ending.set()

    def execute(self, container: Container, words: Sequence[str], seconds: float) -> subprocess.CompletedProcess[str]:
        """Run a command in a container, with its environment, as its user. Raises TimeoutExpired."""
        enter = f"nsenter -t {container.pid} --mount --pid --net --ipc --uts --wdns={container.run['workdir']} --".split()
        rights = ["setpriv", *container.run["privileges"], "--"]
        environment = container.run["environment"]
        return subprocess.run([*enter, *rights, *words], env=environment, capture_output=True, text=True, timeout=seconds)

    def told(self, lines: int = 40) -> str:
        """The end of every container's log, and what its probes were told."""
        parts = [f"{self.pod.name}: {self.failure or ''}"]
        for one in self.all_containers:
            text = one.log.read_text(errors="replace") if one.log.exists() else ""
            last = one.probes.last if one.probes else {}
            parts.append(f"--- {one.name}: code {one.code}, starts {one.starts}, {one.ends}, probes {last}")
            parts += text.splitlines()[-lines:]
        return "\n".join(parts)

    @property
    def _sidecars(self) -> list[Container]:
        return [one for one in self.init if one.spec.get("restartPolicy") == "Always"]

    def _is_over(self) -> bool:
        return self.ended and self.pod.spec.get("restartPolicy", "Always") != "Always"

    def _hold(self) -> None:
        memory = [_in_memory(volume) for volume in self._volumes.values() if volume.memory_bytes is not None]
        spec = self._spec("hold", {"hostname": self.pod.name[:63], "memory": memory})
        spaces = ["unshare", "--net", "--ipc", "--uts", "--mount", "--pid", "--fork", "--kill-child"]
        self._holder = child([*spaces, sys.executable, str(RUNTIME), "hold", str(spec)], stdout=subprocess.PIPE)
        assert self._holder.stdout is not None
        said = self._holder.stdout.readline()
        assert said == b"holding\n", f"{self.pod.name} got no namespaces: {said!r}, code {self._holder.poll()}"
        (self._held,) = children(self._holder.pid)
        self._machine.network.join(self._held, self.pod.address)

    def _initialise(self) -> bool:
        """Init containers one after the other; a failed one again, unless the pod may not."""
        for one in self.init:
            self._begin(one)
            while not self._ending.wait(LOOK_SECONDS):
                if one in self._sidecars:
                    self._care(one)
                    if one.probes is not None and one.probes.started:
                        break
                elif one.code == 0:
                    break
                elif one.code is not None and self.pod.spec.get("restartPolicy", "Always") == "Never":
                    raise PodFailed(f"init container {one.name} ended with {one.code}")
                else:
                    self._care(one)
        return not self._ending.is_set()

    def _begin(self, one: Container) -> None:
        """Start it, or start it anew."""
        scratch = self._folder / f"root-{one.name}-{one.starts}"
        scratch.mkdir()
        spec = self._spec(f"{one.name}-{one.starts}", {**one.run, "scratch": str(scratch)})
        enter = ["nsenter", "-t", str(self._held), "--net", "--ipc", "--uts", "--mount"]
        if self.pod.spec.get("shareProcessNamespace"):
            enter += ["--pid", "unshare", "--mount"]
        else:
            enter += ["unshare", "--mount", "--pid", "--fork"]
        told, tell = os.pipe()
        words = [*enter, sys.executable, str(RUNTIME), "run", str(spec), str(tell)]
        with one.log.open("ab") as log:
            one.process = child(words, stdout=log, pass_fds=(tell,))
        os.close(tell)
        with os.fdopen(told) as begun:
            begun.read(1)  # it is about to become its command, or is gone
        one.mounts = mounts_of(one.pid)
        one.starts += 1
        one.probes = Probes(one.spec, self.pod.address, lambda words, seconds: self._runs_well(one, words, seconds))

    def _care(self, one: Container) -> None:
        if one.code is None and one.probes is not None:
            one.probes.look()
            if one.probes.unhealthy:
                one.ends.append(f"{one.probes.unhealthy} failed: {one.probes.last.get(one.probes.unhealthy)}")
                self._stop([one], self.grace)
        elif one.code is not None and self._begins_again(one):
            if not one.begin_again_at:
                sweep(one)
                one.ends.append(f"ended with {one.code}")
                one.begin_again_at = time.monotonic() + BACK_OFF_SECONDS
            elif time.monotonic() >= one.begin_again_at:
                one.begin_again_at = 0.0
                self._begin(one)

    def _begins_again(self, one: Container) -> bool:
        policy = one.spec.get("restartPolicy") or self.pod.spec.get("restartPolicy", "Always")
        return bool(policy == "Always" or (policy == "OnFailure" and one.code))

    def _end(self) -> None:
        """Ask every container, wait for the grace period, kill what is left, and let the pod's namespaces go."""
        begun = time.monotonic()
        self._stop([one for one in self.containers if one.process], self.grace)
        left = max(self.grace - (time.monotonic() - begun), 0.0)
        self._stop([one for one in self.init if one.process], left)
        self.seconds_to_end = time.monotonic() - begun
        if holder := getattr(self, "_holder", None):
            holder.kill()
            holder.wait()

    def _stop(self, containers: Iterable[Container], grace: float) -> None:
        """The hook before the end counts as part of the grace period."""
        deadline = time.monotonic() + grace
        running = [one for one in containers if one.code is None]
        for one in running:
            self._before_the_end(one, deadline - time.monotonic())
        for one in running:
            if one.code is None:
                send(one.pid, signal.SIGTERM)
        for one in running:
            assert one.process is not None
            try:
                one.process.wait(max(deadline - time.monotonic(), 0.0))
            except subprocess.TimeoutExpired:
                one.ends.append(f"killed after {grace:.0f} s")
                sweep(one)
                one.process.wait()
            sweep(one)

    def _before_the_end(self, one: Container, seconds: float) -> None:
        hook = (one.spec.get("lifecycle") or {}).get("preStop") or {}
        if "exec" in hook:
            self._runs_well(one, hook["exec"]["command"], seconds)
        elif "sleep" in hook:
            time.sleep(min(float(hook["sleep"]["seconds"]), seconds))
        elif hook:
            raise NotInManifest(f"hooks of the kind {list(hook)}")

    def _runs_well(self, one: Container, words: list[str], seconds: float) -> bool:
        try:
            return self.execute(one, words, seconds).returncode == 0
        except subprocess.TimeoutExpired:
            return False

    def _container(self, spec: Object) -> Container:
        machine, pod = self._machine, self.pod
        image = machine.image(spec["image"])
        values = environment(pod, spec, image, machine.store)
        etc = {
            "hosts": machine.hosts(pod),
            "hostname": pod.name + "\n",
            "resolv.conf": "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n",
            "passwd": f"{USERS}app:x:{image.user}:{image.group}::{values.get('HOME', '/')}:/usr/sbin/nologin\n",
            "group": f"{GROUPS}app:x:{image.group}:\n",
        }
        run = {
            "binds": [*_of_image(image), *(_mount(mount, self._volumes) for mount in spec.get("volumeMounts", []))],
            "files": etc,
            "absent": list(image.absent),
            "read_only": read_only_root(spec),
            "workdir": spec.get("workingDir", image.workdir),
            "privileges": privileges(pod, spec, image),
            "argv": command(spec, image, values),
            "environment": values,
        }
        return Container(spec, run, self._folder / f"{spec['name']}.log")

    def _spec(self, name: str, content: Object) -> Path:
        path = self._folder / f"{name}.json"
        path.write_text(json.dumps(content))
        path.chmod(0o600)
        return path


def _of_image(image: Image) -> list[Object]:
    return [
        {"source": str(folder), "target": target, "read_only": True, "without": list(image.without.get(target, ()))}
        for target, folder in image.folders.items()
    ]


def _in_memory(volume: Volume) -> Object:
    folder = volume.path.stat()
    return {"path": str(volume.path), "bytes": volume.memory_bytes, "mode": folder.st_mode & 0o7777, "group": folder.st_gid}


def _mount(mount: Object, known: Mapping[str, Volume]) -> Object:
    if mount["name"] not in known:
        raise NotInManifest(f"volume {mount['name']}")
    volume = known[mount["name"]]
    source = volume.path / mount.get("subPath", "")
    if not source.exists():  # a kubelet makes a folder that a subPath names
        source.mkdir(parents=True)
        shutil.chown(source, volume.path.stat().st_uid, volume.path.stat().st_gid)
        source.chmod(volume.path.stat().st_mode & 0o7777)
    read_only = volume.read_only or mount.get("readOnly", False)
    return {"source": str(source), "target": mount["mountPath"], "read_only": read_only, "without": []}
