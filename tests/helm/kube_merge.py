"""How a change becomes an object: JSON merge patch (RFC 7396), strategic merge patch, and server-side apply with owners of fields.

Lists merge by the keys that the schema names (kube_schemas.Node); without a schema a list is one value. A path is a tuple of names, of
items (their keys and values) and of members of sets; what a manager owns is a set of them."""

from __future__ import annotations

import copy
from typing import Any

from tests.helm.kube_kinds import Object
from tests.helm.kube_schemas import Node

Path = tuple[Any, ...]
Owners = dict[str, set[Path]]
"""Manager -> the paths that are its."""
FREE = (("apiVersion",), ("kind",))
"""What nobody owns."""
SERVERS = (
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "generation",
    "managedFields",
    "name",
    "namespace",
    "resourceVersion",
    "uid",
)
"""The metadata that the server keeps."""


class Item(tuple[tuple[str, Any], ...]):
    """A list's item, by its keys."""


class Member(tuple[Any]):
    """Of a set."""


class Conflict(Exception):
    """An apply that changes what another manager owns."""

    def __init__(self, manager: str, path: Path) -> None:
        super().__init__(manager, path)
        self.manager, self.path = manager, path

    def field(self) -> str:
        """As the server writes it: .spec.replicas."""
        return "".join(
            f"[{','.join(f'{key}={value!r}' for key, value in part)}]" if isinstance(part, Item) else f".{part}"
            for part in self.path
        )


def merge_patch(value: Any, patch: Any) -> Any:
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    merged = dict(value) if isinstance(value, dict) else {}
    for name, change in patch.items():
        if change is None:
            merged.pop(name, None)
        else:
            merged[name] = merge_patch(merged.get(name), change)
    return merged


def strategic(value: Any, patch: Any, node: Node) -> Any:
    if isinstance(patch, list):
        return _strategic_list(value if isinstance(value, list) else [], patch, node)
    if not isinstance(patch, dict):
        return patch
    if patch.get("$patch") == "replace":
        return {name: each for name, each in patch.items() if name != "$patch"}
    merged = dict(value) if isinstance(value, dict) else {}
    if "$retainKeys" in patch:
        merged = {name: each for name, each in merged.items() if name in patch["$retainKeys"]}
    for name, change in patch.items():
        directive, _, field = name.partition("/")
        if directive == "$deleteFromPrimitiveList":
            merged[field] = [each for each in merged.get(field, []) if each not in change]
        elif name.startswith("$"):
            continue  # $setElementOrder: the order of items carries no meaning that tests look at
        elif change is None or (isinstance(change, dict) and change.get("$patch") == "delete"):
            merged.pop(name, None)
        else:
            merged[name] = strategic(merged.get(name), change, node.below(name))
    return merged


def _strategic_list(value: list[Any], patch: list[Any], node: Node) -> list[Any]:
    key = node.merge_key
    replaces = any(isinstance(each, dict) and each.get("$patch") == "replace" for each in patch)
    if replaces or not node.merges:
        return [each for each in patch if not (isinstance(each, dict) and "$patch" in each)]
    if key is None:
        return value + [each for each in patch if each not in value]
    merged = list(value)
    for change in patch:
        at = next((index for index, each in enumerate(merged) if each.get(key) == change.get(key)), None)
        if change.get("$patch") == "delete":
            merged = [each for each in merged if each.get(key) != change.get(key)]
        elif at is None:
            merged.append(strategic({}, change, node.items))
        else:
            merged[at] = strategic(merged[at], change, node.items)
    return merged


def leaves(value: Any, node: Node, at: Path = ()) -> dict[Path, Any]:
    """Every value that can have an owner, by its path; an item of a list is one too, so that an item can be taken away whole."""
    if isinstance(value, dict) and value and not node.atomic:
        found: dict[Path, Any] = {}
        for name, each in value.items():
            if (*at, name) not in FREE and not (at == ("metadata",) and name in SERVERS) and (*at, name) != ("status",):
                found |= leaves(each, node.below(name), (*at, name))
        return found
    if isinstance(value, list) and node.list_keys:
        found = {}
        for each in value:
            key = item_key(each, node)
            found |= {(*at, key): None, **leaves(each, node.items, (*at, key))}
        return found
    if isinstance(value, list) and node.is_set:
        return {(*at, Member([each])): each for each in value}
    return {at: value}


def item_key(value: Object, node: Node) -> Item:
    return Item((key, value.get(key, "TCP" if key == "protocol" else None)) for key in node.list_keys)


def owned_by_update(before: Object, after: Object, manager: str, owners: Owners, node: Node) -> Owners:
    """After a write that is no apply: what it changed is its manager's alone."""
    old, new = leaves(before, node), leaves(after, node)
    changed = {path for path, value in new.items() if path not in old or old[path] != value}
    gone = old.keys() - new.keys()
    left = {name: paths - changed - gone for name, paths in owners.items()}
    return {**left, manager: left.get(manager, set()) | changed}


def apply(live: Object, applied: Object, manager: str, owners: Owners, node: Node, force: bool) -> tuple[Object, Owners]:
    """The object and the owners after a server-side apply; Conflict where another manager owns another value, unless it is forced."""
    wanted, there = leaves(applied, node), leaves(live, node)
    left = {name: set(paths) for name, paths in owners.items() if name != manager}
    for path, value in wanted.items():
        for name, paths in left.items():
            if path in paths and path in there and there[path] != value:
                if not force:
                    raise Conflict(name, path)
                paths.discard(path)
    others = set().union(*left.values())
    result = copy.deepcopy(live)
    for path in sorted(owners.get(manager, set()) - wanted.keys(), key=len):  # an item before what is in it
        if not _is_key(path) and not any(other[: len(path)] == path for other in others | wanted.keys()):
            _take_away(result, path, node)
    return _lay_over(result, applied, node), {**left, manager: set(wanted)}


def _is_key(path: Path) -> bool:
    """Whether it is what its item is known by, which goes with the item alone."""
    return len(path) > 1 and isinstance(path[-2], Item) and path[-1] in dict(path[-2])


def _take_away(value: Any, path: Path, node: Node) -> None:
    """Removes what is at a path, and the maps and lists that are empty then."""
    head, rest = path[0], path[1:]
    if isinstance(head, Item | Member):
        at = next((index for index, each in enumerate(value) if _is(each, head, node)), None)
        if at is None:
            return
        if not rest:
            del value[at]
        else:
            _take_away(value[at], rest, node.items)
    elif isinstance(value, dict) and head in value:
        if rest:
            _take_away(value[head], rest, node.below(head))
        if not rest or value[head] in ({}, []):
            del value[head]


def _is(value: Any, head: Item | Member, node: Node) -> bool:
    return value == head[0] if isinstance(head, Member) else item_key(value, node) == head


def _lay_over(value: Any, applied: Any, node: Node) -> Any:
    if isinstance(applied, dict) and isinstance(value, dict) and not node.atomic:
        return {**value, **{name: _lay_over(value.get(name), each, node.below(name)) for name, each in applied.items()}}
    if isinstance(applied, list) and isinstance(value, list) and node.list_keys:
        left = {item_key(each, node): each for each in value}
        for each in applied:
            key = item_key(each, node)
            left[key] = _lay_over(left.get(key), each, node.items)
        return list(left.values())
    if isinstance(applied, list) and isinstance(value, list) and node.is_set:
        return value + [each for each in applied if each not in value]
    return copy.deepcopy(applied)
