"""How a night ended: the file that it leaves, and what clients read of it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from circadian.night_files import OUTCOME_FILE
from services.launcher import JobReport
from services.plan import Job, Outcome
from services.tables import Json, Sleep

Category = Literal["user", "server", "unknown"]
"""Whose an error is."""


class NightError(BaseModel):
    """Why a night failed for good."""

    model_config = ConfigDict(extra="ignore", frozen=True)
    code: str
    message: str
    category: Category = "server"


class NightOutcome(BaseModel):
    """outcome.json."""

    model_config = ConfigDict(extra="ignore", frozen=True)
    outcome: Outcome
    attempt: int | None = None
    """That left it; None: written by a release that did not say."""
    version: str | None = None
    deliveries: dict[str, str] = {}
    """`dawn`: to the new version; `rest`: back to the parent. Paths, relative to the night's folder or absolute."""
    left_out: dict[str, str] = {}
    """Experiences that could not be learned: id to reason."""
    returned: tuple[str, ...] = ()
    """Experiences that are neither learned nor left out: the next night is offered them again."""
    gates: tuple[Json, ...] = ()
    """What the candidate was held against: `name`, `passed`, `value`, `limit`, `message` of each."""
    report: Json = {}
    error: NightError | None = None
    """Where the outcome is `failed`."""

    @property
    def judged(self) -> list[Json]:
        """What the gate measured, one entry each; of a night that was not judged none."""
        gate = self.report.get("gate") or {}
        failed = [
            {"name": "night", "passed": False, "value": None, "limit": None, "message": why} for why in gate.get("reasons") or ()
        ]
        return list(self.gates) or gate.get("gates") or failed


def read_outcome(home: Path, attempt: int) -> NightOutcome | None:
    """What this attempt has left; None where it has left nothing yet, whatever an earlier one had."""
    path = home / OUTCOME_FILE
    if not path.exists():
        return None
    outcome = NightOutcome.model_validate_json(path.read_text())
    return outcome if outcome.attempt in (attempt, None) else None


def tell(sleep: Sleep, outcome: NightOutcome) -> None:
    """What clients read of a night."""
    sleep.report, sleep.left_out = outcome.report, dict(Counter(outcome.left_out.values()))


def why(report: JobReport, outcome: NightOutcome | None) -> Json:
    """Why a night failed: its own word, or how its job ended."""
    if outcome is not None and outcome.error is not None:
        return night_error(**outcome.error.model_dump())
    code = {Job.LOST: "night_lost", Job.SUCCEEDED: "no_outcome"}.get(report.job, "night_failed")
    return night_error(code, report.message or f"the night's job ended as {report.job.value}")


def night_error(code: str, message: str, category: Category = "server") -> Json:
    """An error as clients see it. What is the user's to change would come again; after others another night may succeed."""
    return {"code": code, "message": message, "category": category, "retryable": category != "user"}
