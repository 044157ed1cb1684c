"""How a night ended: the file that it leaves, and what clients read of it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from services.launcher import JobReport
from services.plan import Job, Outcome
from services.tables import Json, Sleep

OUTCOME_FILE = "outcome.json"


class NightError(BaseModel):
    """Why a night failed for good."""

    model_config = ConfigDict(extra="ignore", frozen=True)
    code: str
    message: str
    category: Literal["user", "server", "unknown"] = "server"


class NightOutcome(BaseModel):
    """outcome.json."""

    model_config = ConfigDict(extra="ignore", frozen=True)
    outcome: Outcome
    version: str | None = None
    deliveries: dict[str, str] = {}
    """`dawn`: to the new version; `rest`: back to the parent. Paths, relative to the night's folder or absolute."""
    left_out: dict[str, str] = {}
    """Experiences that could not be learned: id to reason."""
    returned: tuple[str, ...] = ()
    """Experiences that are neither learned nor left out: the next night is offered them again."""
    report: Json = {}
    error: NightError | None = None
    """Where the outcome is `failed`."""

    @property
    def gates(self) -> list[Json]:
        """What the gate measured, one entry each; of a night that was not judged none."""
        gate = self.report.get("gate") or {}
        failed = [
            {"name": "night", "passed": False, "value": None, "limit": None, "message": why} for why in gate.get("reasons") or ()
        ]
        return gate.get("gates") or failed


def read_outcome(home: Path) -> NightOutcome | None:
    """None where the night has not left one."""
    path = home / OUTCOME_FILE
    return NightOutcome.model_validate_json(path.read_text()) if path.exists() else None


def tell(sleep: Sleep, outcome: NightOutcome) -> None:
    """What clients read of a night."""
    sleep.report, sleep.left_out = outcome.report, dict(Counter(outcome.left_out.values()))


def why(report: JobReport, outcome: NightOutcome | None) -> Json:
    """Why a night failed: its own word, after which the same would happen again, or how its job ended."""
    if outcome is not None and outcome.error is not None:
        return {**outcome.error.model_dump(), "retryable": False}
    code = {Job.LOST: "night_lost", Job.SUCCEEDED: "no_outcome"}.get(report.job, "night_failed")
    return night_error(code, report.message or f"the night's job ended as {report.job.value}")


def night_error(code: str, message: str) -> Json:
    """An error of ours, or of the cluster: another night may succeed."""
    return {"code": code, "message": message, "category": "server", "retryable": True}
