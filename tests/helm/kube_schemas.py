"""The schemas of a release of Kubernetes and of custom kinds: whether an object fits, strictly, and how its lists and maps merge.

Those of Kubernetes ship with the package kubernetes-validate, those of KubeRay and the others lie in ../shared/crds; a custom kind whose
schema is not there is taken as it is. Rules that a schema in JSON cannot say (CEL) are not looked at."""

from __future__ import annotations

import importlib
import json
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import jsonschema
import yaml
from referencing import Registry, Resource

from tests.helm.kube_kinds import CUSTOM, Kind, Object

CRDS = Path(__file__).parents[2].parent / "shared" / "crds"
REF = "#/$defs/"
FAST = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""A megabyte of YAML takes seconds otherwise."""
METADATA = {"$ref": "/api/_definitions.json#/$defs/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"}


class Problem(NamedTuple):
    path: str
    message: str
    unknown: bool
    """A field that the kind does not have."""


def problems(version: str, kind: Kind, value: Object) -> list[Problem]:
    """What is wrong with an object, for a release such as "1.34"; the first first."""
    schema = _schema(version, kind)
    if schema is None:
        return []
    return sorted(_told(error) for error in _validator(version, kind).iter_errors(value))


def _told(error: jsonschema.ValidationError) -> Problem:
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in error.absolute_path).lstrip(".")
    return Problem(path, error.message, error.validator == "additionalProperties")


def is_there(kind: Kind) -> bool:
    """Whether there is a schema of it, so that `problems` says something."""
    return kind.group not in CUSTOM or _custom(kind) is not None


@cache
def _validator(version: str, kind: Kind) -> jsonschema.Draft202012Validator:
    schema = _schema(version, kind)
    assert schema is not None
    definitions = Resource.from_contents(_definitions(version))
    registry: Registry[Any] = definitions @ Registry()
    registry = registry.with_resource("/api/_definitions.json", definitions)
    return jsonschema.Draft202012Validator(schema, registry=registry)


@cache
def _definitions(version: str) -> Object:
    folder = _folder(version)
    return json.loads((folder / "_definitions.json").read_text())


def _folder(version: str) -> Path:
    package = Path(str(importlib.import_module("kubernetes_validate").__file__)).parent
    (folder,) = (package / "kubernetes-json-schema").glob(f"v{version}.*-local-strict")
    return folder


@cache
def _schema(version: str, kind: Kind) -> Object | None:
    if kind.group in CUSTOM:
        return _custom(kind)
    api = "-".join([kind.kind.lower(), *([kind.group.split(".")[0]] if kind.group else []), kind.version])
    return json.loads((_folder(version) / f"{api}.json").read_text())


@cache
def _custom(kind: Kind) -> Object | None:
    """Of a custom kind, with what an API server adds to it: fields that it does not name are refused."""
    crd, plain = CRDS / f"{kind.group}_{kind.plural}.yaml", CRDS / f"{kind.kind.lower()}_{kind.version}.json"
    if crd.exists():
        versions = yaml.load(crd.read_text(), Loader=FAST)["spec"]["versions"]
        schema = next(each["schema"]["openAPIV3Schema"] for each in versions if each["name"] == kind.version)
    elif plain.exists():
        schema = json.loads(plain.read_text())
    else:
        return None
    strict = _strict(schema)
    strict["properties"] |= {"metadata": METADATA, "apiVersion": {"enum": [kind.api_version]}, "kind": {"enum": [kind.kind]}}
    strict["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    return strict


def _strict(schema: Any, closed: bool = True) -> Any:
    """OpenAPI's words in those of JSON Schema, and no field that has no name, as structural schemas are pruned. closed: not where it says
    more of an object whose fields are named elsewhere."""
    if isinstance(schema, list):
        return [_strict(each, closed) for each in schema]
    if not isinstance(schema, dict):
        return schema
    said = {
        key: _strict(each, closed and key not in ("anyOf", "oneOf", "allOf", "not"))
        for key, each in schema.items()
        if key not in ("properties", "format", "default", "example")
    }
    if "properties" in schema:
        said["properties"] = {name: _strict(each, closed) for name, each in schema["properties"].items()}
        if closed and "additionalProperties" not in schema and not schema.get("x-kubernetes-preserve-unknown-fields"):
            said["additionalProperties"] = False
    if schema.get("x-kubernetes-int-or-string"):
        said.pop("type", None)
        said["anyOf"] = [{"type": "integer"}, {"type": "string"}]
    if schema.get("nullable") and isinstance(said.get("type"), str):
        said["type"] = [said["type"], "null"]
    return said


class Node:
    """A place in a kind's schema, for who merges: what is below it, and how lists and maps there are held together."""

    def __init__(self, version: str, schema: Any) -> None:
        self.version = version
        self.schema: Object = schema if isinstance(schema, dict) else {}
        reference = self.schema.get("$ref", "")
        if REF in reference:
            self.schema = {**_definitions(version)["$defs"][reference.partition(REF)[2]], **self.schema}

    def below(self, name: str) -> Node:
        properties = self.schema.get("properties", {})
        return Node(self.version, properties.get(name, self.schema.get("additionalProperties")))

    @property
    def items(self) -> Node:
        return Node(self.version, self.schema.get("items"))

    @property
    def merge_key(self) -> str | None:
        """Of a list that a strategic merge patch merges."""
        return self.schema.get("x-kubernetes-patch-merge-key") if self.merges else None

    @property
    def merges(self) -> bool:
        return "merge" in self.schema.get("x-kubernetes-patch-strategy", "").split(",")

    @property
    def list_keys(self) -> list[str]:
        """By which the items of a list are told apart in server-side apply; none where the list is one value."""
        return self.schema.get("x-kubernetes-list-map-keys", []) if self.schema.get("x-kubernetes-list-type") == "map" else []

    @property
    def is_set(self) -> bool:
        return self.schema.get("x-kubernetes-list-type") == "set"

    @property
    def atomic(self) -> bool:
        return self.schema.get("x-kubernetes-map-type") == "atomic"


@cache
def root(version: str, kind: Kind) -> Node:
    return Node(version, _schema(version, kind))
