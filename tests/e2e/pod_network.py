"""The network of pods on one machine: a bridge, a cable for each pod, and no way out."""

from __future__ import annotations

import ipaddress
import random
import subprocess
from pathlib import Path


class Network:
    """A bridge with an address for this machine and one for each pod. Nothing leaves it: what is for elsewhere is refused at once."""

    def __init__(self) -> None:
        self.bridge = f"cdn-{random.randrange(16**4):04x}"
        self._subnet = ipaddress.ip_network(f"10.{random.randrange(100, 250)}.{random.randrange(256)}.0/24")
        self._hosts = self._subnet.hosts()
        self.gateway = str(next(self._hosts))

    def open(self) -> None:
        _ip("link", "add", self.bridge, "type", "bridge")
        _ip("addr", "add", f"{self.gateway}/24", "dev", self.bridge)
        _ip("link", "set", self.bridge, "up")
        Path(f"/proc/sys/net/ipv4/conf/{self.bridge}/forwarding").write_text("1")  # else what is refused is not told so
        _ip("rule", "add", "iif", self.bridge, "prohibit")

    def close(self) -> None:
        _ip("rule", "del", "iif", self.bridge, "prohibit")
        _ip("link", "del", self.bridge)

    def address(self) -> str:
        return str(next(self._hosts))

    def join(self, pid: int, address: str) -> None:
        """Give the process's namespace a cable to the bridge."""
        outer = f"cdn{pid}"
        _ip("link", "add", outer, "type", "veth", "peer", "name", "eth0", "netns", str(pid))
        _ip("link", "set", outer, "master", self.bridge, "up")
        inside = ("nsenter", f"--net=/proc/{pid}/ns/net", "ip")
        for words in (
            f"addr add {address}/24 dev eth0",
            "link set eth0 up",
            "link set lo up",
            f"route add default via {self.gateway}",
        ):
            _run(*inside, *words.split())


def _ip(*words: str) -> None:
    _run("ip", *words)


def _run(*words: str) -> None:
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(words)}: {done.stderr.strip()}"
