"""What the cluster's nodes offer, held against what somebody asks for: who waits for Ray says what for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import ray

from actors import names

Room = Mapping[str, float]
"""Ray's resources, by name."""


def lacking(wanted: Room) -> str:
    """Why no node that lives could hold this, for people; nothing where one could once it is free."""
    return lacks(wanted, [node["Resources"] for node in ray.nodes() if node["Alive"]])


def lacks(wanted: Room, nodes: Iterable[Room]) -> str:
    """The same of these nodes, each as what it offers while nothing runs on it."""
    asked, nodes = {name: amount for name, amount in wanted.items() if amount}, list(nodes)
    absent = [name for name, amount in asked.items() if all(node.get(name, 0.0) < amount for node in nodes)]
    if absent:
        return f"no node of the cluster offers {told({name: asked[name] for name in absent})}{_remedy(absent)}"
    if not any(all(node.get(name, 0.0) >= amount for name, amount in asked.items()) for node in nodes):
        return f"no node of the cluster offers {told(asked)} together"
    return ""


def nights_apart() -> bool:
    """Whether the living nodes that take nights take no replicas: what replicas lend is no help to a night then."""
    return are_apart([node["Resources"] for node in ray.nodes() if node["Alive"]])


def are_apart(nodes: Iterable[Room]) -> bool:
    """The same of these nodes. Where nodes have no roles every node takes everything."""
    replica, night = names.role("wake"), names.role("rollout") | names.role("learner")
    return bool(replica) and not any(replica.keys() & node.keys() and night.keys() & node.keys() for node in nodes)


def told(room: Room) -> str:
    """For people."""
    return ", ".join(f"{name} {amount:g}" for name, amount in room.items())


def _remedy(absent: Iterable[str]) -> str:
    roles = sorted(name.removeprefix(names.ROLE) for name in absent if name.startswith(names.ROLE))
    return f": add a node of the role {', '.join(roles)}, or unset {names.ROLES_VARIABLE}" if roles else ""
