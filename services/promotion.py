"""Which version a deployment serves, and who may change that. Functions on a transaction; rollouts.py brings the replicas after it.

    candidate --promote--> active --another is promoted, or rolled back to--> retired --promote--> active
    candidate --reject--> rejected          (a night's own gate rejects, too)
    any but the first --revoke--> revoked   with all that came of it; it never serves again

Every change is a rollout, and at most one of a deployment runs. Promotion waits for nobody: while another rollout or a sleep is under way
it is refused. A way back is never refused for that: it ends the rollout that runs, and the night that would go on from what is left.
A version that did not pass its gates, or that was rejected, is promoted only by somebody who may pass over gates, who must say why.
"""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from circadian.specs import CanarySpec
from services import audit, lineage, outbox, registry
from services.errors import Problem, not_found
from services.tables import Deployment, Json, Rollout, Sleep, UntoldTrace, Version, new_id
from services.trace_context import begun, here

RUNNING = "running"
GONE = ("revoked", "deleted")
"""States of versions that never serve again."""
REVOCABLE = "a deployment's first version holds nothing that could be revoked, and there is none before it"


@dataclass(frozen=True)
class Will:
    """Who wants something of a version, and why."""

    by: str
    """A key's id, or audit.CONTROLLER."""
    reason: str | None = None
    expected: str | None = None
    """The version that must be active for it to be done; None: whichever is."""


def promote(tx: Session, version: Version, will: Will, canary: CanarySpec | None = None, override: bool = False) -> Rollout:
    """Let a version serve: now, or first to a share of the clients. Raises Problem (409, 412)."""
    deployment = locked(tx, version.deployment)
    tx.refresh(version)
    check_expected(deployment, will)
    check_free(tx, deployment)
    if version.status in ("active", "revoked", "deleted"):
        raise Problem(409, f"version_{version.status}", f"{version.id} is {version.status}; promote another one.")
    failed = [gate for gate in version.gates if not gate["passed"]]
    if version.status == "rejected" and not failed:
        failed = [{"name": "rejected", "passed": False, "value": None, "limit": None, "message": "it was rejected"}]
    if failed and not override:
        why = "; ".join(gate["message"] for gate in failed)
        raise Problem(409, "gates_failed", f"{version.id} may not serve: {why}.")
    if override and not will.reason:
        raise Problem(422, "validation_failed", "reason: say why the gates are passed over", param="reason")
    rollout = begin(tx, deployment, "promotion", version.id, will, canary=canary, overridden=failed if override else [])
    if canary is None:
        activate(tx, deployment, version.id)
    return rollout


def roll_back(tx: Session, deployment_id: str, to_version: str | None, kind: str, will: Will) -> Rollout:
    """Let an earlier version serve again: the one named, or the youngest ancestor that may. Raises Problem (409, 412)."""
    deployment = locked(tx, deployment_id)
    check_expected(deployment, will)
    target = _earlier(tx, deployment, to_version)
    if running := running_rollout(tx, deployment.id):
        end(tx, running, "aborted", f"a {kind} came in between")
        withdraw_canary(tx, deployment)
    condemn_night(tx, deployment, target)
    rollout = begin(tx, deployment, kind, target, will)
    activate(tx, deployment, target)
    return rollout


def revoke(tx: Session, version: Version, will: Will, kind: str = "revocation") -> Rollout | None:
    """The version and all that came of it never serve again; where one of them does, its youngest clean ancestor does from now on.

    Raises Problem (409): the first version cannot be revoked.
    """
    deployment = locked(tx, version.deployment)
    if version.parent is None:
        raise Problem(409, "no_previous_version", f"{version.id} cannot be revoked: {REVOCABLE}.")
    gone = lineage.descendants(tx, deployment.id, [version.id])
    tx.execute(update(Version).where(Version.id.in_(gone), Version.status != "deleted").values(status="revoked"))
    outbox.tell(tx, deployment, "version.revoked", f"{version.id} never serves again", {"versions": gone, "reason": will.reason})
    if deployment.active_version not in gone:
        stand_down(tx, deployment, gone, f"{version.id} was revoked")
        return None
    return roll_back(tx, deployment.id, None, kind, will)


