"""One container of a pod as processes of this machine: how it is started, which are its processes, and how all of them end."""

from __future__ import annotations

import os
import signal
import subprocess
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from pod_manifest import Object
from pod_probes import Probes


@dataclass
class Container:
    """One container of a running pod."""

    spec: Object
    run: Object
    """For container_root.py."""
    log: Path
    process: subprocess.Popen[bytes] | None = None
    probes: Probes | None = None
    mounts: str | None = None
    """Its namespace of mounts, by which its processes are known."""
    starts: int = 0
    ends: list[str] = field(default_factory=list)
    """Why it was started anew, or that it had to be killed."""
    begin_again_at: float = 0.0

    @property
    def name(self) -> str:
        return str(self.spec["name"])

    @property
    def code(self) -> int | None:
        """None while it runs."""
        return self.process.poll() if self.process else None

    @property
    def pid(self) -> int | None:
        """Of the container's first process, here; None where it has none any more."""
        assert self.process is not None
        return next(iter(children(self.process.pid)), None)

    def processes(self) -> list[int]:
        """All of the container, here: those that see its mounts, but for the one that has started it and waits for its end."""
        runtime = self.process.pid if self.process else 0
        pids = [int(name) for name in os.listdir("/proc") if name.isdigit() and int(name) != runtime]
        return [pid for pid in pids if self.mounts is not None and mounts_of(pid) == self.mounts]


def child(words: list[str], stdout: int | IO[bytes], pass_fds: tuple[int, ...] = ()) -> subprocess.Popen[bytes]:
    """A child that is killed when the thread that starts it ends, and with it all that runs in its namespaces."""
    return subprocess.Popen(
        ["setpriv", "--pdeathsig", "KILL", *words],
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        cwd="/",
        pass_fds=pass_fds,
    )


def sweep(container: Container) -> None:
    """End what a container whose first process has ended left behind: its other containers may see it, where they share."""
    for pid in container.processes():
        send(pid, signal.SIGKILL)


def send(pid: int | None, number: signal.Signals) -> None:
    if pid is not None:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []


def mounts_of(pid: int | None) -> str | None:
    try:
        return os.readlink(f"/proc/{pid}/ns/mnt")
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None
