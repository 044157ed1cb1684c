"""Probes and their runs as clients see them."""

from __future__ import annotations

from circadian.probing import wilson
from services.api.views import View
from services.tables import Probe, ProbeRun

HIDDEN = ("items",)


def probe(row: Probe, whole: bool) -> View:
    """whole: with its questions and what is expected, which a private probe tells only to keys that may write it."""
    spec = {name: value for name, value in row.spec.items() if whole or name not in HIDDEN}
    return {
        "object": "probe",
        "id": row.id,
        "created_at": int(row.created_at),
        "metadata": row.meta,
        "deployment": row.deployment,
        "visibility": row.visibility,
        "n": len(row.spec["items"]),
        "items": None,
        **spec,
    }


def run(row: ProbeRun, whole: bool) -> View:
    """whole: with the answers."""
    count = len(row.per_item)
    items = [{"index": i, **item} | ({} if whole else {"answer": None}) for i, item in enumerate(row.per_item)]
    return {
        "object": "probe.run",
        "id": row.id,
        "created_at": int(row.created_at),
        "finished_at": int(row.finished_at) if row.finished_at else None,
        "metadata": row.meta,
        "deployment": row.deployment,
        "probe": row.probe,
        "version": row.version,
        "status": row.status,
        "score": row.score,
        "ci95": list(wilson(row.score, count)) if row.score is not None else None,
        "n": count,
        "per_item": items,
        "error": row.error,
    }
