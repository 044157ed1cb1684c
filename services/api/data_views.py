"""Batches, stored chats and erasures as clients see them."""

from __future__ import annotations

from typing import Any

from services.api.views import View, experience_status
from services.tables import BatchError, Erasure, ExperienceBatch, ExperienceRow, Row, StoredCompletion

COUNTS = ("accepted", "duplicate", "rejected", "quarantined")


def _head(kind: str, row: Row) -> View:
    return {"object": kind, "id": row.id, "created_at": int(row.created_at), "metadata": row.meta}


def batch(row: ExperienceBatch) -> View:
    return _head("experience.batch", row) | {
        "deployment": row.deployment,
        "status": row.status,
        "waiting": row.waiting,
        "error": row.error,
        "bytes": row.bytes,
        "sha256": row.sha256,
        "lines": row.lines,
        "lines_done": row.line,
        "counts": {name: getattr(row, name) for name in COUNTS},
        "errors_url": f"/v1/experiences/batches/{row.id}/errors",
        "finished_at": int(row.finished_at) if row.finished_at else None,
    }


def batch_error(row: BatchError) -> View:
    return {
        "object": "experience.batch.error",
        "id": str(row.line),
        "line": row.line,
        "code": row.code,
        "pointer": row.pointer,
        "detail": row.detail,
    }


def completion(row: StoredCompletion, experience: ExperienceRow) -> View:
    """As OpenAI's clients know it; `experience`, its status and `version` are ours."""
    said = experience.body["messages"][row.prompt :]
    message = {"role": "assistant", "content": said[0]["content"] if said else "", "refusal": None}
    return {
        "id": row.id,
        "object": "chat.completion",
        "created": int(row.created_at),
        "model": row.model,
        "choices": [{"index": 0, "finish_reason": row.finish_reason, "logprobs": None, "message": message}],
        "usage": row.usage,
        "system_fingerprint": row.fingerprint,
        "metadata": row.meta,
        "version": row.version,
        "experience": row.experience,
        "experience_status": experience_status(experience),
    }


def completion_messages(row: StoredCompletion, experience: ExperienceRow) -> list[dict[str, Any]]:
    """What was asked."""
    asked = enumerate(experience.body["messages"][: row.prompt])
    return [{"id": f"{row.id}-{i}", "role": said["role"], "content": said["content"], "name": None} for i, said in asked]


def erasure(row: Erasure) -> View:
    return _head("erasure", row) | {
        "deployment": row.deployment,
        "subject_id": row.subject,
        "experience_ids": row.experiences or None,
        "mode": row.mode,
        "status": row.status,
        "waiting": row.waiting,
        "affected_versions": row.affected_versions,
        "actions": row.actions,
        "finished_at": int(row.finished_at) if row.finished_at else None,
    }
