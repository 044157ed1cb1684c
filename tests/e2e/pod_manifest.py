"""What a pod's manifest says, with everything that it refers to looked up: the command, the environment, the files, the rights.

Pure but for the folders of volumes. What is not understood is refused by name, so that nothing of a manifest is passed over in silence.
"""

from __future__ import annotations

import base64
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Object = dict[str, Any]
REFERENCE = re.compile(r"\$\$|\$\(([A-Za-z_][A-Za-z0-9_.-]*)\)")
PATH_OF_A_MAP = re.compile(r"metadata\.(labels|annotations)\['(.+)'\]")
UNITS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}
MEMORY_BYTES = 4 * 1024**3
"""Of a volume in memory that has no limit."""
POD_FIELDS = {
    *(
        "affinity",
        "automountServiceAccountToken",
        "containers",
        "enableServiceLinks",
        "imagePullSecrets",
        "initContainers",
        "nodeSelector",
    ),
    *(
        "priorityClassName",
        "restartPolicy",
        "securityContext",
        "serviceAccountName",
        "terminationGracePeriodSeconds",
        "tolerations",
    ),
    *("activeDeadlineSeconds", "runtimeClassName", "shareProcessNamespace", "topologySpreadConstraints", "volumes"),
}
"""What a pod's spec may have here. Where pods are put is not decided here, nor what they are pulled with."""
SECURITY_FIELDS = {
    *(
        "allowPrivilegeEscalation",
        "capabilities",
        "fsGroup",
        "fsGroupChangePolicy",
        "readOnlyRootFilesystem",
        "runAsGroup",
        "runAsNonRoot",
    ),
    *("runAsUser", "seccompProfile", "supplementalGroups"),
}
"""Of pods and of containers. Profiles of seccomp are not honoured."""
CONTAINER_FIELDS = {
    *(
        "args",
        "command",
        "env",
        "envFrom",
        "image",
        "imagePullPolicy",
        "lifecycle",
        "livenessProbe",
        "name",
        "ports",
        "readinessProbe",
    ),
    *("resources", "restartPolicy", "securityContext", "startupProbe", "volumeMounts", "workingDir"),
    *("terminationMessagePath", "terminationMessagePolicy"),
}


class NotInManifest(Exception):
    """A pod refers to what is not there, so that Kubernetes would not start it, or asks for what these tests do not know."""


@dataclass(frozen=True)
class Image:
    """What an image brings, put together from this machine."""

    folders: Mapping[str, Path]
    """By their place in the container; read-only."""
    environment: Mapping[str, str]
    without: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Names that a folder of it has here but not in the image."""
    absent: Sequence[str] = ()
    """Paths of this machine's root, without the first slash, that the image has not."""
    user: int = 1000
    group: int = 1000
    workdir: str = "/"
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()


@dataclass(frozen=True)
class Pod:
    """metadata and spec as a manifest has them, and where it lives."""

    name: str
    namespace: str
    metadata: Object
    spec: Object
    address: str

    @property
    def labels(self) -> dict[str, str]:
        return self.metadata.get("labels") or {}

    @property
    def security(self) -> Object:
        return self.spec.get("securityContext") or {}

    def check(self) -> None:
        """Raises NotInManifest for a field that would be passed over."""
        _known(self.spec, POD_FIELDS, self.name)
        for container in [*self.spec.get("initContainers", []), *self.spec["containers"]]:
            _known(container, CONTAINER_FIELDS, f"{self.name}/{container['name']}")
            _known(
                {**self.security, **(container.get("securityContext") or {})}, SECURITY_FIELDS, f"{self.name}/{container['name']}"
            )


class Store:
    """Secrets and config maps by namespace and name, and one folder for each claim of storage."""

    def __init__(self, claims: Path, namespace: str) -> None:
        """claims: a folder for theirs. namespace: of objects that name none."""
        self._claims, self._namespace = claims, namespace
        self._maps: dict[tuple[str, str, str], dict[str, bytes]] = {}
        self._claimed: set[tuple[str, str, str]] = set()

    def add(self, objects: Iterable[Object]) -> None:
        for item in objects:
            key = (item["kind"], item["metadata"].get("namespace", self._namespace), item["metadata"]["name"])
            if item["kind"] in ("Secret", "ConfigMap"):
                self._maps[key] = _content(item)
            elif item["kind"] == "PersistentVolumeClaim":
                self._claimed.add(key)

    def map(self, kind: str, namespace: str, name: str, optional: bool = False) -> dict[str, bytes]:
        found = self._maps.get((kind, namespace, name))
        if found is None and not optional:
            raise NotInManifest(f"{kind} {namespace}/{name}")
        return found or {}

    def claim(self, namespace: str, name: str) -> Path:
        if ("PersistentVolumeClaim", namespace, name) not in self._claimed:
            raise NotInManifest(f"PersistentVolumeClaim {namespace}/{name}")
        folder = self._claims / f"{namespace}-{name}"
        folder.mkdir(mode=0o755, exist_ok=True)
        return folder


