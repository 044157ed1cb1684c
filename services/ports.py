"""Ports: free ones for a local cluster, the switches that put each of Ray's listeners on one of them, and whose a port is."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator

import psutil

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


class PortInUse(Exception):
    """Somebody else listens there."""

    def __init__(self, host: str, port: int, option: str = "--port") -> None:
        super().__init__(f"port {port} of {host} is in use; choose another {option}")


def listening(host: str, port: int) -> socket.socket:
    """A socket that is ours from here on, so that nothing is begun for a service that cannot be reached. Raises PortInUse."""
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((host, port))
        sock.listen()
    except OSError as error:
        sock.close()
        if error.errno == errno.EADDRINUSE:
            raise PortInUse(host, port) from error
        raise
    return sock


def listens(pid: int, port: int) -> bool:
    """Whether the process, or one that it has started, is who listens on this port."""
    try:
        process = psutil.Process(pid)
        family = [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return False
    return any(port in _ports_of(member) for member in family)


def _ports_of(process: psutil.Process) -> list[int]:
    """Where it listens; nowhere once it has ended."""
    try:
        found = process.net_connections(kind="tcp")
    except psutil.NoSuchProcess:
        return []
    return [connection.laddr.port for connection in found if connection.status == psutil.CONN_LISTEN]


def free_ports(host: str, count: int, start: int) -> list[int]:
    """`count` ports on which nobody listens now, from `start` (an offset into the range) on."""
    candidates = _candidates(start)
    return [next(port for port in candidates if is_free(host, port)) for _ in range(count)]


def _candidates(start: int) -> Iterator[int]:
    for i in range(len(RANGE)):
        yield RANGE[(start + i) % len(RANGE)]


def is_free(host: str, port: int) -> bool:
    """Whether nobody listens there now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True
