"""The objects of the API for tests: written by clients under the rules of a server, read by version, watched as events, owned by managers.

Everything happens under one lock; after each write the controllers (kube_control) have their turn, so what a client reads next is settled.
"""

from __future__ import annotations

import base64
import copy
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from tests.helm import kube_merge, kube_rules, kube_schemas
from tests.helm.kube_kinds import Kind, Object, named

CLUSTER = ""
"""The namespace of what has none."""
KEPT = ("uid", "creationTimestamp", "generation", "deletionTimestamp", "managedFields", "selfLink")
"""The metadata that an update leaves as it is, whatever it says."""


class Key(NamedTuple):
    kind: Kind
    namespace: str
    name: str


class Event(NamedTuple):
    version: int
    type: str
    key: Key
    value: Object


class Write(NamedTuple):
    """What a client asked for and got: create, update, patch, apply or delete."""

    verb: str
    kind: str
    namespace: str
    name: str
    manager: str


Snapshot = tuple[dict[Key, Object], dict[Key, kube_merge.Owners], int]


class Refused(Exception):
    """What the server answers instead of an object."""

    def __init__(self, code: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.code, self.reason, self.message = code, reason, message

    def status(self) -> Object:
        said = {"status": "Failure", "message": self.message, "reason": self.reason, "code": self.code}
        return {"kind": "Status", "apiVersion": "v1", "metadata": {}, **said}


def not_found(key: Key) -> Refused:
    return Refused(404, "NotFound", f'{key.kind.resource} "{key.name}" not found')


class Store:
    def __init__(self, release: str, settle: Callable[[Store], None]) -> None:
        """release: of Kubernetes, such as "1.34". settle: what the controllers do after a write."""
        self.release = release
        self.lock = threading.RLock()
        self.changed = threading.Condition(self.lock)
        self.events: list[Event] = []
        self.writes: list[Write] = []
        self._objects: dict[Key, Object] = {}
        self._owners: dict[Key, kube_merge.Owners] = {}
        self._version = 0
        self._settle = settle
        self._settling = False

    def snapshot(self) -> Snapshot:
        """For `begin`, of another store."""
        with self.lock:
            return copy.deepcopy((self._objects, self._owners, self._version))

    def begin(self, snapshot: Snapshot) -> None:
        """Goes on from where another was; nobody has written here yet."""
        with self.lock:
            self._objects, self._owners, self._version = copy.deepcopy(snapshot)
            self.events.clear()
            self.writes.clear()

    # Reading

    @property
    def version(self) -> int:
        return self._version

    def find(self, key: Key) -> Object | None:
        with self.lock:
            found = self._objects.get(key)
            return None if found is None else copy.deepcopy(found)

    def get(self, key: Key) -> Object:
        found = self.find(key)
        if found is None:
            raise not_found(key)
        return found

    def all(self, kind: Kind, namespace: str | None = None) -> list[Object]:
        """By name; namespace: None for all."""
        with self.lock:
            keys = sorted(key for key in self._objects if key.kind == kind and namespace in (None, key.namespace))
            return [copy.deepcopy(self._objects[key]) for key in keys]

    def owners(self, key: Key) -> dict[str, set[Any]]:
        with self.lock:
            return {manager: set(paths) for manager, paths in self._owners[key].items()}

    # Writing

    def create(self, key: Key, value: Object, manager: str, verb: str = "create", dry: bool = False) -> Object:
        with self.lock:
            if key.kind.namespaced and key.kind.kind != "Namespace":
                self._namespace(key.namespace)
            if key in self._objects:
                raise Refused(409, "AlreadyExists", f'{key.kind.resource} "{key.name}" already exists')
            value = self._named(key, copy.deepcopy(value))
            value["metadata"] |= {"uid": str(uuid.uuid4()), "creationTimestamp": now(), "generation": 1}
            if "status" in key.kind.subresources:
                value.pop("status", None)
            self._check(key, value)
            self._default(key, value)
            owners = kube_merge.owned_by_update({}, value, manager, {}, self._root(key))
            return value if dry else self._write(key, "ADDED", value, owners, verb, manager)

    def update(self, key: Key, value: Object, manager: str, verb: str = "update", part: str = "", dry: bool = False) -> Object:
        """part: status, where it is written alone."""
        with self.lock:
            old = self.get(key)
            value = self._named(key, copy.deepcopy(value))
            asked = value["metadata"].get("resourceVersion")
            if asked and asked != old["metadata"]["resourceVersion"]:
                message = f'Operation cannot be fulfilled on {key.kind.resource} "{key.name}": the object has been modified'
                raise Refused(409, "Conflict", message)
            new = self._joined(key, old, value, part)
            owners = kube_merge.owned_by_update(old, new, manager, self._owners[key], self._root(key))
            return self._replace(key, old, new, owners, verb, manager, dry)

    def apply(self, key: Key, value: Object, manager: str, force: bool, dry: bool = False) -> Object:
        """Server-side; creates what is not there."""
        with self.lock:
            value = self._named(key, copy.deepcopy(value))
            old = self.find(key)
            if old is None:
                return self.create(key, value, manager, "apply", dry)
            try:
                merged, owners = kube_merge.apply(old, value, manager, self._owners[key], self._root(key), force)
            except kube_merge.Conflict as conflict:
                message = f'Apply failed with 1 conflict: conflict with "{conflict.manager}": {conflict.field()}'
                raise Refused(409, "Conflict", message) from conflict
            return self._replace(key, old, self._joined(key, old, merged, part=""), owners, "apply", manager, dry)

    def delete(self, key: Key, manager: str, orphan: bool = False, uid: str | None = None, dry: bool = False) -> Object:
        """orphan: what it owns stays."""
        with self.lock:
            old = self.get(key)
            if uid is not None and uid != old["metadata"]["uid"]:
                raise Refused(409, "Conflict", f"the UID in the precondition ({uid}) does not match {old['metadata']['uid']}")
            if not dry:
                self._remove(key, orphan)
                self._told("delete", key, manager)
            return old

    def set_status(self, key: Key, status: Object) -> bool:
        """What a controller says of an object; whether that is new."""
        with self.lock:
            old = self._objects[key]
            if old.get("status") == status:
                return False
            self._put(key, "MODIFIED", {**old, "status": status}, self._owners[key])
            return True

    def settle(self) -> None:
        """Lets the controllers look again, after something changed that no client wrote."""
        with self.lock:
            if not self._settling:
                self._settling = True
                try:
                    self._settle(self)
                finally:
                    self._settling = False

    # Below

    def _replace(self, key: Key, old: Object, new: Object, owners: kube_merge.Owners, verb: str, manager: str, dry: bool) -> Object:
        if new != old:
            self._check(key, new)
            self._refuse(key, list(kube_rules.changes(key.kind, old, new)))
        if dry:
            return new
        if new == old:
            self._owners[key] = owners
            return old
        return self._write(key, "MODIFIED", new, owners, verb, manager)

    def _write(self, key: Key, type: str, value: Object, owners: kube_merge.Owners, verb: str, manager: str) -> Object:
        """As it was written; the controllers may have gone on from there."""
        self._put(key, type, value, owners)
        written = copy.deepcopy(self.events[-1].value)
        self._told(verb, key, manager)
        return written

    def _namespace(self, name: str) -> None:
        if Key(named("Namespace"), CLUSTER, name) not in self._objects:
            raise Refused(404, "NotFound", f'namespaces "{name}" not found')

    def _root(self, key: Key) -> kube_schemas.Node:
        return kube_schemas.root(self.release, key.kind)

    def _named(self, key: Key, value: Object) -> Object:
        """With the name that it is written under; refused where it says another."""
        if (value.get("apiVersion", key.kind.api_version), value.get("kind", key.kind.kind)) != (
            key.kind.api_version,
            key.kind.kind,
        ):
            said = f"{value.get('apiVersion')}, Kind={value.get('kind')}"
            raise Refused(
                400, "BadRequest", f"the API version and kind in the data ({said}) do not match the endpoint ({key.kind.resource})"
            )
        metadata = dict(value.get("metadata") or {})
        for field, asked in (("name", key.name), ("namespace", key.namespace)):
            if metadata.get(field) and metadata[field] != asked:
                message = f"the {field} of the object ({metadata[field]}) does not match the {field} on the URL ({asked})"
                raise Refused(400, "BadRequest", message)
            if asked:
                metadata[field] = asked
        return {**value, "apiVersion": key.kind.api_version, "kind": key.kind.kind, "metadata": metadata}

    def _joined(self, key: Key, old: Object, value: Object, part: str) -> Object:
        """What an update makes of an object: status and the rest are written apart, where the kind has a status of its own."""
        if part == "status":
            return {**old, "status": value.get("status")}
        new = dict(value)
        if "status" in key.kind.subresources:
            new = {name: each for name, each in value.items() if name != "status"} | {
                name: each for name, each in old.items() if name == "status"
            }
        metadata = {name: each for name, each in value["metadata"].items() if name not in KEPT}
        new["metadata"] = metadata | {name: each for name, each in old["metadata"].items() if name in (*KEPT, "resourceVersion")}
        self._default(key, new, old)
        if new.get("spec") != old.get("spec"):
            new["metadata"] = {**new["metadata"], "generation": old["metadata"]["generation"] + 1}
        return new

    def _check(self, key: Key, value: Object) -> None:
        found = kube_schemas.problems(self.release, key.kind, value)
        for problem in found:
            if problem.unknown:
                message = f"{key.kind.kind} in version {key.kind.version!r} cannot be handled as a {key.kind.kind}: strict decoding error: "
                raise Refused(400, "BadRequest", f"{message}{problem.path}: {problem.message}")
        self._refuse(key, [(problem.path, problem.message) for problem in found] or list(kube_rules.faults(key.kind, value)))

    def _refuse(self, key: Key, faults: list[kube_rules.Fault]) -> None:
        if faults:
            said = "; ".join(f"{path}: {message}" for path, message in faults)
            raise Refused(422, "Invalid", f'{key.kind.kind} "{key.name}" is invalid: {said}')

    def _default(self, key: Key, value: Object, old: Object | None = None) -> None:
        """The few defaults of a server that clients look at."""
        if key.kind.kind == "Service" and value["spec"].get("type") != "ExternalName" and "clusterIP" not in value["spec"]:
            kept = (old or {}).get("spec", {}).get("clusterIP") or f"10.96.0.{self._version % 250 + 1}"
            value["spec"] = {**value["spec"], "clusterIP": kept}
        if key.kind.kind in ("Deployment", "StatefulSet", "ReplicaSet") and "replicas" not in value["spec"]:
            value["spec"] = {**value["spec"], "replicas": 1}
        if key.kind.kind == "Secret" and value.get("stringData"):
            coded = {name: base64.b64encode(each.encode()).decode() for name, each in value.pop("stringData").items()}
            value["data"] = {**(value.get("data") or {}), **coded}

    def _put(self, key: Key, type: str, value: Object, owners: kube_merge.Owners) -> None:
        self._version += 1
        value = copy.deepcopy(value)
        value["metadata"]["resourceVersion"] = str(self._version)
        self._objects[key], self._owners[key] = value, owners
        self.events.append(Event(self._version, type, key, value))
        self.changed.notify_all()
        if value["metadata"].get("deletionTimestamp") and not value["metadata"].get("finalizers"):
            self._remove(key, orphan=False)

    def _remove(self, key: Key, orphan: bool) -> None:
        old = self._objects[key]
        if old["metadata"].get("finalizers"):
            if "deletionTimestamp" not in old["metadata"]:
                self._put(key, "MODIFIED", {**old, "metadata": {**old["metadata"], "deletionTimestamp": now()}}, self._owners[key])
            return
        self._version += 1
        del self._objects[key], self._owners[key]
        last = copy.deepcopy(old)
        last["metadata"]["resourceVersion"] = str(self._version)
        self.events.append(Event(self._version, "DELETED", key, last))
        self.changed.notify_all()
        for below in list(self._below(key, old, orphan)):
            if below in self._objects:
                self._remove(below, orphan=False)

    def _below(self, key: Key, old: Object, orphan: bool) -> Iterator[Key]:
        """What goes with an object: what it owns, and what is in a namespace."""
        for other, value in self._objects.items():
            owned = any(owner["uid"] == old["metadata"]["uid"] for owner in value["metadata"].get("ownerReferences") or [])
            if (owned and not orphan) or (key.kind.kind == "Namespace" and other.namespace == key.name):
                yield other

    def _told(self, verb: str, key: Key, manager: str) -> None:
        if not self._settling:
            self.writes.append(Write(verb, key.kind.kind, key.namespace, key.name, manager))
        self.settle()


def now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
