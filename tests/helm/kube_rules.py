"""What an API server refuses though it fits the schema: names, labels, sizes, references within a pod, and changes of what may not change.

A selection, of what a chart gets wrong; each function yields (path, message) as the server words it.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import Any

from tests.helm.kube_kinds import Kind, Object

Fault = tuple[str, str]
LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
LABEL_1035 = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
QUALIFIED = re.compile(r"([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]")
DATA_KEY = re.compile(r"[-._a-zA-Z0-9]+")
VARIABLE = re.compile(r"[-._a-zA-Z][-._a-zA-Z0-9]*")
PORT_NAME = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?")
QUANTITY = re.compile(r"([+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+))(m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei|[eE][+-]?[0-9]+)?")
SUFFIXES = {"m": Decimal("0.001"), **{suffix: Decimal(1000) ** at for at, suffix in enumerate("kMGTPE", 1)}}
SUFFIXES |= {f"{suffix}i": Decimal(1024) ** at for at, suffix in enumerate("KMGTPE", 1)}
LONGEST_LABEL, LONGEST_NAME = 63, 253
ANNOTATION_BYTES, DATA_BYTES = 256 * 1024, 1024 * 1024
LABEL_NAMES = ("Service", "Namespace")
"""Whose names are one label of DNS."""
HANDLERS = ("httpGet", "exec", "tcpSocket", "grpc")
TEMPLATES = {
    "Deployment": "Always",
    "StatefulSet": "Always",
    "DaemonSet": "Always",
    "ReplicaSet": "Always",
    "Job": "Never OnFailure",
}
"""Which restart policies the pods of each may have."""
STATEFUL_MAY_CHANGE = (
    "minReadySeconds",
    "ordinals",
    "persistentVolumeClaimRetentionPolicy",
    "replicas",
    "revisionHistoryLimit",
    "template",
    "updateStrategy",
)
CLAIM_MAY_CHANGE = ("resources", "volumeAttributesClassName")


def faults(kind: Kind, value: Object) -> Iterator[Fault]:
    yield from _metadata(kind, value["metadata"])
    if kind.kind in ("ConfigMap", "Secret"):
        yield from _data(value)
    if kind.kind == "Service":
        yield from _service(value["spec"])
    if kind.kind == "HorizontalPodAutoscaler" and value["spec"].get("minReplicas", 1) > value["spec"]["maxReplicas"]:
        yield "spec.maxReplicas", "must be greater than or equal to `minReplicas`"
    if kind.kind == "PodDisruptionBudget" and {"minAvailable", "maxUnavailable"} <= value["spec"].keys():
        yield "spec", "minAvailable and maxUnavailable cannot be both set"
    if kind.kind == "Pod":
        yield from pod(value["spec"], "spec", "Always Never OnFailure")
    if kind.kind in TEMPLATES:
        yield from _template(kind, value["spec"])


def changes(kind: Kind, old: Object, new: Object) -> Iterator[Fault]:
    """What an update may not do."""
    before, after = old.get("spec", {}), new.get("spec", {})
    if kind.kind in ("Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "Job") and before.get("selector") != after.get(
        "selector"
    ):
        yield "spec.selector", "field is immutable"
    if kind.kind == "StatefulSet" and _without(before, STATEFUL_MAY_CHANGE) != _without(after, STATEFUL_MAY_CHANGE):
        yield "spec", f"updates to statefulset spec for fields other than {', '.join(STATEFUL_MAY_CHANGE)} are forbidden"
    if kind.kind == "PersistentVolumeClaim" and _without(before, CLAIM_MAY_CHANGE) != _without(after, CLAIM_MAY_CHANGE):
        yield "spec", "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims"
    if kind.kind == "Job":
        for field in ("template", "completions", "completionMode", "podFailurePolicy", "backoffLimitPerIndex"):
            if before.get(field) != after.get(field):
                yield f"spec.{field}", "field is immutable"
    if kind.kind in ("RoleBinding", "ClusterRoleBinding") and old.get("roleRef") != new.get("roleRef"):
        yield "roleRef", "cannot change roleRef"
    if kind.kind == "Secret" and old.get("type", "Opaque") != new.get("type", "Opaque"):
        yield "type", "field is immutable"
    if kind.kind in ("Secret", "ConfigMap") and old.get("immutable") and old.get("data") != new.get("data"):
        yield "data", "field is immutable when `immutable` is set"
    if kind.kind == "Service" and after.get("clusterIP", before.get("clusterIP")) != before.get("clusterIP"):
        yield "spec.clusterIP", "field is immutable"
    if kind.kind == "Pod" and _pod_fixed(before) != _pod_fixed(after):
        yield "spec", "pod updates may not change fields other than `spec.containers[*].image` and a few others"


def _without(spec: Object, names: tuple[str, ...]) -> Object:
    return {name: each for name, each in spec.items() if name not in names}


def _pod_fixed(spec: Object) -> Object:
    containers = [{**each, "image": None} for each in spec.get("containers", [])]
    return {**_without(spec, ("activeDeadlineSeconds", "tolerations", "initContainers")), "containers": containers}


def _metadata(kind: Kind, metadata: Object) -> Iterator[Fault]:
    name = metadata["name"]
    form, longest = (LABEL, LONGEST_LABEL) if kind.kind in LABEL_NAMES else (SUBDOMAIN, LONGEST_NAME)
    form = LABEL_1035 if kind.kind == "Service" else form
    longest = LONGEST_LABEL if kind.kind == "Job" else longest
    if kind.group != "rbac.authorization.k8s.io" and not form.fullmatch(name):
        yield (
            "metadata.name",
            f"Invalid value: {name!r}: a lowercase RFC 1123 name must consist of lower case letters, digits, '-' or '.'",
        )
    if len(name) > longest:
        yield "metadata.name", f"Invalid value: {name!r}: must be no more than {longest} characters"
    yield from labels(metadata.get("labels") or {}, "metadata.labels")
    annotations = metadata.get("annotations") or {}
    for key in annotations:
        yield from _qualified(key.lower(), "metadata.annotations")
    if sum(len(key) + len(str(each).encode()) for key, each in annotations.items()) > ANNOTATION_BYTES:
        yield "metadata.annotations", f"Too long: may not be more than {ANNOTATION_BYTES} bytes"


def labels(values: Object, path: str) -> Iterator[Fault]:
    for key, value in values.items():
        yield from _qualified(key, path)
        if value and (len(value) > LONGEST_LABEL or not QUALIFIED.fullmatch(value)):
            yield path, f"Invalid value: {value!r}: a valid label must be at most 63 letters, digits, '-', '_' or '.'"


def _qualified(key: str, path: str) -> Iterator[Fault]:
    prefix, slash, name = key.rpartition("/")
    if len(name) > LONGEST_LABEL or not QUALIFIED.fullmatch(name) or (slash and not SUBDOMAIN.fullmatch(prefix)):
        yield (
            path,
            f"Invalid value: {key!r}: a qualified name has an optional prefix and at most 63 letters, digits, '-', '_' or '.'",
        )


def _data(value: Object) -> Iterator[Fault]:
    data = {**(value.get("data") or {}), **(value.get("stringData") or {}), **(value.get("binaryData") or {})}
    for key in data:
        if not DATA_KEY.fullmatch(key) or len(key) > LONGEST_NAME:
            yield f"data[{key}]", f"Invalid value: {key!r}: a valid config key must consist of letters, digits, '-', '_' or '.'"
    if value["kind"] == "Secret":
        for key, content in (value.get("data") or {}).items():
            try:
                base64.b64decode(content or "", validate=True)
            except binascii.Error:
                yield f"data[{key}]", "illegal base64 data"
    if sum(len((each or "").encode()) for each in data.values()) > DATA_BYTES:
        yield "data", f"Too long: may not be more than {DATA_BYTES} bytes"


def _service(spec: Object) -> Iterator[Fault]:
    ports = spec.get("ports") or []
    if not ports and spec.get("clusterIP") != "None" and spec.get("type") != "ExternalName":
        yield "spec.ports", "Required value"
    if len(ports) > 1 and any(not port.get("name") for port in ports):
        yield "spec.ports[].name", "Required value"
    yield from _twice([port["name"] for port in ports if port.get("name")], "spec.ports[].name")
    yield from _twice([(port.get("protocol", "TCP"), port["port"]) for port in ports], "spec.ports[]")


def _template(kind: Kind, spec: Object) -> Iterator[Fault]:
    template = spec["template"]
    of_template = (template.get("metadata") or {}).get("labels") or {}
    yield from labels(of_template, "spec.template.metadata.labels")
    selector = spec.get("selector") or {}
    if kind.kind != "Job" and not (selector.get("matchLabels") or selector.get("matchExpressions")):
        yield "spec.selector", "Invalid value: empty selector is invalid"
    if any(of_template.get(key) != each for key, each in (selector.get("matchLabels") or {}).items()):
        yield "spec.template.metadata.labels", "Invalid value: `selector` does not match template `labels`"
    claims = [each["metadata"]["name"] for each in spec.get("volumeClaimTemplates") or []]
    yield from pod(template.get("spec") or {}, "spec.template.spec", TEMPLATES[kind.kind], claims)


def pod(spec: Object, path: str, restarts: str, claims: Sequence[str] = ()) -> Iterator[Fault]:
    """restarts: the policies that it may have. claims: volumes that a StatefulSet gives it."""
    if spec.get("restartPolicy", "Always") not in restarts.split():
        yield f"{path}.restartPolicy", f"Unsupported value: {spec.get('restartPolicy', 'Always')!r}: supported values: {restarts}"
    volumes = [each["name"] for each in spec.get("volumes") or []]
    yield from _twice(volumes, f"{path}.volumes[].name")
    for volume in spec.get("volumes") or []:
        if len(volume) != 2:
            yield f"{path}.volumes[{volume['name']}]", "exactly one kind of volume must be given"
    containers = [*(spec.get("initContainers") or []), *(spec.get("containers") or [])]
    if not spec.get("containers"):
        yield f"{path}.containers", "Required value"
    yield from _twice([each["name"] for each in containers], f"{path}.containers[].name")
    for each in containers:
        yield from _container(each, f"{path}.containers[{each['name']}]", [*volumes, *claims])


def _container(value: Object, path: str, volumes: list[str]) -> Iterator[Fault]:
    if not LABEL.fullmatch(value["name"]) or len(value["name"]) > LONGEST_LABEL:
        yield f"{path}.name", f"Invalid value: {value['name']!r}"
    if not value.get("image") or value["image"] != value["image"].strip():
        yield f"{path}.image", "Required value"
    mounts = value.get("volumeMounts") or []
    for mount in mounts:
        if mount["name"] not in volumes:
            yield f"{path}.volumeMounts[].name", f"Not found: {mount['name']!r}"
    yield from _twice([mount["mountPath"] for mount in mounts], f"{path}.volumeMounts[].mountPath")
    names = [port["name"] for port in value.get("ports") or [] if port.get("name")]
    yield from _twice(names, f"{path}.ports[].name")
    for name in names:
        if len(name) > 15 or not PORT_NAME.fullmatch(name) or not re.search("[a-z]", name):
            yield f"{path}.ports[].name", f"Invalid value: {name!r}: at most 15 lower case letters, digits and '-'"
    for variable in value.get("env") or []:
        if not VARIABLE.fullmatch(variable["name"]):
            yield f"{path}.env[].name", f"Invalid value: {variable['name']!r}"
        if variable.get("value") and variable.get("valueFrom"):
            yield f"{path}.env[{variable['name']}].valueFrom", "may not be specified when `value` is not empty"
    for probe in ("livenessProbe", "readinessProbe", "startupProbe"):
        if value.get(probe) and sum(handler in value[probe] for handler in HANDLERS) != 1:
            yield f"{path}.{probe}", "must specify exactly one handler type"
    yield from _resources(value.get("resources") or {}, f"{path}.resources")


def _resources(value: Object, path: str) -> Iterator[Fault]:
    limits, requests = value.get("limits") or {}, value.get("requests") or {}
    for name, quantity in {**limits, **requests}.items():
        if amount(quantity) is None:
            yield f"{path}[{name}]", f"Invalid value: {quantity!r}: quantities must match the regular expression"
    for name, quantity in requests.items():
        asked, most = amount(quantity), amount(limits.get(name, quantity))
        if asked is not None and most is not None and asked > most:
            yield f"{path}.requests[{name}]", f"Invalid value: must be less than or equal to {name} limit"
    for name in limits.keys() | requests.keys():
        if "/" in name and amount(limits.get(name)) != amount(requests.get(name, limits.get(name))):
            yield f"{path}[{name}]", "limits must be set for non overcommitable resources, and requests must equal them"


def amount(quantity: Any) -> Decimal | None:
    """Of a quantity such as 500m or 8Gi; None for what is none."""
    match = QUANTITY.fullmatch(str(quantity))
    if match is None:
        return None
    suffix = match[2] or ""
    return Decimal(match[1]) * (SUFFIXES.get(suffix) or Decimal(f"1{suffix}"))


def _twice(values: list[Any], path: str) -> Iterator[Fault]:
    for value in sorted({each for each in values if values.count(each) > 1}):
        yield path, f"Duplicate value: {value!r}"
