"""A stack whose cluster is as on Kubernetes: a head without CPUs, and nodes that each have a role. All are on this machine, each a
raylet of its own, on ports of its own."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from supervised import ASK_SECONDS, PATIENCE_SECONDS, until

from actors import names
from services.ports import RAY_SWITCHES, free_ports
from services.stack import OBJECT_STORE_BYTES, Stack

NODE_PORTS = ("node_manager", "object_manager", "dashboard_agent_listen", "metrics_agent", "runtime_env_agent", "metrics_export")
"""What a node listens on, as Ray calls its parameters."""
METRICS = "--metrics-export-port"
FIRST_PORT = 9_000
"""Where a node's ports are looked for, in the range of ports."""


@dataclass
class RolesStack(Stack):
    """`start_node` adds a node. `ray_variables` are what Ray has in its environment besides."""

    ray_variables: dict[str, str] = field(default_factory=dict)
    metrics_ports: dict[str, int] = field(default_factory=dict)
    """Of each role's node, and of the head."""

    def ray_environment(self) -> dict[str, str]:
        return super().ray_environment() | {names.ROLES_VARIABLE: "1"} | self.ray_variables

    def _start_ray(self) -> None:
        super()._start_ray()
        self.metrics_ports["head"] = self._ray_ports[RAY_SWITCHES.index(METRICS)]
        self.start_node("wake", 2)

    def start_node(self, role: str, cpus: int) -> None:
        """Returns once it is there."""
        host = self.settings.host
        found = free_ports(host, len(NODE_PORTS), FIRST_PORT)
        ports = {f"{name}_port": port for name, port in zip(NODE_PORTS, found, strict=True)}
        parameters = {
            "gcs_address": self.settings.ray_address,
            "node_ip_address": host,
            "num_cpus": cpus,
            "resources": {f"{names.ROLE}{role}": 1000},
            "object_store_memory": OBJECT_STORE_BYTES,
            "min_worker_port": 0,  # any free ones: what Ray takes by itself is the same on every node
            "max_worker_port": 0,
        }
        command = [sys.executable, str(Path(__file__).with_name("ray_node.py")), json.dumps(parameters | ports)]
        self._start(role, command, self.ray_environment(), ASK_SECONDS)
        self.metrics_ports[role] = ports["metrics_export_port"]
        until(lambda: self.check() or role in self.nodes().values(), f"a node of the role {role} joins")

    def ray(self, path: str) -> Any:
        """What Ray's own HTTP interface says; to the first question about Train runs after a minute or two, on a busy machine."""
        answer = httpx.get(
            f"{self.dashboard}{path}", headers={"Authorization": f"Bearer {self.ray_token}"}, timeout=PATIENCE_SECONDS
        )
        return answer.raise_for_status().json()

    def state(self, kind: str) -> list[dict[str, Any]]:
        """Ray's state API: `nodes`, `actors`, ..."""
        return self.ray(f"/api/v0/{kind}?detail=1&limit=1000")["data"]["result"]["result"]

    def nodes(self) -> dict[str, str]:
        """The role of each node that lives, by the node's id; "head" has none."""
        return {node["node_id"]: _role(node) for node in self.state("nodes") if node["state"] == "ALIVE"}


def _role(node: dict[str, Any]) -> str:
    offered = [name.removeprefix(names.ROLE) for name in node["resources_total"] if name.startswith(names.ROLE)]
    return offered[0] if offered else "head"
