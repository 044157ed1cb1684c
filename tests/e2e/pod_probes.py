"""A kubelet's probes of one container: when each is due, what it answers, and what follows from that.

From outside, as a kubelet asks: HTTP and TCP at the pod's own address, and commands inside the container.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import httpx
from pod_manifest import NotInManifest, Object, port_number

KINDS = ("startupProbe", "livenessProbe", "readinessProbe")
SETTINGS = {
    "initialDelaySeconds",
    "periodSeconds",
    "timeoutSeconds",
    "successThreshold",
    "failureThreshold",
    "terminationGracePeriodSeconds",
}
GOOD = range(200, 400)

Execute = Callable[[list[str], float], bool]
"""Run a command in the container within so many seconds; whether it ended well."""


@dataclass
class Probe:
    """One probe and its record."""

    spec: Object
    since: float
    next_at: float = 0.0
    succeeded: int = 0
    failed: int = 0
    """Both in a row."""
    answers: int = 0
    refusals: int = 0
    """Both in all."""

    def __post_init__(self) -> None:
        self.next_at = self.since + float(self.spec.get("initialDelaySeconds", 0))

    def take(self, good: bool, now: float) -> None:
        self.succeeded, self.failed = (self.succeeded + 1, 0) if good else (0, self.failed + 1)
        self.answers, self.refusals = self.answers + good, self.refusals + (not good)
        self.next_at = now + float(self.spec.get("periodSeconds", 10))

    @property
    def holds(self) -> bool:
        return self.succeeded >= self.spec.get("successThreshold", 1)

    @property
    def fails(self) -> bool:
        return self.failed >= self.spec.get("failureThreshold", 3)


@dataclass
class Probes:
    """Those of a container that has just started. Until the startup probe holds, nobody asks the others."""

    container: Object
    address: str
    execute: Execute
    probes: dict[str, Probe] = field(default_factory=dict)
    ready: bool = False
    unhealthy: str | None = None
    """The probe for which the container must be started anew."""
    last: dict[str, str] = field(default_factory=dict)
    """What each probe was told when it was last refused."""

    def __post_init__(self) -> None:
        now = time.monotonic()
        self.probes = {kind: Probe(self.container[kind], now) for kind in KINDS if kind in self.container}
        self.ready = not self.probes.keys() & {"startupProbe", "readinessProbe"}

    @property
    def started(self) -> bool:
        startup = self.probes.get("startupProbe")
        return startup is None or startup.answers > 0

    def look(self) -> None:
        """Ask what is due."""
        kinds = ("livenessProbe", "readinessProbe") if self.started else ("startupProbe",)
        for kind in kinds:
            probe = self.probes.get(kind)
            if probe is not None and time.monotonic() >= probe.next_at:
                probe.take(self._ask(kind, probe.spec), time.monotonic())
                if probe.fails and kind != "readinessProbe":
                    self.unhealthy = kind
        readiness = self.probes.get("readinessProbe")
        if self.started:
            self.ready = readiness is None or (readiness.holds or (self.ready and not readiness.fails))

    def _ask(self, kind: str, spec: Object) -> bool:
        seconds = float(spec.get("timeoutSeconds", 1))
        ((how, what),) = [(key, value) for key, value in spec.items() if key not in SETTINGS]
        try:
            if how == "httpGet":
                self.last[kind] = self._http(what, seconds)
                return not self.last[kind]
            if how == "tcpSocket":
                socket.create_connection((self.address, port_number(self.container, what["port"])), seconds).close()
                return True
        except OSError as error:
            self.last[kind] = str(error)
            return False
        if how != "exec":
            raise NotInManifest(f"probes of the kind {how}")
        return self.execute(what["command"], seconds)

    def _http(self, what: dict[str, Any], seconds: float) -> str:
        """Empty where it is answered well. Redirects count as answers."""
        host = what.get("host", self.address)
        url = f"{what.get('scheme', 'HTTP').lower()}://{host}:{port_number(self.container, what['port'])}{what.get('path', '/')}"
        headers = {item["name"]: item["value"] for item in what.get("httpHeaders", [])}
        try:
            answer = httpx.get(url, headers=headers, timeout=seconds, verify=False)
        except httpx.HTTPError as error:
            return f"{type(error).__name__}: {error}"
        return "" if answer.status_code in GOOD else f"{answer.status_code} {answer.text[:200]}"
