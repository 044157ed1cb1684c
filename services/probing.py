"""Probes of the registry: as a night is given them, and as a run asks for them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError
from sqlalchemy import select
from sqlalchemy.orm import Session

from circadian.specs import UserProbe
from services.errors import Problem, at_fault
from services.sleep_template import GateOverride
from services.tables import Deployment, Json, Probe, ProbeRun, new_id


def spec_of(id: str, spec: Json) -> UserProbe:
    """A probe that was checked when it was stored."""
    return UserProbe.model_validate({"id": id, **spec})


def for_night(tx: Session, deployment: str, gates: Sequence[GateOverride] = ()) -> list[UserProbe]:
    """What a night's candidate is held against: the deployment's probes that have a limit, or are given one by the sleep.

    Raises Problem: 404 for a probe that the deployment has not, 422 for a limit that it cannot have.
    """
    rows = list(tx.scalars(select(Probe).where(Probe.deployment == deployment).order_by(Probe.number)))
    known, given = {row.id for row in rows}, {gate.probe: (i, gate) for i, gate in enumerate(gates)}
    for gate in gates:
        if gate.probe not in known:
            raise Problem(404, "probe_not_found", f"The deployment has no probe {gate.probe!r}.", param="gates")
    probes = [_with(spec_of(row.id, row.spec), *given[row.id]) if row.id in given else spec_of(row.id, row.spec) for row in rows]
    return [probe for probe in probes if probe.judged]


def _with(probe: UserProbe, place: int, gate: GateOverride) -> UserProbe:
    """The probe with the limits of one sleep."""
    limits: dict[str, Any] = {"threshold": gate.min, "max_regression": gate.max_regression}
    try:
        return UserProbe.model_validate(probe.model_dump() | {name: value for name, value in limits.items() if value is not None})
    except ValidationError as error:
        raise at_fault(("gates", str(place)), error.errors()[0]["msg"]) from error


def ask_for_run(tx: Session, probe: Probe, version: str | None) -> ProbeRun:
    """A run, queued. Raises Problem (409) for a version that does not serve: only what serves answers."""
    active = tx.scalars(select(Deployment.active_version).where(Deployment.id == probe.deployment)).one()
    if version not in (None, active):
        detail = f"Version {version} does not serve, {active} does; promote it first, or leave `version` out."
        raise Problem(409, "version_not_active", detail, param="version")
    row = ProbeRun(id=new_id("prun"), deployment=probe.deployment, probe=probe.id, spec=probe.spec, version=active)
    tx.add(row)
    tx.flush()
    return row
