"""Rows of the registry as clients see them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from actors import names
from circadian.specs import CanarySpec, Experience
from services import canary
from services.budget import spent
from services.online_plan import label
from services.states import DeploymentState, SleepStatus
from services.tables import (
    ApiKey,
    AuditEvent,
    Deployment,
    ExperienceRow,
    FastMemory,
    Feedback,
    Rollout,
    Row,
    Schedule,
    ScheduleRun,
    Sleep,
    Version,
    WebhookDelivery,
    WebhookEndpoint,
)
from services.trace_context import trace_id

View = dict[str, Any]
LINKS = ("events", "report", "dreams", "curriculum", "checkpoints", "artifacts", "metrics", "logs")
"""Of a sleep."""


def _head(kind: str, row: Row) -> View:
    return {"object": kind, "id": row.id, "created_at": int(row.created_at), "metadata": row.meta}


def deployment(row: Deployment, state: DeploymentState) -> View:
    return _head("deployment", row) | {
        "name": row.name,
        "base_model": row.base_model,
        "memory": row.memory,
        "recipe": row.recipe,
        "serving": row.serving,
        "screening": row.screening,
        "promotion": row.promotion,
        "canary": row.canary,
        "retention": {"experience_ttl_days": None} | row.retention,
        "wake": wake_mode(row),
        "state": state,
        "active_version": row.active_version,
        "error": row.error,
    }


def wake_mode(row: Deployment) -> str:
    return "online" if row.fast else "at_dusk"


def fast_memory(row: FastMemory, period: int, waiting: int) -> View:
    """What a deployment has learned online, and how far the next update is.

    period, waiting: tokens between two updates, and of what was met since the last one.
    """
    return {
        "version": label(row.version, row.chunks),
        "chunks": row.chunks,
        "tokens": row.tokens,
        "period": period,
        "tokens_until_update": max(0, period - waiting),
        "error": row.error,
    }


def experience(row: ExperienceRow) -> View:
    body = {key: row.body[key] for key in ("messages", "text") if row.body.get(key)}
    return _head("experience", row) | {
        "deployment": row.deployment,
        "source": row.source,
        "trust": Experience.model_validate(row.body).trusted if row.body else None,
        **body,
        "tokens": row.tokens,
        "status": experience_status(row),
        "reasons": row.reasons,
        "findings": row.findings,
        "subject_id": row.subject,
        "session_id": row.session,
        "uri": row.uri,
        "consent": row.consent,
        "occurred_at": row.occurred_at,
        "dedupe_key": row.dedupe_key,
        "left_out": row.left_out,
        "sleep": row.sleep,
        "version": row.consolidated_in,
        "erasure": row.erased_by,
        "trace_id": trace_id(row.trace),
    }


def experience_status(row: ExperienceRow) -> str:
    if row.status in ("expired", "erased"):
        return row.status
    return "consolidated" if row.consolidated_in else "left_out" if row.left_out else row.status


def feedback(row: Feedback) -> View:
    return _head("experience.feedback", row) | {
        "experience": row.experience,
        "reward": row.reward,
        "label": row.label,
        "comment": row.comment,
        "given_by": row.given_by,
    }


def sleep(row: Sleep, ray_dashboard: str | None = None) -> View:
    """ray_dashboard: where its job is linked to, once the cluster was given one; None: nowhere."""
    links = {name: f"/v1/sleeps/{row.id}/{name}" for name in LINKS}
    if ray_dashboard and row.attempt:
        links["ray_dashboard"] = f"{ray_dashboard}/#/jobs/{names.night_job(row.id, row.attempt)}"
    return _head("sleep", row) | {
        "deployment": row.deployment,
        "finished_at": int(row.finished_at) if row.finished_at else None,
        "status": row.status,
        "queue_state": "paused_capacity" if row.waiting else None,
        "waiting": row.waiting,
        "placement": row.placed,
        "phase": row.phase,
        "outcome": row.outcome,
        "error": row.error,
        "attempt": row.attempt,
        "retry_at": row.retry_at,
        "paused_at": int(row.paused_at) if row.paused_at and row.status is SleepStatus.PAUSED else None,
        "seed": row.seed,
        "recipe": row.recipe,
        "selection": row.selection,
        "budget": row.budget,
        "spent": spent(row, time.time()).told() if row.finished_at else None,
        "parent_version": row.parent_version,
        "result_version": row.result_version,
        "left_out": row.left_out,
        "progress": {"fraction": None, "step": None, "total_steps": None} | row.progress,
        "links": links,
        "trace_id": trace_id(row.trace),
    }


def version(row: Version) -> View:
    return _head("version", row) | {
        "deployment": row.deployment,
        "parent": row.parent,
        "sleep": row.sleep,
        "kind": "night" if row.parent else "founding",
        "status": row.status,
        "digest": row.record["memory_sha256"],
        "base_model": row.record["base"],
        "lineage": row.record["lineage"],
        "tokens": row.record.get("tokens", 0),
        "kept": row.record.get("kept", {}),
        "gates": row.gates,
        "signature": row.signature,
        "trace_id": trace_id(row.trace),
    }


def rollout(row: Rollout) -> View:
    return _head("rollout", row) | {
        "deployment": row.deployment,
        "kind": row.kind,
        "strategy": row.strategy,
        "from_version": row.from_version,
        "to_version": row.to_version,
        "status": row.status,
        "reason": row.reason,
        "by": row.started_by,
        "overridden_gates": row.overridden,
        "canary": None if row.canary is None else _canary(row, CanarySpec.model_validate(row.canary)),
        "finished_at": int(row.finished_at) if row.finished_at else None,
        "error": row.error,
        "trace_id": trace_id(row.trace),
    }


def _canary(row: Rollout, spec: CanarySpec) -> View:
    """What it was asked for, and how it does."""
    paces = canary.read(row.paces)
    return spec.model_dump(mode="json") | {
        "live_at": row.live_at,
        "requests": row.requests,
        "errors": row.errors,
        "slowdown": canary.slowdown(spec.min_requests, paces),
        "paces": canary.told(paces),
    }


def api_key(row: ApiKey) -> View:
    times = {name: int(at) if (at := getattr(row, name)) else None for name in ("expires_at", "last_used_at", "revoked_at")}
    return _head("api_key", row) | {
        "name": row.name,
        "tenant": row.tenant,
        "prefix": row.prefix,
        "scopes": row.scopes,
        "deployments": row.deployments,
        "requests_per_minute": row.requests_per_minute,
        "created_by": row.created_by,
        **times,
    }


def audit_event(row: AuditEvent) -> View:
    return _head("audit_event", row) | {
        "actor": row.actor,
        "action": row.action,
        "target": row.object,
        "request_id": row.request,
        "data": row.data,
        "digest": row.digest,
    }


def schedule(row: Schedule) -> View:
    return _head("schedule", row) | {
        "deployment": row.deployment,
        **row.spec,
        "sleep_template": row.template,
        "next_at": row.next_at,
        "cooling_until": row.cooling_until,
        "queued": row.queued,
        "fired": row.fired,
        "last_fired_at": row.last_fired_at,
        "owner": row.owner,
    }


def schedule_run(row: ScheduleRun) -> View:
    return _head("schedule.run", row) | {
        "schedule": row.schedule,
        "occurrence": row.occurrence,
        "trigger": row.trigger,
        "due_at": row.due_at,
        "outcome": row.outcome,
        "reason": row.reason,
        "message": row.text,
        "sleep": row.sleep,
    }


def webhook_endpoint(row: WebhookEndpoint) -> View:
    return _head("webhook_endpoint", row) | {
        "url": row.url,
        "events": row.events,
        "deployments": row.deployments,
        "enabled": row.disabled is None,
        "disabled": row.disabled,
    }


def webhook_delivery(row: WebhookDelivery) -> View:
    return _head("webhook_delivery", row) | {
        "endpoint": row.endpoint,
        "event": row.event,
        "type": row.type,
        "status": row.status,
        "attempts": row.attempts or 0,
        "next_at": row.next_at,
        "last_at": row.last_at,
        "last_status": row.last_status,
        "last_reason": row.last_reason,
    }


def page(data: Sequence[View], has_more: bool) -> View:
    """A list as OpenAI's clients page through it."""
    ids = [item["id"] for item in data]
    return {
        "object": "list",
        "data": list(data),
        "first_id": ids[0] if ids else None,
        "last_id": ids[-1] if ids else None,
        "has_more": has_more,
    }
