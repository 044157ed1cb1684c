"""deploy/compose.yaml and what may lie on top of it, as docker compose itself reads them."""

from __future__ import annotations

import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.stages import dockerfile
from tests.deploy.tools import DEPLOY, OVERLAYS, ROOT, compose, configured

SETS = [(), *((overlay,) for overlay in OVERLAYS), OVERLAYS]
OURS = ("migrate", "controller", "ray-node", "ray-head", "ray-worker")
RAY = ("ray-node", "ray-head", "ray-worker")
IMAGE = re.compile(r"[a-z/-]+:v?\d[\w.-]*")

PROMTOOL = shutil.which("promtool")

every_set = pytest.mark.parametrize("overlays", SETS, ids=lambda names: "+".join(names) or "alone")


def services(overlays: tuple[str, ...] = ()) -> dict[str, dict[str, Any]]:
    return configured(*overlays)["services"]


def published(overlays: tuple[str, ...]) -> set[tuple[str, str, int]]:
    return {
        (name, port["host_ip"], port["target"]) for name, service in services(overlays).items() for port in service.get("ports", [])
    }


@every_set
def test_every_container_is_closed(overlays: tuple[str, ...]) -> None:
    for name, service in services(overlays).items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert not {"privileged", "cap_add", "devices"} & set(service), name
        user, _, group = service["user"].partition(":")
        assert 0 not in (int(user), int(group)), name
    assert {services(overlays)[name]["user"] for name in OURS} == {"1000:1000"}


@every_set
def test_every_image_is_pinned_by_its_tag_and_takes_a_digest(overlays: tuple[str, ...]) -> None:
    for name, service in services(overlays).items():
        assert IMAGE.fullmatch(service["image"]), f"{name}: {service['image']}"
    for file in ("compose.yaml", *overlays):
        lines = re.findall(r"^\s+image: (.*)$", (DEPLOY / file).read_text(), re.MULTILINE)
        assert [line for line in lines if not re.search(r"\$\{(\w+)_DIGEST:\+@\$\{\1_DIGEST:-\}\}$", line)] == []


