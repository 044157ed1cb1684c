"""A stack under a supervisor: what is killed is started again, on the same ports, and what Ray runs can be found by its process id."""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import httpx
import psutil

from services.ports import RANGE, free_ports
from services.stack import Stack

PATIENCE_SECONDS = 900.0
"""Bound of every wait of these tests: long, because a machine that does other things too is slow, and free where all is well."""
LOOK_SECONDS = 0.2
ASK_SECONDS = 60.0
PATIENT: dict[str, Any] = {
    "port": 0,
    "ray_start_seconds": PATIENCE_SECONDS,
    "controller_start_seconds": PATIENCE_SECONDS,
    "replica_start_seconds": PATIENCE_SECONDS,
    "delivery_seconds": PATIENCE_SECONDS / 3,
    "ray_request_seconds": ASK_SECONDS,
}
"""Settings for a machine that does other things too."""


def until(condition: Callable[[], Any], what: str, every: float = LOOK_SECONDS) -> Any:
    """What the condition comes to; whoever does not answer meanwhile is asked again."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        with suppress(httpx.TransportError):
            if found := condition():
                return found
        assert time.monotonic() < deadline, f"not in time: {what}"
        time.sleep(every)


@dataclass
class Away:
    """A while in which something was not there, by this machine's clock."""

    since: float
    until: float = float("inf")

    def touches(self, since: float, until: float) -> bool:
        return since <= self.until and self.since <= until


@dataclass
class Supervised(Stack):
    """`seats` controllers of one database, each on a port of its own; the first is that of `url`."""

    seats: int = 1
    away: dict[int, list[Away]] = field(default_factory=dict)
    """Of each seat, when no controller was there that answers."""

    @property
    def urls(self) -> list[str]:
        return [f"http://{self.settings.host}:{port}" for port in self._seat_ports]

    def kill(self, name: str) -> None:
        """With all that it has started, by their ids: nothing of it is left when this returns."""
        (child,) = [child for child in self._children if child[0] == name]
        self._children.remove(child)
        head = psutil.Process(child[1].pid)
        family = [head, *head.children(recursive=True)]
        for process in family:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        child[1].wait()
        assert not psutil.wait_procs(family, timeout=ASK_SECONDS)[1]

    def kill_controller(self, seat: int) -> None:
        self.away[seat].append(Away(time.time()))
        self.kill(_controller(seat))

    def start_controller(self, seat: int) -> None:
        """Does not wait until it answers."""
        environment = {**self.environment(), "CIRCADIAN_PORT": str(self._seat_ports[seat])}
        command = [sys.executable, "-m", "services.serve"]
        self._start(_controller(seat), command, environment, self.settings.controller_stop_seconds)

    def restart_ray(self) -> None:
        """A new head on the ports of the one that was killed; returns when its dashboard answers."""
        self._start_ray()

    def readyz(self, seat: int) -> dict[str, Any] | None:
        """What the controller says of itself; None where it does not."""
        self.check()
        try:
            answer = httpx.get(f"{self.urls[seat]}/readyz", timeout=ASK_SECONDS)
        except httpx.TransportError:
            return None
        if answer.status_code == 200 and self.away[seat] and self.away[seat][-1].until == float("inf"):
            self.away[seat][-1].until = time.time()
        return answer.json() if answer.status_code == 200 else None

    def leader(self) -> int | None:
        """The seat of the controller that leads."""
        says = {seat: self.readyz(seat) for seat in range(self.seats)}
        return next((seat for seat, said in says.items() if said and said["leads"]), None)

    def dashboard_says(self, path: str) -> Any:
        """What Ray's own REST interface says."""
        headers = {"Authorization": f"Bearer {self.ray_token}"}
        return httpx.get(f"{self.dashboard}{path}", headers=headers, timeout=ASK_SECONDS).raise_for_status().json()

    def actors(self, title: str) -> list[int]:
        """Process ids of living actors whose name begins like this."""
        says = self.dashboard_says(
            "/api/v0/actors?detail=true&limit=1000&filter_keys=state&filter_predicates==&filter_values=ALIVE"
        )
        return [actor["pid"] for actor in says["data"]["result"]["result"] if (actor["name"] or "").startswith(title)]

    def used_cpus(self) -> float | None:
        """Of the cluster, as its autoscaler has last heard; None while it has not."""
        says = self.dashboard_says("/api/cluster_status")["data"]["clusterStatus"]
        usage = ((says or {}).get("loadMetricsReport") or {}).get("usage") or {}
        return usage["CPU"][0] if "CPU" in usage else None

    def driver(self, sleep: str) -> psutil.Process | None:
        """The process of a sleep's night, while it runs."""
        for process in psutil.Process(self.pids["ray"]).children(recursive=True):
            with suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
                line = process.cmdline()
                if line[:1] == [sys.executable] and line[1:3] == ["-m", "pipelines.night"] and sleep in line[-1]:
                    return process
        return None

    def _start_controller(self) -> None:
        first = free_ports(self.settings.host, self.seats - 1, random.randrange(len(RANGE)))
        self._seat_ports = [self.settings.port, *first]
        self.away = {seat: [Away(time.time())] for seat in range(self.seats)}
        for seat in range(self.seats):
            self.start_controller(seat)
        until(lambda: all(self.readyz(seat) for seat in range(self.seats)) and self.leader() is not None, "a controller leads")

    def _start(self, name: str, command: list[str], environment: dict[str, str], stop_seconds: float) -> None:
        """The log of the life before is kept beside."""
        if self._log(name).exists():
            lives = len(list(self._log(name).parent.glob(f"{name}.log.*")))
            self._log(name).rename(self._log(name).with_suffix(f".log.{lives}"))
        super()._start(name, command, environment, stop_seconds)


def kill(pid: int) -> None:
    """By its id, at once."""
    os.kill(pid, signal.SIGKILL)


def _controller(seat: int) -> str:
    return f"controller-{seat}"