@dataclass(frozen=True)
class Volume:
    path: Path
    memory_bytes: int | None = None
    """In memory, if so: mounted by the pod's holder."""
    read_only: bool = False


def environment(pod: Pod, container: Object, image: Image, store: Store) -> dict[str, str]:
    """The image's, then envFrom, then env in its order; $(NAME) stands for what came before."""
    values = dict(image.environment)
    for source in container.get("envFrom", []):
        ((kind, reference),) = [
            (kind, source[key]) for kind, key in (("ConfigMap", "configMapRef"), ("Secret", "secretRef")) if key in source
        ]
        content = store.map(kind, pod.namespace, reference["name"], reference.get("optional", False))
        values |= {source.get("prefix", "") + name: value.decode() for name, value in content.items()}
    for variable in container.get("env") or []:
        if "valueFrom" not in variable:
            values[variable["name"]] = expand(str(variable.get("value") or ""), values)
        elif (value := _value_from(pod, container, variable["valueFrom"], store)) is not None:
            values[variable["name"]] = value
    return values


def command(container: Object, image: Image, values: Mapping[str, str]) -> list[str]:
    """A manifest's command does away with the image's command, too; its args alone do not do away with the entrypoint."""
    begin = container.get("command") or []
    rest = container.get("args") or []
    argv = [*begin, *rest] if begin else [*image.entrypoint, *(rest or image.command)]
    if not argv:
        raise NotInManifest(f"a command for {container['name']}")
    return [expand(str(word), values) for word in argv]


def expand(text: str, values: Mapping[str, str]) -> str:
    """$(NAME) by its value; $$ is one $; a name that is not known stays as it is written."""
    return REFERENCE.sub(lambda hit: "$" if hit[1] is None else values.get(hit[1], hit[0]), text)


def privileges(pod: Pod, container: Object, image: Image) -> list[str]:
    """Arguments of setpriv. Raises NotInManifest where a container must not be root and is."""
    context = {**pod.security, **(container.get("securityContext") or {})}
    user, group = int(context.get("runAsUser", image.user)), int(context.get("runAsGroup", image.group))
    if context.get("runAsNonRoot") and user == 0:
        raise NotInManifest(f"a user other than root for {pod.name}/{container['name']}")
    more = [*pod.security.get("supplementalGroups", []), *([pod.security["fsGroup"]] if "fsGroup" in pod.security else [])]
    arguments = [f"--reuid={user}", f"--regid={group}", f"--groups={','.join(map(str, more))}" if more else "--clear-groups"]
    capabilities = context.get("capabilities") or {}
    if capabilities.get("add"):
        raise NotInManifest("capabilities that are added")
    if capabilities.get("drop") == ["ALL"]:
        arguments += ["--bounding-set=-all", "--inh-caps=-all"]
    return arguments + (["--no-new-privs"] if context.get("allowPrivilegeEscalation") is False else [])


def read_only_root(container: Object) -> bool:
    return bool((container.get("securityContext") or {}).get("readOnlyRootFilesystem"))


def volumes(pod: Pod, store: Store, folder: Path) -> dict[str, Volume]:
    """Each volume of the pod, with what is in it, in folders below one that is the pod's alone."""
    group = pod.security.get("fsGroup")
    return {volume["name"]: _volume(pod, volume, store, folder / volume["name"], group) for volume in pod.spec.get("volumes", [])}


