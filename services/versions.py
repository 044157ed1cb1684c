"""Versions as they lie in their folders: whether one may still be read, and what one has that another has not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from sqlalchemy import select
from sqlalchemy.orm import Session

from circadian.memory.folder import MEMORY_FILE, VersionBroken
from circadian.memory.raw import parse_name, read_raw
from services import lineage, promotion
from services.errors import Problem
from services.settings import Settings
from services.signing import Signing
from services.tables import Deployment, Lineage, Rollout, Sleep, Version

MOST_IDS = 100
"""Experiences that a diff names; it counts them all."""


def check_folder(signing: Signing, settings: Settings, version: Version) -> None:
    """Raises Problem (409) where the version is not what was signed."""
    if version.status == "deleted":
        return  # the caller finds that out, and says it better
    try:
        signing.verify(settings.version_folder(version.deployment, version.id))
    except (VersionBroken, OSError) as error:
        raise Problem(409, "version_broken", f"{version.id} cannot serve: {error}") from error


def check_unused(tx: Session, version: Version) -> None:
    """Raises Problem (409) where somebody needs its files, or will."""
    deployment = promotion.locked(tx, version.deployment)
    running = tx.scalar(
        select(Rollout.id).where(
            Rollout.deployment == version.deployment,
            Rollout.status == promotion.RUNNING,
            (Rollout.from_version == version.id) | (Rollout.to_version == version.id),
        )
    )
    chain = lineage.ancestry(tx, version.deployment, deployment.active_version)
    used = "the deployment serves it" if chain[0] == version.id else f"{running} needs it" if running else ""
    if not used and version.id in chain[1:2]:
        used = "it is what the deployment would go back to"
    if used:
        raise Problem(409, "version_in_use", f"{version.id} cannot be removed: {used}.")


def diff(tx: Session, version: Version, other: Version) -> dict[str, Any]:
    """What `version` has that `other` has not, and the other way round."""
    here, there = _kept(tx, version), _kept(tx, other)
    added, removed = sorted(here - there), sorted(there - here)
    experts = {(one["level"], one["expert"], one["sleep"]): one for one in version.record["lineage"]}
    others = {(one["level"], one["expert"], one["sleep"]): one for one in other.record["lineage"]}
    return {
        "object": "version.diff",
        "version": version.id,
        "against": other.id,
        "experts": {
            "added": [one for place, one in experts.items() if place not in others],
            "removed": [one for place, one in others.items() if place not in experts],
        },
        "experience_added": {"count": len(added), "ids": added[:MOST_IDS]},
        "experience_removed": {"count": len(removed), "ids": removed[:MOST_IDS]},
        "gate_deltas": _deltas(version, other),
        "config_diff": _config(tx, version, other),
        "memory": _memory(tx, version, other),
        "weight_norms_by_module": {one.id: _norms(Path(one.folder)) for one in (version, other)},
    }


def _kept(tx: Session, version: Version) -> set[str]:
    chain = lineage.ancestry(tx, version.deployment, version.id)
    return set(tx.scalars(select(Lineage.experience).where(Lineage.version.in_(chain), Lineage.left_out.is_(None))))


def _deltas(version: Version, other: Version) -> dict[str, float]:
    """Of the gates that measured both: by how much the number is higher."""
    before = {gate["name"]: gate["value"] for gate in other.gates}
    return {
        gate["name"]: gate["value"] - before[gate["name"]]
        for gate in version.gates
        if isinstance(gate["value"], float | int) and isinstance(before.get(gate["name"]), float | int)
    }


def _config(tx: Session, version: Version, other: Version) -> dict[str, Any] | None:
    """What the recipes of their two nights say differently, by the way to each field; None where no night made one of them."""
    rows = tx.execute(select(Sleep.id, Sleep.recipe).where(Sleep.id.in_([version.sleep, other.sleep])))
    recipes = {id: _flat(recipe) for id, recipe in rows}
    if version.sleep not in recipes or other.sleep not in recipes:
        return None
    here, there = recipes[version.sleep], recipes[other.sleep]
    names = sorted(name for name in here.keys() | there.keys() if here.get(name) != there.get(name))
    return {name: {"version": here.get(name), "against": there.get(name)} for name in names}


def _flat(value: Any, way: str = "") -> dict[str, Any]:
    """A value by the way to it, such as `seeding.steps`; lists are whole."""
    if not isinstance(value, dict):
        return {way: value}
    pairs = ((f"{way}.{name}".lstrip("."), one) for name, one in value.items())
    return {path: found for name, one in pairs for path, found in _flat(one, name).items()}


def _memory(tx: Session, version: Version, other: Version) -> dict[str, Any]:
    """The memory's shape is the deployment's, and the same in all its versions."""
    spec = tx.scalars(select(Deployment.memory).where(Deployment.id == version.deployment)).one()
    return {"spec": spec, "sha256": version.record["memory_sha256"], "against_sha256": other.record["memory_sha256"]}


def _norms(folder: Path) -> dict[str, float] | None:
    """Frobenius norm of every written expert, over its layers; None where the files are gone."""
    squares: dict[str, float] = {}
    try:
        _, tensors = read_raw((folder / MEMORY_FILE).read_bytes())
    except (OSError, SafetensorError):
        return None
    for name, tensor in tensors.items():
        where = parse_name(name)[1]
        place = f"level-{where.level}/expert-{where.expert}"
        squares[place] = squares.get(place, 0.0) + float(np.square(tensor.floats(), dtype=np.float64).sum())
    return {place: round(total**0.5, 6) for place, total in sorted(squares.items())}
