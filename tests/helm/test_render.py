"""Every values file renders, the same each time and with both helms, into objects that a cluster takes."""

from __future__ import annotations

import re
import subprocess
from typing import get_args

import kubernetes_validate  # type: ignore[import-not-found, unused-ignore]
import pytest

from tests.helm.chart import CHART, NAMES, RELEASE, Version, objects, of_kind, one, template, text, values_file
from tests.helm.schemas import CUSTOM, check_core, faults
from tests.helm.tools import helm

OLDEST, NEWEST = "1.31", "1.37"
HELMS = get_args(Version)
PLACES = {"laptop-cpu", "one-gpu", "gpu-production", "external-database", "openshift", "minimal"}


def test_there_is_a_values_file_for_each_place() -> None:
    assert set(NAMES) >= PLACES


@pytest.mark.parametrize("version", HELMS)
@pytest.mark.parametrize("name", NAMES)
def test_helm_finds_nothing_to_complain_of(name: str, version: Version) -> None:
    command = [helm(version), "lint", "--strict", CHART, "--values", values_file(name), "--set", "ray.skipCapabilityCheck=true"]
    told = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert told.returncode == 0, told.stdout + told.stderr
    assert "0 chart(s) failed" in told.stdout
    assert "WARN" not in told.stdout + told.stderr


@pytest.mark.parametrize("name", NAMES)
def test_both_helms_render_the_same(name: str) -> None:
    assert _by_identity(text(name, 3)) == _by_identity(text(name, 4))


@pytest.mark.parametrize("name", NAMES)
def test_two_renderings_are_the_same(name: str) -> None:
    assert template("--values", values_file(name)).stdout == text(name)


@pytest.mark.parametrize("kubernetes", [OLDEST, NEWEST])
@pytest.mark.parametrize("name", NAMES)
def test_core_objects_are_valid_in_the_oldest_and_the_newest_kubernetes(name: str, kubernetes: str) -> None:
    core = [object for object in objects(name) if object["kind"] not in CUSTOM]
    assert len(core) > 5
    for object in core:
        check_core(object, kubernetes)


def test_an_unknown_field_of_a_core_object_is_found() -> None:
    service = one("minimal", "Service", "-controller")
    with pytest.raises(kubernetes_validate.ValidationError):
        check_core(service | {"spec": service["spec"] | {"typo": 1}}, NEWEST)


@pytest.mark.parametrize("name", NAMES)
def test_custom_objects_are_valid(name: str) -> None:
    custom = [object for object in objects(name) if object["kind"] in CUSTOM]
    assert "RayCluster" in {object["kind"] for object in custom}
    assert {f"{object['kind']}: {fault}" for object in custom for fault in faults(object)} == set()


def test_an_unknown_field_of_a_custom_object_is_found() -> None:
    cluster = one("minimal", "RayCluster")
    assert faults(cluster | {"spec": cluster["spec"] | {"headGroupSpecs": {}}})


def test_the_schemas_of_everything_custom_are_asked_in_production() -> None:
    made = {object["kind"] for object in objects("gpu-production")}
    assert made >= set(CUSTOM) - {"RayJob"}, "a night's is asked in test_night_clusters.py"


@pytest.mark.parametrize("name", NAMES)
def test_every_object_has_its_namespace_and_no_two_are_the_same(name: str) -> None:
    identities = [(object["kind"], object["metadata"]["name"]) for object in objects(name)]
    assert len(set(identities)) == len(identities)
    ours = [object for object in objects(name) if not object["metadata"]["name"].endswith("-notes")]
    assert {object["metadata"].get("namespace") for object in ours} == {"dreams"}


def test_without_kuberay_nothing_is_rendered_unless_that_is_wanted() -> None:
    refused = template("--values", values_file("minimal"), kuberay=False)
    assert refused.returncode == 1
    assert "install the KubeRay operator" in refused.stderr
    asked = template("--values", values_file("minimal"), "--set", "ray.skipCapabilityCheck=true", kuberay=False)
    assert asked.returncode == 0, asked.stderr