def test_a_digest_that_is_given_is_in_the_images_name(tmp_path: Path) -> None:
    digest = f"sha256:{'a' * 64}"
    (tmp_path / "env").write_text(f"NODE_DIGEST={digest}\n")
    command = [compose(), "--env-file", tmp_path / "env", "-f", DEPLOY / "compose.yaml", "config", "--images"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert f"circadian/cpu:0.1.0@{digest}" in done.stdout.split()


def test_only_the_service_and_grafana_are_published_and_on_this_machine_alone() -> None:
    assert published(()) == {("controller", "127.0.0.1", 8700), ("grafana", "127.0.0.1", 3000)}
    assert published(("compose.cuda.yaml",)) == published(())


def test_the_dashboard_of_ray_is_published_only_where_it_is_asked_for() -> None:
    assert published(("compose.dashboard.yaml",)) - published(()) == {("ray-head", "127.0.0.1", 8265)}


@every_set
def test_nothing_but_what_is_published_has_a_way_out(overlays: tuple[str, ...]) -> None:
    assert configured(*overlays)["networks"]["inside"]["internal"] is True
    outside = {name for name, service in services(overlays).items() if "outside" in service.get("networks", {})}
    assert outside == {name for name, _, _ in published(overlays)}


@every_set
def test_ray_asks_for_its_token_everywhere(overlays: tuple[str, ...]) -> None:
    for name in ("controller", *RAY):
        service = services(overlays)[name]
        assert service["environment"]["RAY_AUTH_MODE"] == "token", name
        files = {secret["target"] for secret in service["secrets"]}
        assert service["environment"]["RAY_AUTH_TOKEN_PATH"] in files, name


@every_set
def test_no_secret_is_in_an_environment_or_a_command(overlays: tuple[str, ...]) -> None:
    for name, service in services(overlays).items():
        environment = service.get("environment", {})
        secret = [key for key in environment if re.search(r"PASSWORD|TOKEN|SECRET|API_KEY|PEPPER|DATABASE_URL", key)]
        assert [key for key in secret if not re.search(r"(_PATH|_FILE|_FOLDER)$", key)] == [], name
        assert not re.search(r"(?i)password|token", " ".join(service.get("command") or [])), name


def test_a_node_of_ray_is_given_no_secret_but_its_token() -> None:
    for name in RAY:
        assert {secret["source"] for secret in services()[name]["secrets"]} == {"ray_token"}


def test_the_controller_has_a_raylet_that_it_finds() -> None:
    node = services()["ray-node"]
    assert {node[space] for space in ("network_mode", "ipc", "pid")} == {"service:controller"}, "a driver reads its processes"
    mounts = [{volume["target"]: volume["source"] for volume in services()[name]["volumes"]} for name in ("controller", "ray-node")]
    assert mounts[0]["/tmp/ray"] == mounts[1]["/tmp/ray"]
    assert "--num-cpus=0" in node["command"]


def test_models_are_read_by_nodes_and_written_by_the_controller() -> None:
    for name in ("controller", "ray-head", "ray-worker"):
        (volume,) = [v for v in services()[name]["volumes"] if v["source"] == "models"]
        assert volume["target"] == services()[name]["environment"]["HF_HUB_CACHE"]
        assert volume.get("read_only", False) is (name != "controller")


@every_set
def test_what_is_built_is_a_target_of_the_dockerfile(overlays: tuple[str, ...]) -> None:
    built = {name: service["build"] for name, service in services(overlays).items() if "build" in service}
    assert set(built) == {"controller", "ray-head"}
    for build in built.values():
        assert set(build["args"]) <= set(dockerfile().arguments)
        assert [secret["source"] for secret in build["secrets"]] == ["pip.conf"]
    for name, build in built.items():
        assert services(overlays)[name]["image"].startswith(f"circadian/{build['target']}:")
        assert build["target"] in dockerfile().stages


def test_gpus_are_the_workers_alone() -> None:
    with_gpus = {name for name, service in services(("compose.cuda.yaml",)).items() if "deploy" in service}
    assert with_gpus == {"ray-worker"}
    ordinary, gpu = services()["ray-worker"], services(("compose.cuda.yaml",))["ray-worker"]
    switches = [{switch.partition("=")[0] for switch in service["command"]} for service in (ordinary, gpu)]
    assert switches[0] == switches[1]
    assert "--num-gpus=1" in gpu["command"]


def test_grafana_knows_nobody_who_has_not_logged_in() -> None:
    environment = services(("compose.dashboard.yaml",))["grafana"]["environment"]
    assert environment["GF_AUTH_ANONYMOUS_ENABLED"] == "false"
    assert environment["GF_USERS_ALLOW_SIGN_UP"] == "false"
    assert environment["GF_SECURITY_ADMIN_PASSWORD__FILE"] == "/run/secrets/grafana_password"


def test_prometheus_asks_services_that_are_there_at_ports_that_they_open() -> None:
    scraped = yaml.safe_load((DEPLOY / "monitoring/prometheus.yaml").read_text())["scrape_configs"]
    found = {(name, part["port"]) for job in scraped for part in job.get("dns_sd_configs", []) for name in part["names"]}
    found |= {
        (name, int(port))
        for job in scraped
        for part in job.get("static_configs", [])
        for name, port in map(_split, part["targets"])
    }
    nodes = {(name, 8080) for name in ("controller", "ray-head", "ray-worker")}
    assert found == {("controller", 8701), ("ray-head", 44217), ("ray-head", 44227)} | nodes
    assert services()["controller"]["environment"]["CIRCADIAN_METRICS_PORT"] == "8701"
    for name in RAY:
        assert "--metrics-export-port=8080" in services()[name]["command"]


@pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed: apt-get install prometheus")
def test_prometheus_takes_its_configuration_and_the_charts_rules(tmp_path: Path) -> None:
    text = (
        (DEPLOY / "monitoring/prometheus.yaml")
        .read_text()
        .replace("/etc/prometheus/alerts.yaml", str(ROOT / "helm/circadian/alerts.yaml"))
    )
    (tmp_path / "prometheus.yaml").write_text(text)
    done = subprocess.run([str(PROMTOOL), "check", "config", tmp_path / "prometheus.yaml"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"SUCCESS: [1-9]\d* rules found", done.stdout)


def test_what_grafana_and_prometheus_read_is_mounted() -> None:
    for name in ("grafana", "prometheus"):
        for volume in services()[name]["volumes"]:
            if volume["type"] == "bind":
                assert volume["read_only"], volume
                assert (DEPLOY / volume["source"]).exists(), volume["source"]
    dashboards = {v["target"] for v in services()["grafana"]["volumes"]}
    provider = yaml.safe_load((DEPLOY / "monitoring/grafana/providers/circadian.yaml").read_text())["providers"][0]
    assert provider["options"]["path"] in dashboards
    rules = {v["target"]: DEPLOY / v["source"] for v in services()["prometheus"]["volumes"] if v["type"] == "bind"}
    for file in yaml.safe_load((DEPLOY / "monitoring/prometheus.yaml").read_text())["rule_files"]:
        assert yaml.safe_load(rules[file].read_text())["groups"]


def _split(target: str) -> tuple[str, str]:
    name, _, port = target.partition(":")
    return name, port


def test_the_version_of_our_images_is_the_projects() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    images = {
        service["image"]
        for overlays in SETS
        for service in services(overlays).values()
        if service["image"].startswith("circadian/")
    }
    assert {image.partition(":")[2] for image in images} == {version}
    assert dockerfile().stages["controller"].of("ARG")[0].value == f"VERSION={version}"
