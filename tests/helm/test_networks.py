"""Everything of a release is closed, and each role is opened for what it needs: asked of the policies as a cluster would apply them."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest
import yaml

from tests.helm.chart import NAMESPACE, NIGHTS, Object, every_file, every_pod, of_kind, pods, template, values_file

Direction = str
MANY_PORTS = (6379, 8265, 8080, 10002, 19999, 44217, 52365, 65535)
"""That Ray's nodes use among themselves."""
METADATA_SERVICE = "169.254.169.254"


def reaches(name: str, source: str, target: str, port: int) -> bool:
    """Whether both ends of a connection within the release let it pass, from one component to another."""
    out = _allowed(name, source, "egress", port, _labels(name, target))
    return out and _allowed(name, target, "ingress", port, _labels(name, source))


def reached_from(name: str, target: str, port: int, namespace: str) -> bool:
    """Whether pods of another namespace may come in."""
    return _allowed(name, target, "ingress", port, {}, namespace)


def gets_out(name: str, source: str, address: str, port: int) -> bool:
    return any(_matches_address(peer, address) for peer in _peers(name, source, "egress", port))


@every_file
def test_every_pod_is_closed_first(name: str) -> None:
    [closed] = [p for p in of_kind(name, "NetworkPolicy") if p["metadata"]["name"].endswith("default-deny")]
    assert closed["spec"]["policyTypes"] == ["Ingress", "Egress"]
    assert not {"ingress", "egress"} & set(closed["spec"])
    selector = closed["spec"]["podSelector"]["matchLabels"]
    assert all(selector.items() <= pod.metadata["labels"].items() for pod in pods(name))


@every_pod
def test_every_role_has_one_policy_of_its_own(name: str, pod: Any) -> None:
    own = [p for p in _policies_of(name, pod.component) if "app.kubernetes.io/component" in p["spec"]["podSelector"]["matchLabels"]]
    assert len(own) == 1
    assert own[0]["spec"]["policyTypes"] == ["Ingress", "Egress"]


@every_file
def test_rays_client_port_is_for_nobody(name: str) -> None:
    for source in _components(name):
        for target in _ray(name):
            assert not reaches(name, source, target, 10001)
    assert not reached_from(name, "ray-head", 10001, "monitoring")


@every_file
def test_what_takes_part_in_the_cluster_reaches_the_rest_of_it(name: str) -> None:
    for source in _ray(name):
        for target in _ray(name):
            assert all(reaches(name, source, target, port) for port in MANY_PORTS)


@every_file
def test_nobody_else_of_the_release_reaches_ray(name: str) -> None:
    for source in set(_components(name)) - set(_ray(name)):
        assert not any(reaches(name, source, target, port) for target in _ray(name) for port in MANY_PORTS)


@every_file
def test_the_dashboard_is_for_the_cluster_alone(name: str) -> None:
    for namespace in ("monitoring", "ingress-nginx", "gateways", "default"):
        assert not reached_from(name, "ray-head", 8265, namespace)


@every_file
def test_ray_does_not_reach_the_api_nor_the_database(name: str) -> None:
    for source in set(_ray(name)) - {"controller"}:
        assert not _allowed(name, source, "egress", 8700, _labels(name, "controller"))
        assert not gets_out(name, source, "10.20.0.7", 5432)
        assert not gets_out(name, source, "10.20.0.7", 6432)


@every_file
def test_nobody_reaches_the_clouds_metadata(name: str) -> None:
    for source in _components(name):
        for port in (80, 443, 5432, 6379, 6443):
            assert not gets_out(name, source, METADATA_SERVICE, port)


@every_file
def test_only_controllers_go_out_into_the_world_and_never_home(name: str) -> None:
    assert {source for source in _components(name) if gets_out(name, source, "1.1.1.1", 443)} == {"controller"}
    assert gets_out(name, "controller", "10.0.0.9", 443) is (name == NIGHTS)
    assert not gets_out(name, "controller", "1.1.1.1", 80)


@every_file
def test_only_a_head_that_scales_asks_kubernetes(name: str) -> None:
    scales = name not in ("laptop-cpu", "one-gpu", "openshift")
    assert gets_out(name, "ray-head", "10.96.0.1", 443) is scales
    others = {source for source in _components(name) if source != "ray-head" and gets_out(name, source, "10.96.0.1", 6443)}
    assert others == ({"controller"} if name == NIGHTS else set()), "who makes clusters for nights asks, too"


@every_file
def test_numbers_are_for_prometheus_alone(name: str) -> None:
    namespace = "openshift-user-workload-monitoring" if name == "openshift" else "monitoring"
    for target, ports in (("controller", (8701, 8080)), ("ray-head", (8080, 44217, 44227))):
        for port in ports:
            assert reached_from(name, target, port, namespace)
            assert not reached_from(name, target, port, "elsewhere")
    assert not reached_from(name, "controller", 8700, "monitoring")


