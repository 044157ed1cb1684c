"""Free ports for a local cluster, and the switches that put each of Ray's listeners on one of them."""

from __future__ import annotations

import socket
from collections.abc import Iterator

RANGE = range(20_000, 32_000)
"""Below the ports that Linux hands out by itself, above those that Ray gives its workers (10002 to 19999)."""
RAY_SWITCHES = (
    "--ray-client-server-port",
    "--node-manager-port",
    "--object-manager-port",
    "--dashboard-agent-listen-port",
    "--dashboard-agent-grpc-port",
    "--runtime-env-agent-port",
    "--metrics-export-port",
)


def free_ports(host: str, count: int, start: int) -> list[int]:
    """`count` ports on which nobody listens now, from `start` (an offset into the range) on."""
    candidates = _candidates(start)
    return [next(port for port in candidates if _is_free(host, port)) for _ in range(count)]


def _candidates(start: int) -> Iterator[int]:
    for i in range(len(RANGE)):
        yield RANGE[(start + i) % len(RANGE)]


def _is_free(host: str, port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True
