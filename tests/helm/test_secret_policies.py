"""Secrets are by reference first, in files, and nowhere in plain text."""

from __future__ import annotations

import base64
import re

from tests.helm.chart import PodTemplate, every_file, every_pod, objects, of_kind, pods, text, values_file, variables

SECRET_ENDINGS = ("TOKEN", "SECRET", "KEY", "PASSWORD", "PASSWD", "CREDENTIALS", "PEPPER", "DATABASE_URL")


@every_file
def test_no_secret_is_in_plain_text(name: str) -> None:
    """Wherever it is rendered, a secret of the values is in a Secret's data, and there in base64."""
    given = re.findall(r"^\s+(?:apiKey|keyPepper|signingKey|url|password): \"?([^\"\n]+?)\"?$", _values(name), flags=re.M)
    for secret in (value for value in given if len(value) > 4):
        assert secret not in text(name)
        encoded = base64.b64encode(secret.encode()).decode()
        holders = {object["kind"] for object in objects(name) if encoded in str(object)}
        assert holders <= {"Secret"}


def test_the_search_for_secrets_finds_those_that_are_given() -> None:
    database = [s["data"]["database_url"] for s in of_kind("external-database", "Secret") if "database_url" in s["data"]]
    assert {base64.b64decode(url).decode().partition("@")[0] for url in database} == {
        "postgresql://circadian:replace-this-password"
    }
    assert "replace-this-password" in _values("external-database")


@every_file
def test_secrets_are_made_only_when_that_is_asked_for(name: str) -> None:
    made = {secret["metadata"]["name"].removeprefix("day-circadian-") for secret in of_kind(name, "Secret")}
    asked = {"laptop-cpu": {"postgres"}, "one-gpu": {"postgres"}, "external-database": {"secrets", "database", "migrate"}}
    assert made == asked.get(name, set())


@every_pod
def test_our_own_secrets_are_files(name: str, pod: PodTemplate) -> None:
    for container in pod.containers:
        plain = {key: value for key, value in variables(container).items() if key.endswith(SECRET_ENDINGS) and value}
        assert plain == {}
        by_reference = [v for v in container.get("env", []) if "secretKeyRef" in v.get("valueFrom", {})]
        assert by_reference == []
    for config in of_kind(name, "ConfigMap"):
        assert not [key for key in config["data"] if key.endswith(SECRET_ENDINGS)]


@every_file
def test_only_controllers_see_the_services_secrets(name: str) -> None:
    with_secrets = {
        pod.component
        for pod in pods(name)
        for container in pod.containers
        for mount in container["volumeMounts"]
        if mount["mountPath"] == "/etc/circadian/secrets" and container["name"] != "ray-node"
    }
    assert with_secrets <= {"controller", "migrate", "test"}
    for pod in pods(name):
        for volume in pod.spec.get("volumes", []):
            modes = [volume[kind].get("defaultMode") for kind in ("secret", "projected") if kind in volume]
            assert set(modes) <= {0o440}


@every_file
def test_pods_start_anew_when_their_settings_or_secrets_change(name: str) -> None:
    [controller] = [pod for pod in pods(name) if pod.component == "controller"]
    assert {"checksum/settings", "checksum/secrets"} <= set(controller.metadata["annotations"])


def _values(name: str) -> str:
    return values_file(name).read_text()
