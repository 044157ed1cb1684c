"""Names, labels, doors, monitors and the test of a release, in every values file."""

from __future__ import annotations

import re
from typing import Any

from tests.helm.chart import CHART, NAMES, RELEASE, Object, every_file, objects, of_kind, one, pods, variables

RAY_PORTS = {6379, 8265, 10001, 8080, 44217, 44227, 52365}
SIX = {f"app.kubernetes.io/{label}" for label in ("name", "instance", "component", "version", "part-of", "managed-by")}


@every_file
def test_labels_and_names(name: str) -> None:
    for object in objects(name):
        metadata = object["metadata"]
        assert len(metadata["name"]) <= 63
        if metadata["name"].endswith("-notes"):
            continue
        assert set(metadata["labels"]) >= SIX
        if name == "gpu-production":
            assert metadata["labels"]["team"] == "models"
    assert len(one(name, "RayCluster")["metadata"]["name"]) <= 41, "KubeRay cuts the head's service off at 50 characters"


@every_file
def test_selectors_say_nothing_that_changes_and_find_their_pods(name: str) -> None:
    labels = [pod.metadata["labels"] for pod in pods(name)]
    for object in objects(name):
        selector = _selector(object)
        if selector is None:
            continue
        assert not {"app.kubernetes.io/version", "helm.sh/chart"} & set(selector)
        assert [found for found in labels if selector.items() <= found.items()], f"{object['kind']} selects nothing"


@every_file
def test_only_the_api_has_a_door(name: str) -> None:
    services = of_kind(name, "Service")
    assert {service["spec"]["type"] for service in services} == {"ClusterIP"}
    behind = [(s["metadata"]["name"], {port["name"]: port for port in s["spec"]["ports"]}) for s in services]
    api = dict(behind)["day-circadian-controller"]
    assert set(api) == {"http"}
    assert api["http"]["targetPort"] == "http"
    for ingress in of_kind(name, "Ingress"):
        backends = [path["backend"]["service"] for rule in ingress["spec"]["rules"] for path in rule["http"]["paths"]]
        assert backends == [{"name": "day-circadian-controller", "port": {"name": "http"}}]
    for route in of_kind(name, "HTTPRoute"):
        backends = [backend for rule in route["spec"]["rules"] for backend in rule["backendRefs"]]
        assert backends == [{"name": "day-circadian-controller", "port": api["http"]["port"]}]
        assert not RAY_PORTS & {backend["port"] for backend in backends}


def test_the_doors_are_there_where_they_are_wanted() -> None:
    assert of_kind("external-database", "Ingress")
    assert of_kind("gpu-production", "HTTPRoute")
    assert not [object for object in objects("minimal") if object["kind"] in ("Ingress", "HTTPRoute")]


def test_names_of_ports_are_what_kubernetes_takes() -> None:
    for name in NAMES:
        ports = [port["name"] for pod in pods(name) for container in pod.containers for port in container.get("ports", [])]
        assert all(re.fullmatch(r"[a-z0-9-]{1,15}", port) for port in ports)


def test_monitors_ask_ports_that_are_there() -> None:
    name = "gpu-production"
    [service_monitor] = of_kind(name, "ServiceMonitor")
    [scraped] = [
        s
        for s in of_kind(name, "Service")
        if service_monitor["spec"]["selector"]["matchLabels"].items() <= s["metadata"]["labels"].items()
    ]
    assert {e["port"] for e in service_monitor["spec"]["endpoints"]} == {port["name"] for port in scraped["spec"]["ports"]}
    [controller] = [pod for pod in pods(name) if pod.component == "controller"]
    targets = {port["name"] for container in controller.containers for port in container["ports"]}
    assert {port["targetPort"] for port in scraped["spec"]["ports"]} <= targets
    for monitor in of_kind(name, "PodMonitor"):
        labels = monitor["spec"]["selector"]["matchLabels"]
        assert labels["app.kubernetes.io/instance"] == RELEASE, "clusters of nights too"
        ray = [pod for pod in pods(name) if pod.is_ray and (pod.component == "ray-head") == (labels["ray.io/node-type"] == "head")]
        for pod in ray:
            there = {port["name"] for port in pod.containers[0]["ports"]}
            assert {endpoint["port"] for endpoint in monitor["spec"]["podMetricsEndpoints"]} <= there


def test_the_dashboard_knows_where_its_numbers_are() -> None:
    head = one("gpu-production", "RayCluster")["spec"]["headGroupSpec"]["template"]["spec"]["containers"][0]
    assert variables(head)["RAY_PROMETHEUS_HOST"] == "http://prometheus-operated.monitoring:9090"
    assert variables(head)["RAY_GRAFANA_IFRAME_HOST"] == "https://grafana.example.com"
    without = one("minimal", "RayCluster")["spec"]["headGroupSpec"]["template"]["spec"]["containers"][0]
    assert variables(without)["RAY_GRAFANA_HOST"] == "DISABLED"


@every_file
def test_helm_test_asks_the_api_and_leaves_nothing(name: str) -> None:
    [pod] = of_kind(name, "Pod")
    annotations = pod["metadata"]["annotations"]
    assert annotations["helm.sh/hook"] == "test"
    assert "hook-succeeded" in annotations["helm.sh/hook-delete-policy"]
    [container] = pod["spec"]["containers"]
    compile(container["args"][0], "smoke.py", "exec")
    assert all(asked in container["args"][0] for asked in ("/readyz", "/v1/models", '"dry_run": True'))
    assert variables(container)["CIRCADIAN_URL"] == "http://day-circadian-controller.dreams.svc:8700"


def _selector(object: Object) -> dict[str, str] | None:
    """Of what looks for our pods by labels that are in their templates."""
    spec: dict[str, Any] = object.get("spec", {})
    match object["kind"]:
        case "Service":
            return spec["selector"]
        case "Deployment" | "StatefulSet" | "PodDisruptionBudget":
            return spec["selector"]["matchLabels"]
        case "NetworkPolicy":
            return spec["podSelector"]["matchLabels"]
        case _:
            return None


def test_alerts_lead_to_their_pages() -> None:
    (rule,) = of_kind("gpu-production", "PrometheusRule")
    urls = [alert["annotations"]["runbook_url"] for group in rule["spec"]["groups"] for alert in group["rules"] if "alert" in alert]
    assert urls
    for url in urls:
        page = url.removeprefix("https://git.example.com/circadian/")
        assert page != url
        assert (CHART.parents[1] / page).is_file()
