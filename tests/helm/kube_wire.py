"""What helm and kubectl send as protobuf, as the JSON that it stands for: Secrets, in which helm keeps releases, and a few more.

A body is `k8s\\0` and a runtime.Unknown (1: apiVersion and kind, 2: the object's own message). Field numbers are those of generated.proto
in k8s.io/api/core/v1 and k8s.io/apimachinery/pkg/apis/meta/v1; a field that is not in the tables here raises KeyError."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

from tests.helm.kube_kinds import Object

MAGIC = b"k8s\0"
MESSAGES: dict[str, dict[int, tuple[str, str]]] = {
    "ObjectMeta": {
        1: ("name", "text"),
        2: ("generateName", "text"),
        3: ("namespace", "text"),
        4: ("selfLink", "text"),
        5: ("uid", "text"),
        6: ("resourceVersion", "text"),
        7: ("generation", "number"),
        8: ("creationTimestamp", "drop"),
        11: ("labels", "texts"),
        12: ("annotations", "texts"),
        14: ("finalizers", "list"),
        17: ("managedFields", "drop"),
    },
    "Secret": {
        1: ("metadata", "ObjectMeta"),
        2: ("data", "bytes"),
        3: ("type", "text"),
        4: ("stringData", "texts"),
        5: ("immutable", "truth"),
    },
    "ConfigMap": {1: ("metadata", "ObjectMeta"), 2: ("data", "texts"), 3: ("binaryData", "bytes"), 4: ("immutable", "truth")},
    "Namespace": {1: ("metadata", "ObjectMeta"), 2: ("spec", "drop"), 3: ("status", "drop")},
    "PriorityClass": {
        1: ("metadata", "ObjectMeta"),
        2: ("value", "number"),
        3: ("globalDefault", "truth"),
        4: ("description", "text"),
        5: ("preemptionPolicy", "text"),
    },
    "DeleteOptions": {
        1: ("gracePeriodSeconds", "number"),
        2: ("preconditions", "Preconditions"),
        3: ("orphanDependents", "truth"),
        4: ("propagationPolicy", "text"),
        5: ("dryRun", "list"),
    },
    "Preconditions": {1: ("uid", "text"), 2: ("resourceVersion", "text")},
}


def decoded(body: bytes) -> Object:
    if not body.startswith(MAGIC):
        raise ValueError("a protobuf body of Kubernetes begins with k8s and a zero")
    unknown = dict(fields(body[len(MAGIC) :]))
    kind = {number: value.decode() for number, value in fields(unknown[1])}
    return {"apiVersion": kind[1], "kind": kind[2], **_message(unknown[2], kind[2])}


def _message(raw: bytes, name: str) -> Object:
    said: Object = {}
    for number, value in fields(raw):
        field, form = MESSAGES[name][number]
        if form in ("texts", "bytes"):
            entry = dict(fields(value))
            content = entry.get(2, b"")
            said.setdefault(field, {})[entry[1].decode()] = (
                base64.b64encode(content).decode() if form == "bytes" else content.decode()
            )
        elif form == "list":
            said.setdefault(field, []).append(value.decode())
        elif form in MESSAGES:
            said[field] = _message(value, form)
        elif form != "drop" and value != b"":
            said[field] = value.decode() if form == "text" else bool(value) if form == "truth" else value
    return said


def fields(raw: bytes) -> Iterator[tuple[int, Any]]:
    """Number and value of each field: bytes of those that have a length, integers of the others."""
    at = 0
    while at < len(raw):
        tag, at = _varint(raw, at)
        number, form = tag >> 3, tag & 7
        if form == 0:
            value, at = _varint(raw, at)
            yield number, value
        elif form == 2:
            length, at = _varint(raw, at)
            yield number, raw[at : at + length]
            at += length
        else:
            raise ValueError(f"field {number} has the wire type {form}, which no message here has")


def _varint(raw: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = raw[at]
        value |= (byte & 0x7F) << shift
        shift, at = shift + 7, at + 1
        if not byte & 0x80:
            return value, at
