"""The chart's life for tests: helm as an operator runs it, on an API in memory, and what an operator makes before it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any, Literal

import yaml

from tests.helm.kube_api import KubeApi
from tests.helm.kube_kinds import Object, kind_of
from tests.helm.tools import helm

ROOT = Path(__file__).parents[2]
CHART = ROOT / "helm" / "circadian"
MINIMAL = CHART / "ci" / "minimal-values.yaml"
"""Secrets and a database of one's own, and so a migration before each upgrade."""
OLDEST, NEWEST = "1.31", "1.37"
"""The releases of Kubernetes that the chart supports."""
HELMS: list[tuple[Literal[3, 4], str]] = [(3, OLDEST), (4, NEWEST)]
NAMESPACE = "models"
COMMAND_SECONDS = 120.0
TIMEOUT = "60s"
"""Of helm's own waiting, where it has something to wait for."""
SECRETS = {
    "circadian-secrets": ("key_pepper", "signing_key", "api_key"),
    "circadian-database": ("database_url",),
    "hub": ("token",),
    "ray-token": ("auth_token",),
    "ray-redis": ("password",),
    "judges": ("JUDGE_KEY",),
}
"""That the value files refer to, with the keys that the chart's values name."""
CLAIMS = ("circadian-home", "models")
PRIORITIES = ("serving", "sleeping")


def prepare(api: KubeApi, labels: dict[str, str] | None = None) -> None:
    """The namespace, with its labels, and what value files take for granted in it."""
    api.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": labels or {}}})
    for name, keys in SECRETS.items():
        metadata = {"name": name, "namespace": NAMESPACE}
        api.create({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": dict.fromkeys(keys, "given")})
    for name in CLAIMS:
        spec = {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Gi"}}}
        metadata = {"name": name, "namespace": NAMESPACE}
        api.create({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata, "spec": spec})
    for name in PRIORITIES:
        api.create({"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": name}, "value": 1000})


class Helm:
    """One of the two, on one API; release is the release's name."""

    def __init__(self, version: Literal[3, 4], api: KubeApi, folder: Path, release: str = "night") -> None:
        self.version, self.release = version, release
        self._api = api
        self._binary = helm(version)
        self._folder = folder
        self._env = {"HOME": str(folder), "KUBECONFIG": str(api.kubeconfig(folder)), "PATH": "/usr/bin:/bin"}

    def __call__(self, *arguments: str | Path, fails: bool = False) -> str:
        """What it prints on both streams; AssertionError where it ends otherwise than was said."""
        command = [str(self._binary), *map(str, arguments), "--namespace", NAMESPACE]
        ended = subprocess.run(command, env=self._env, capture_output=True, text=True, timeout=COMMAND_SECONDS, cwd=self._folder)
        said = ended.stdout + ended.stderr
        assert (ended.returncode != 0) == fails, "\n".join([" ".join(command[1:]), said, *self._api.waiting()])
        return said if fails else ended.stdout

    def install(self, *arguments: str | Path, fails: bool = False) -> str:
        return self("install", self.release, CHART, "--wait", "--timeout", TIMEOUT, *arguments, fails=fails)

    def upgrade(self, *arguments: str | Path, fails: bool = False) -> str:
        return self("upgrade", self.release, CHART, "--wait", "--timeout", TIMEOUT, *arguments, fails=fails)

    def history(self) -> list[tuple[int, str]]:
        """Revision and status of each."""
        return [(each["revision"], each["status"]) for each in json.loads(self("history", self.release, "-o", "json"))]

    def manifest(self) -> list[Object]:
        """What the release says it is made of."""
        return [each for each in yaml.safe_load_all(self("get", "manifest", self.release)) if each]


def found(api: KubeApi, value: Object) -> Object:
    """The object of the API that one of a manifest became."""
    kind = kind_of(value)
    assert kind is not None, f"no kind {value['apiVersion']} {value['kind']}"
    return api.get(kind.kind, value["metadata"]["name"], NAMESPACE if kind.namespaced else "")


def holds(there: Any, said: Any) -> bool:
    """Whether an object has all that a manifest says, and perhaps more that a server added."""
    if isinstance(said, dict) and isinstance(there, dict):
        return all(name in there and holds(there[name], each) for name, each in said.items() if each is not None)
    if isinstance(said, list) and isinstance(there, list):
        return len(there) == len(said) and all(map(holds, there, said))
    return bool(there == said)


def controller(api: KubeApi) -> Object:
    """The Deployment of the only release."""
    (found,) = (each for each in api.all("Deployment", NAMESPACE) if each["metadata"]["name"].endswith("-controller"))
    return found


def controllers(api: KubeApi) -> list[Object]:
    """Its pods."""
    return [each for each in api.all("Pod", NAMESPACE) if each["metadata"]["name"].startswith(controller(api)["metadata"]["name"])]


def image(value: Object) -> str:
    """That all containers of a workload come from."""
    (name,) = {each["image"] for each in value["spec"]["template"]["spec"]["containers"]}
    return str(name)