def test_clients_come_from_where_the_values_say() -> None:
    assert reached_from("gpu-production", "controller", 8700, "gateways")
    assert not reached_from("gpu-production", "controller", 8700, NAMESPACE)
    assert reached_from("minimal", "controller", 8700, NAMESPACE)
    assert not reached_from("minimal", "controller", 8700, "gateways")


def test_the_database_is_where_the_values_say() -> None:
    assert gets_out("external-database", "controller", "10.20.3.4", 6432)
    assert gets_out("external-database", "migrate", "10.20.3.4", 6432)
    assert not gets_out("external-database", "migrate", "10.21.3.4", 6432)
    assert reaches("laptop-cpu", "controller", "postgres", 5432)
    assert not any(
        reaches("laptop-cpu", source, "postgres", 5432) for source in _components("laptop-cpu") if source != "controller"
    )


def test_all_resolve_names() -> None:
    for source in set(_components("minimal")) - {"postgres"}:
        rules = [rule for policy in _policies_of("minimal", source) for rule in policy["spec"].get("egress", [])]
        assert [rule for rule in rules if {"protocol": "UDP", "port": 53} in rule["ports"]]


def test_names_are_resolved_on_the_node_where_the_values_say() -> None:
    done = template("--values", values_file("laptop-cpu"), "--set-json", 'networkPolicy.dns.cidrs=["169.254.20.10/32"]')
    assert done.returncode == 0, done.stderr
    ways = []
    for policy in (each for each in yaml.safe_load_all(done.stdout) if each and each["kind"] == "NetworkPolicy"):
        rules = [rule for rule in policy["spec"].get("egress") or [] if {"protocol": "UDP", "port": 53} in rule["ports"]]
        ways += [rule["to"] for rule in rules]
    assert len(ways) > 3
    assert all({"ipBlock": {"cidr": "169.254.20.10/32"}} in peers for peers in ways)


def test_policies_can_be_left_to_somebody_else() -> None:
    without = template("--values", values_file("minimal"), "--set", "networkPolicy.enabled=false")
    assert without.returncode == 0
    assert "kind: NetworkPolicy" not in without.stdout


@pytest.mark.parametrize(("address", "inside"), [("10.0.0.9", False), ("1.1.1.1", True)])
def test_a_block_leaves_out_what_it_excepts(address: str, inside: bool) -> None:
    assert _matches_address({"ipBlock": {"cidr": "0.0.0.0/0", "except": ["10.0.0.0/8"]}}, address) is inside


def _components(name: str) -> list[str]:
    return sorted({pod.component for pod in pods(name)})


def _ray(name: str) -> list[str]:
    return [component for component in _components(name) if component == "controller" or component.startswith("ray-")]


def _labels(name: str, component: str) -> dict[str, str]:
    return next(pod.metadata["labels"] for pod in pods(name) if pod.component == component)


def _policies_of(name: str, component: str) -> list[Object]:
    labels = _labels(name, component)
    return [p for p in of_kind(name, "NetworkPolicy") if p["spec"]["podSelector"]["matchLabels"].items() <= labels.items()]


def _peers(name: str, component: str, direction: Direction, port: int) -> list[Object]:
    """Of all rules for this port; a rule without peers stands for everybody."""
    side = "to" if direction == "egress" else "from"
    rules = [rule for policy in _policies_of(name, component) for rule in policy["spec"].get(direction) or []]
    return [peer for rule in rules if _has_port(rule, port) for peer in rule.get(side, [{"ipBlock": {"cidr": "0.0.0.0/0"}}])]


def _has_port(rule: Object, port: int) -> bool:
    tcp = [p for p in rule.get("ports", []) if p.get("protocol", "TCP") == "TCP"]
    return "ports" not in rule or any(p["port"] <= port <= p.get("endPort", p["port"]) for p in tcp)


def _allowed(
    name: str, component: str, direction: Direction, port: int, labels: dict[str, str], namespace: str = NAMESPACE
) -> bool:
    return any(_matches_pod(peer, labels, namespace) for peer in _peers(name, component, direction, port))


def _matches_pod(peer: Object, labels: dict[str, str], namespace: str) -> bool:
    if "ipBlock" in peer:
        return False
    there = {"kubernetes.io/metadata.name": namespace}
    if "namespaceSelector" in peer:
        if not peer["namespaceSelector"].get("matchLabels", {}).items() <= there.items():
            return False
    elif namespace != NAMESPACE:
        return False
    selector = peer.get("podSelector", {})
    chosen = selector.get("matchExpressions", [])
    return selector.get("matchLabels", {}).items() <= labels.items() and all(labels.get(e["key"]) in e["values"] for e in chosen)


def _matches_address(peer: Object, address: str) -> bool:
    block = peer.get("ipBlock")
    if block is None:
        return False
    ip = ipaddress.ip_address(address)
    return ip in ipaddress.ip_network(block["cidr"]) and not any(ip in ipaddress.ip_network(e) for e in block.get("except", []))