def test_the_least_needs_no_custom_resources_but_kuberays() -> None:
    assert {object["kind"] for object in objects("minimal")} & set(CUSTOM) == {"RayCluster"}


@pytest.mark.parametrize(
    ("name", "said", "unsaid"),
    [
        (
            "laptop-cpu",
            ["port-forward svc/day-circadian-controller", "WARNING: postgres.dev", "WARNING: secrets.keepInHome"],
            ["Ingress"],
        ),
        (
            "external-database",
            ["URL=https://circadian.example.com", "get secret day-circadian-secrets"],
            ["WARNING", "grep 'API key'"],
        ),
        ("gpu-production", ["get secret ray-token", "circadian.example.com", "get secret circadian-secrets "], ["WARNING"]),
        ("minimal", ["get secret day-circadian -o jsonpath='{.data.auth_token}'", "circadian sleep first"], ["WARNING"]),
    ],
)
def test_the_notes_tell_how_to_begin(name: str, said: list[str], unsaid: list[str]) -> None:
    """By helm 4: helm 3 asks a cluster even where nothing is to be installed."""
    command = [helm(4), "install", RELEASE, CHART, "--namespace", "dreams", "--values", values_file(name)]
    command += ["--dry-run=client", "--set", "ray.skipCapabilityCheck=true"]
    told = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert told.returncode == 0, told.stderr
    notes = told.stdout.partition("NOTES:")[2]
    assert [part for part in said if part not in notes] == []
    assert [part for part in unsaid if part in notes] == []
    assert not re.search(r"<no value>|%!", notes)


def test_objects_of_ones_own_are_templates() -> None:
    assert one("external-database", "ConfigMap", f"{RELEASE}-notes")["data"] == {"owner": "models"}


def test_a_mirror_stands_before_every_image() -> None:
    production = [line.split("image: ")[1] for line in text("gpu-production").splitlines() if line.strip().startswith("image: ")]
    assert production
    assert all(re.fullmatch(r"registry\.example\.com/mirror/circadian/\w+@sha256:[0-9a-f]{64}", image) for image in production)
    mirrored = template("--values", values_file("laptop-cpu"), "--set", "global.imageRegistry=mirror.local/")
    assert "image: mirror.local/postgres:17\n" in mirrored.stdout


def test_what_is_created_by_hooks_needs_nothing_that_is_created_later() -> None:
    hooks = [object for object in objects("external-database") if _is_hook(object, "pre-install")]
    assert {object["kind"] for object in hooks} == {"Job", "NetworkPolicy", "Secret"}
    job = one("external-database", "Job")
    [mounted] = [volume["secret"]["secretName"] for volume in job["spec"]["template"]["spec"]["volumes"] if "secret" in volume]
    [secret] = [object for object in hooks if object["kind"] == "Secret"]
    assert secret["metadata"]["name"] == mounted
    weights = {object["kind"]: int(object["metadata"]["annotations"]["helm.sh/hook-weight"]) for object in hooks}
    assert max(weights["Secret"], weights["NetworkPolicy"]) < weights["Job"]
    assert "serviceAccountName" not in job["spec"]["template"]["spec"]


def test_a_trials_controllers_migrate_themselves() -> None:
    assert of_kind("laptop-cpu", "Job") == []
    assert 'CIRCADIAN_DATABASE_MIGRATES, value: "true"' in text("laptop-cpu")
    assert 'CIRCADIAN_DATABASE_MIGRATES, value: "false"' in text("minimal")


def _is_hook(object: dict, when: str) -> bool:
    return when in object["metadata"].get("annotations", {}).get("helm.sh/hook", "").split(",")


def _by_identity(rendered: str) -> list[str]:
    """The documents, in an order that is not helm's."""
    return sorted(part.strip() for part in re.split(r"^---$", rendered, flags=re.M))
