"""Label and field selectors of lists and watches."""

from __future__ import annotations

import re
from typing import Any

from tests.helm.kube_kinds import Object

SET = re.compile(r"(\S+)\s+(in|notin)\s+\(([^)]*)\)")
COMMA = re.compile(r",(?![^(]*\))")
"""Between requirements, not within the values of one."""


def selected(value: Object, labels: str, fields: str) -> bool:
    has = value["metadata"].get("labels") or {}
    return all(_label(has, each.strip()) for each in COMMA.split(labels) if each.strip()) and all(
        _field(value, each.strip()) for each in fields.split(",") if each.strip()
    )


def _label(has: dict[str, str], requirement: str) -> bool:
    if match := SET.fullmatch(requirement):
        key, verb, values = match.groups()
        among = key in has and has[key] in [each.strip() for each in values.split(",")]
        return among == (verb == "in")
    if "!=" in requirement:
        key, _, wanted = requirement.partition("!=")
        return has.get(key.strip()) != wanted.strip()
    if "=" in requirement:
        key, _, wanted = requirement.replace("==", "=").partition("=")
        return has.get(key.strip()) == wanted.strip()
    return (requirement.lstrip("!") in has) != requirement.startswith("!")


def _field(value: Object, requirement: str) -> bool:
    differs = "!=" in requirement
    path, _, wanted = requirement.replace("!=", "=").replace("==", "=").partition("=")
    found: Any = value
    for name in path.split("."):
        found = found.get(name, "") if isinstance(found, dict) else ""
    return (str(found) == wanted) != differs