def stand_down(tx: Session, deployment: Deployment, gone: Collection[str], why: str) -> None:
    """What would let one of these versions serve ends: the rollout to it, and the night that went on from what is not active now."""
    running = running_rollout(tx, deployment.id)
    if running is not None and running.to_version in gone:
        end(tx, running, "aborted", why)
        withdraw_canary(tx, deployment)
    condemn_night(tx, deployment, deployment.active_version)


def reject(tx: Session, version: Version) -> None:
    """A candidate is not to be promoted. Raises Problem (409)."""
    deployment = locked(tx, version.deployment)
    tx.refresh(version)
    running = running_rollout(tx, deployment.id)
    if version.status not in ("candidate", "rejected") or (running is not None and running.to_version == version.id):
        raise Problem(409, "version_in_use", f"{version.id} is {version.status}, and only a candidate can be rejected; revoke it.")
    version.status = "rejected"


# What the leading controller does of it


def begin(
    tx: Session,
    deployment: Deployment,
    kind: str,
    to_version: str,
    will: Will,
    canary: CanarySpec | None = None,
    overridden: list[Json] | None = None,
) -> Rollout:
    """A rollout that runs. Raises Problem: 409 where another one does, 404 where the deployment is being deleted."""
    if deployment.deleting_at is not None:
        raise not_found("deployment", deployment.id)
    row = Rollout(
        id=new_id("roll"),
        deployment=deployment.id,
        kind=kind,
        strategy="canary" if canary else "immediate",
        from_version=deployment.active_version,
        to_version=to_version,
        was=tx.scalars(select(Version.status).where(Version.id == to_version)).one(),
        status=RUNNING,
        reason=will.reason,
        started_by=will.by,
        overridden=overridden or [],
        canary=canary.model_dump(mode="json") if canary else None,
        trace=begun(),
        asked_trace=here(),
    )
    try:
        with tx.begin_nested():
            tx.add(row)
    except IntegrityError as error:  # two at once, on a database that lets both look first
        raise in_progress(deployment, "another rollout") from error
    return row


def activate(tx: Session, deployment: Deployment, version: str) -> None:
    """The version is the active one from now on, and what it keeps is what the deployment knows. The deployment must be locked."""
    before, deployment.active_version = deployment.active_version, version
    retired = update(Version).where(Version.id == before, Version.status == "active")
    tx.execute(retired.values(status="retired"))
    tx.execute(update(Version).where(Version.id == version).values(status="active"))
    tx.flush()
    lineage.follow(tx, deployment.id, before, version)


def put_back(tx: Session, rollout: Rollout, why: str) -> None:
    """The replicas did not take the version: as before it. Where what served before was revoked meanwhile, its youngest clean ancestor
    serves, by a rollout of its own."""
    deployment = locked(tx, rollout.deployment)
    end(tx, rollout, "failed", why)
    if deployment.active_version != rollout.to_version:
        return
    before = rollout.from_version
    if tx.scalars(select(Version.status).where(Version.id == before)).one() in GONE:
        before = _youngest_clean(tx, deployment, before)
        begin(tx, deployment, "revocation", before, Will(audit.CONTROLLER, f"{rollout.from_version} was revoked"))
    activate(tx, deployment, before)
    status = update(Version).where(Version.id == rollout.to_version, Version.status == "retired")
    tx.execute(status.values(status=rollout.was))


def end(tx: Session, rollout: Rollout, status: str, error: str | None = None) -> None:
    rollout.status, rollout.error, rollout.finished_at = status, error, time.time()
    if rollout.trace is not None:
        tx.merge(UntoldTrace(object=rollout.id, deployment=rollout.deployment))
    tx.flush()