def quantity(text: str | int) -> int:
    """`64Mi` and the like, in bytes or whatever it counts; thousandths are rounded up."""
    if isinstance(text, str) and text.endswith("m"):
        return -(-int(text[:-1]) // 1000)
    number, unit = re.fullmatch(r"([0-9.]+)([A-Za-z]*)", str(text)).groups()  # type: ignore[union-attr]
    return int(float(number) * UNITS[unit])


def port_number(container: Object, port: str | int) -> int:
    """A port by its number or its name."""
    if isinstance(port, int):
        return port
    named = [item["containerPort"] for item in container.get("ports", []) if item.get("name") == port]
    if len(named) != 1:
        raise NotInManifest(f"port {port} of {container['name']}")
    return int(named[0])


def _volume(pod: Pod, volume: Object, store: Store, folder: Path, group: int | None) -> Volume:
    (kind,) = [key for key in volume if key != "name"]
    source = volume[kind] or {}
    if kind == "persistentVolumeClaim":
        path = store.claim(pod.namespace, source["claimName"])
        _own(path, group, 0o2775 if group is not None else 0o755)
        return Volume(path, read_only=source.get("readOnly", False))
    folder.mkdir(parents=True)
    if kind == "emptyDir":
        _own(folder, group, 0o2777 if group is not None else 0o777)
        limit = quantity(source["sizeLimit"]) if "sizeLimit" in source else MEMORY_BYTES
        return Volume(folder, limit if source.get("medium") == "Memory" else None)
    files = _files(pod, kind, source, store)
    for name, (content, mode) in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        _own(path, group, mode | 0o440 if group is not None else mode)
    for path in [folder, *(path for path in folder.rglob("*") if path.is_dir())]:
        _own(path, group, 0o2775 if group is not None else 0o755)
    return Volume(folder, read_only=True)


def _files(pod: Pod, kind: str, source: Object, store: Store) -> dict[str, tuple[bytes, int]]:
    """Of a volume that is made of an object: content and mode by name."""
    mode = source.get("defaultMode", 0o644)
    if kind == "projected":
        parts = [(key, {"defaultMode": mode, **part[key]}) for part in source["sources"] for key in part]
        return {name: file for key, part in parts for name, file in _files(pod, key, part, store).items()}
    if kind == "downwardAPI":
        return {
            item["path"]: (_field(pod, item["fieldRef"]["fieldPath"]).encode(), item.get("mode", mode)) for item in source["items"]
        }
    if kind not in ("secret", "configMap"):
        raise NotInManifest(f"volumes of the kind {kind}")
    name = source.get("secretName") or source.get("name")
    content = store.map("Secret" if kind == "secret" else "ConfigMap", pod.namespace, name, source.get("optional", False))
    if "items" not in source:
        return {key: (value, mode) for key, value in content.items()}
    missing = [item["key"] for item in source["items"] if item["key"] not in content]
    if missing and not source.get("optional"):
        raise NotInManifest(f"keys {missing} of {kind} {name}")
    return {item["path"]: (content[item["key"]], item.get("mode", mode)) for item in source["items"] if item["key"] in content}


def _value_from(pod: Pod, container: Object, source: Object, store: Store) -> str | None:
    """None where it is optional and missing."""
    if "fieldRef" in source:
        return _field(pod, source["fieldRef"]["fieldPath"])
    if "resourceFieldRef" in source:
        kind, _, name = source["resourceFieldRef"]["resource"].partition(".")
        amount = quantity(container["resources"][kind][name])
        return str(-(-amount // quantity(source["resourceFieldRef"].get("divisor", 1))))
    ((kind, reference),) = [
        (kind, source[key]) for kind, key in (("ConfigMap", "configMapKeyRef"), ("Secret", "secretKeyRef")) if key in source
    ]
    optional = reference.get("optional", False)
    content = store.map(kind, pod.namespace, reference["name"], optional)
    if reference["key"] not in content and not optional:
        raise NotInManifest(f"key {reference['key']} of {kind} {reference['name']}")
    return content[reference["key"]].decode() if reference["key"] in content else None


def _field(pod: Pod, path: str) -> str:
    if hit := PATH_OF_A_MAP.fullmatch(path):
        return str((pod.metadata.get(hit[1]) or {}).get(hit[2], ""))
    known = {
        "metadata.name": pod.name,
        "metadata.namespace": pod.namespace,
        "metadata.uid": f"uid-of-{pod.name}",
        "spec.nodeName": "this-machine",
        "spec.serviceAccountName": pod.spec.get("serviceAccountName", "default"),
        "status.podIP": pod.address,
        "status.podIPs": pod.address,
    }
    if path not in known:
        raise NotInManifest(f"field {path}")
    return known[path]


def _known(item: Object, fields: set[str], name: str) -> None:
    if unknown := sorted(set(item) - fields):
        raise NotInManifest(f"{name}: {unknown} is not understood by these tests")


def _content(item: Object) -> dict[str, bytes]:
    if item["kind"] == "ConfigMap":
        plain = {key: str(value).encode() for key, value in (item.get("data") or {}).items()}
        return plain | {key: base64.b64decode(value) for key, value in (item.get("binaryData") or {}).items()}
    given = {key: base64.b64decode(value) for key, value in (item.get("data") or {}).items()}
    return given | {key: str(value).encode() for key, value in (item.get("stringData") or {}).items()}


def _own(path: Path, group: int | None, mode: int) -> None:
    shutil.chown(path, 0, group if group is not None else 0)
    path.chmod(mode)
