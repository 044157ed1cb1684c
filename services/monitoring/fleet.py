"""Looked up at each scrape: replicas, versions, the levels of the memory, experiences that wait, webhooks."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from sqlalchemy import case, func, select
from sqlalchemy.orm import Session

from actors.wake_state import WakeState
from circadian import metrics
from circadian.memory.folder import version_state
from circadian.memory.state import ExpertState
from circadian.specs import Autoscale
from services import fast_registry, promotion, registry
from services.fleet import ServingSpec
from services.monitoring.told import Told
from services.online_plan import is_label
from services.serving import Serving
from services.states import BEFORE_DUSK
from services.tables import Deployment, ExperienceRow, Rollout, Version, WebhookDelivery, WebhookEndpoint

Names = dict[str, tuple[str, str]]
"""Tenant and name of each deployment, by its id."""
VERSION_STATES = ("candidate", "active", "retired", "rejected", "revoked")
WEBHOOK_STATES = ("pending", "delivered", "dead")
ROLLOUT_ENDS = ("succeeded", "failed", "aborted")
USED = (ExpertState.OPEN, ExpertState.SEALED)


def look(told: Told, tx: Session, serving: Serving, deployments: list[Deployment], now: float) -> None:
    """Everything of this file."""
    names: Names = {row.id: (row.tenant, row.name) for row in deployments}
    for row in deployments:
        _replicas(told, tx, serving, row, names[row.id])
    _versions(told, tx, names, now)
    _levels(told, deployments, serving)
    _rollouts(told, tx, names)
    _pending(told, tx, names, now)
    for row in deployments:
        _online(told, tx, row, names[row.id])
    _webhooks(told, tx)


def _replicas(told: Told, tx: Session, serving: Serving, row: Deployment, name: tuple[str, str]) -> None:
    sight, wake, night = serving.sights.get(row.id), _wake(serving, row.id), registry.active_sleep(tx, row.id)
    wanted = ServingSpec.model_validate(row.serving).replicas
    if wake is not None and wake.replicas is not None:
        wanted = wake.replicas
    told.tell(metrics.REPLICAS, sight.running if sight else 0, *name)
    told.tell(metrics.REPLICAS_WANTED, wanted.min if isinstance(wanted, Autoscale) else wanted, *name)
    chunks = row.fast.chunks if row.fast and row.fast.version == row.active_version else 0
    dusk = wake.version if wake is not None and night is not None and night.fast not in BEFORE_DUSK else None
    wrong = [said for said in (sight.versions if sight else ()) if said != dusk and not is_label(said, row.active_version, chunks)]
    told.tell(metrics.WRONG_VERSIONS, len(wrong), *name)


def _wake(serving: Serving, deployment: str) -> WakeState | None:
    """What is to be served; nothing is said about a file that is not there yet."""
    return serving.files.read(deployment) if serving.settings.wake_file(deployment).exists() else None


def _versions(told: Told, tx: Session, names: Names, now: float) -> None:
    for name in names.values():
        for status in VERSION_STATES:
            told.tell(metrics.VERSIONS, 0, *name, status)
    counted = select(Version.deployment, Version.status, func.count()).group_by(Version.deployment, Version.status)
    for id, status, count in tx.execute(counted.where(Version.deployment.in_(names))):
        told.tell(metrics.VERSIONS, count, *names[id], status)
    born = select(Deployment.id, Version.created_at).join(Version, Version.id == Deployment.active_version)
    for id, created_at in tx.execute(born.where(Deployment.id.in_(names))):
        told.tell(metrics.ACTIVE_VERSION_AGE, now - created_at, *names[id])


def _levels(told: Told, deployments: list[Deployment], serving: Serving) -> None:
    for row in deployments:
        for level, (used, places) in enumerate(_levels_of(serving.settings.version_folder(row.id, row.active_version))):
            told.tell(metrics.EXPERTS_USED, used, row.tenant, row.name, str(level))
            told.tell(metrics.EXPERT_PLACES, places, row.tenant, row.name, str(level))


def _levels_of(folder: Path) -> tuple[tuple[int, int], ...]:
    """Nothing of a version that cannot be read, this time."""
    try:
        return _held(folder)
    except (OSError, ValueError, KeyError):
        return ()


@lru_cache(maxsize=1024)
def _held(folder: Path) -> tuple[tuple[int, int], ...]:
    """Of each level the experts that a version holds, and how many there is room for. A version's folder never changes."""
    state = version_state(folder)
    return tuple((sum(expert in USED for expert in level), len(level)) for level in state.experts)


def _rollouts(told: Told, tx: Session, names: Names) -> None:
    for name in names.values():
        for kind in metrics.LABELS["kind"] or ():
            for outcome in ROLLOUT_ENDS:
                told.tell(metrics.ROLLOUTS, 0, *name, kind, outcome)
    counted = select(Rollout.deployment, Rollout.kind, Rollout.status, func.count())
    ended = counted.where(Rollout.status != promotion.RUNNING, Rollout.deployment.in_(names))
    for id, kind, status, count in tx.execute(ended.group_by(Rollout.deployment, Rollout.kind, Rollout.status)):
        told.tell(metrics.ROLLOUTS, count, *names[id], kind, status)


def _pending(told: Told, tx: Session, names: Names, now: float) -> None:
    """What the next night is offered."""
    waits = (ExperienceRow.status == "pending", ExperienceRow.consolidated_in.is_(None), ExperienceRow.left_out.is_(None))
    pending = waits[0] & waits[1] & waits[2]
    one = case((pending, 1), else_=0)
    sums = (func.sum(one), func.sum(one * ExperienceRow.tokens), func.min(case((pending, ExperienceRow.created_at))))
    rows = tx.execute(select(ExperienceRow.deployment, *sums).group_by(ExperienceRow.deployment))
    found = {deployment: (count, tokens, oldest) for deployment, count, tokens, oldest in rows}
    for id, name in names.items():
        count, tokens, oldest = found.get(id, (0, 0, None))
        told.tell(metrics.PENDING_EXPERIENCES, float(count), *name)
        told.tell(metrics.PENDING_TOKENS, float(tokens), *name)
        told.tell(metrics.PENDING_OLDEST, max(0.0, now - oldest) if oldest is not None else 0.0, *name)


def _online(told: Told, tx: Session, row: Deployment, name: tuple[str, str]) -> None:
    told.tell(metrics.ONLINE_LEARNED, row.fast.tokens if row.fast else 0, *name)
    told.tell(metrics.ONLINE_WAITING, fast_registry.waiting_tokens(tx, row.id) if row.fast else 0, *name)
    told.tell(metrics.ONLINE_STUCK, row.fast is not None and row.fast.error is not None, *name)


def _webhooks(told: Told, tx: Session) -> None:
    for status in WEBHOOK_STATES:
        told.tell(metrics.WEBHOOK_DELIVERIES, 0, status)
    for status, count in tx.execute(select(WebhookDelivery.status, func.count()).group_by(WebhookDelivery.status)):
        told.tell(metrics.WEBHOOK_DELIVERIES, count, status)
    disabled = tx.scalar(select(func.count()).select_from(WebhookEndpoint).where(WebhookEndpoint.disabled.is_not(None)))
    told.tell(metrics.WEBHOOKS_DISABLED, disabled or 0)