def withdraw_canary(tx: Session, deployment: Deployment) -> None:
    """Clients are answered by the active version alone from now on."""
    deployment.canary = None
    tx.flush()


def condemn_night(tx: Session, deployment: Deployment, active: str) -> None:
    """A night over another version than this one ends: what it would make could never serve. Its experiences are free again then."""
    sleep = registry.active_sleep(tx, deployment.id)
    if sleep is None or sleep.parent_version == active or sleep.error is not None:
        return
    sleep = registry.locked_sleep(tx, sleep.id)
    if sleep.result_version is None:
        message = f"the deployment went from {sleep.parent_version} to {active} while it slept"
        sleep.error = {"code": "parent_changed", "message": message, "category": "user", "retryable": True}


def running_rollout(tx: Session, deployment_id: str) -> Rollout | None:
    return tx.scalar(select(Rollout).where(Rollout.deployment == deployment_id, Rollout.status == RUNNING))


def note(tx: Session, deployment: Deployment, action: str, object: str, **data: Any) -> None:
    """In the audit log, as the controller's own doing."""
    audit.note_own(tx, deployment.tenant, action, object, **data)


def locked(tx: Session, deployment_id: str) -> Deployment:
    """The deployment, held until the transaction ends."""
    statement = select(Deployment).where(Deployment.id == deployment_id).with_for_update(of=Deployment)
    return tx.scalars(statement.execution_options(populate_existing=True)).one()


def check_expected(deployment: Deployment, will: Will) -> None:
    if will.expected is not None and deployment.active_version != will.expected:
        detail = f"{deployment.name} serves {deployment.active_version}, not {will.expected}; look again and decide anew"
        raise Problem(412, "etag_mismatch", detail, param="expected_active_version")


def check_free(tx: Session, deployment: Deployment) -> None:
    """Raises Problem (409) while a rollout or a sleep is under way."""
    if running := running_rollout(tx, deployment.id):
        raise in_progress(deployment, running.id)
    sleep: Sleep | None = registry.active_sleep(tx, deployment.id)
    if sleep is not None:
        detail = f"{deployment.name} is in {sleep.id}, which goes on from the active version; wait for its end, or cancel it first."
        raise Problem(409, "sleep_in_progress", detail)


def in_progress(deployment: Deployment, running: str) -> Problem:
    return Problem(409, "rollout_in_progress", f"{deployment.name} is being brought to another version by {running} already.")


def _earlier(tx: Session, deployment: Deployment, wanted: str | None) -> str:
    """The version to go back to. Raises Problem (409, 422)."""
    rows = tx.execute(select(Version.id, Version.status).where(Version.deployment == deployment.id))
    states = {id: status for id, status in rows}  # noqa: C416  # rows are no pairs for dict()
    if wanted is not None:
        if wanted not in states:
            raise Problem(422, "validation_failed", f"to_version: {deployment.name} has no version {wanted}", param="to_version")
        if states[wanted] not in ("retired", "candidate"):
            detail = f"to_version: {wanted} is {states[wanted]}; go back to one that has served"
            raise Problem(409, f"version_{states[wanted]}", detail, param="to_version")
        if states[wanted] == "candidate":
            detail = f"to_version: {wanted} has never served; promote it instead, so that its gates are asked"
            raise Problem(409, "version_candidate", detail, param="to_version")
        return wanted
    return _youngest_clean(tx, deployment, deployment.active_version)


def _youngest_clean(tx: Session, deployment: Deployment, version: str) -> str:
    """Of the version's ancestors. Raises Problem (409)."""
    chain = lineage.ancestry(tx, deployment.id, version)[1:]
    gone = set(tx.scalars(select(Version.id).where(Version.id.in_(chain), Version.status.in_(GONE))))
    clean = [id for id in chain if id not in gone]
    if not clean:
        raise Problem(409, "no_previous_version", f"{version} is the first version of {deployment.name}.")
    return clean[0]
