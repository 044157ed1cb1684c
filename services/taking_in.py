"""How an experience comes in, whoever sends it: screened, and on disk when this returns.

    refused    its sizes and counts speak against it: nothing is read
    read       redacted, held against rules and triggers: outside any transaction, because it computes
    judged     compared with what is stored, and written, in one transaction

`take_in` is the three for one that is waited for; a batch (batches.py) reads many and then writes them together. What is quarantined is
stored, and no night takes it until somebody releases it. What is rejected, or a copy of what is there often enough, is not stored.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from circadian.experience import Unreadable
from circadian.memory.folder import VersionBroken
from circadian.specs import Experience
from circadian.specs.screening import ScreeningSpec
from services import audit, outbox, screening
from services.errors import Problem
from services.tables import Database, Deployment, ExperienceBand, ExperienceRow
from services.trace_context import here, span

MINUTE = 60.0
QUARANTINED = "quarantined"
STATUS_OF = {screening.Status.ACCEPTED: "pending", screening.Status.QUARANTINED: QUARANTINED}
HTTP_OF = {screening.Code.TOO_LARGE: 413, screening.Code.SOURCE_RATE: 429}


@dataclass(frozen=True)
class Said:
    """What came with an experience."""

    sender: str
    """The key that sent it: what caps count."""
    subject: str | None = None
    session: str | None = None
    uri: str | None = None
    consent: bool | None = None
    occurred_at: float | None = None
    dedupe_key: str | None = None
    trace: str | None = None
    """Where it came in, where that is not here: of a batch's line."""


@dataclass(frozen=True)
class Taken:
    """What became of it."""

    row: ExperienceRow | None
    """As it is stored; of a repetition the first one. None where it was not stored."""
    status: str
    """pending, quarantined, repeated, duplicate or rejected."""
    reasons: tuple[screening.Reason, ...] = ()

    def problem(self) -> Problem:
        """Why it was not stored."""
        first = self.reasons[0]
        code = "near_duplicate" if self.status == "duplicate" else first.code.value
        headers = {"Retry-After": str(int(MINUTE))} if first.code is screening.Code.SOURCE_RATE else None
        return Problem(HTTP_OF.get(first.code, 422), code, f"The experience is not kept: {first.detail}.", headers=headers)


class Intake(Protocol):
    """What it takes: a controller has it."""

    @property
    def database(self) -> Database: ...

    def tokens(self, deployment: Deployment, experience: Experience) -> int:
        """As the deployment's tokenizer reads it. Raises Unreadable and VersionBroken."""
        ...

    def took_in(self, status: str) -> None:
        """One more of which this became, to be counted."""
        ...


@dataclass(frozen=True)
class Legible:
    """An experience that was read, and can be judged."""

    deployment: Deployment
    spec: ScreeningSpec
    given: Experience
    prepared: screening.Prepared
    kept: Experience
    """As it would be stored."""
    tokens: int
    said: Said
    metadata: dict[str, str]


def take_in(
    intake: Intake,
    deployment: Deployment,
    experience: Experience,
    said: Said,
    metadata: dict[str, str],
    also: Callable[[Session, ExperienceRow], None] | None = None,
) -> Taken:
    """Screen an experience and keep it; `also` is written with it. Raises Problem (422) where the tokenizer cannot read it."""
    with span("take in experience", {"circadian.deployment.id": deployment.id}) as part:
        taken = _take_in(intake, deployment, experience, said, metadata, also)
        part.set_attribute("circadian.experience.outcome", taken.status)
        if taken.row is not None:
            part.set_attributes({"circadian.experience.id": taken.row.id, "circadian.experience.tokens": taken.row.tokens})
        return taken


def _take_in(
    intake: Intake,
    deployment: Deployment,
    experience: Experience,
    said: Said,
    metadata: dict[str, str],
    also: Callable[[Session, ExperienceRow], None] | None,
) -> Taken:
    read = look_at(intake, deployment, experience, said, metadata)
    if isinstance(read, Taken):
        intake.took_in(read.status)
        return read
    with intake.database.write() as tx:
        taken = keep(tx, read)
        tell_quarantined(tx, deployment, [taken.row] if taken.row is not None and taken.status == QUARANTINED else [])
        if also and taken.row is not None and taken.status in STATUS_OF.values():
            also(tx, taken.row)
    intake.took_in(taken.status)
    return taken


def look_at(
    intake: Intake, deployment: Deployment, experience: Experience, said: Said, metadata: dict[str, str]
) -> Legible | Taken:
    """Read an experience, in no transaction; what became of it, where that is known already. Raises Problem as `take_in` does."""
    spec = ScreeningSpec.model_validate(deployment.screening)
    with intake.database.read() as tx:
        if first := _repeated(tx, deployment, said):
            return Taken(first, "repeated")
        refused = screening.refusal(experience, spec, _counts(tx, deployment, said))
    if refused:
        return Taken(None, "rejected", (refused,))
    prepared = screening.prepare(experience, spec)
    if prepared.experience is None:
        return Taken(None, "rejected", prepared.reasons)
    try:
        tokens = intake.tokens(deployment, prepared.experience)
    except Unreadable as error:
        raise Problem(422, "invalid_experience", str(error), param="messages") from error
    except VersionBroken as error:
        raise Problem(409, "version_broken", f"{deployment.active_version} reads nothing: {error}") from error
    return Legible(deployment, spec, experience, prepared, prepared.experience, tokens, said, metadata)


def keep(tx: Session, read: Legible) -> Taken:
    """Judge what was read, and write it."""
    deployment, said = read.deployment, read.said
    if first := _repeated(tx, deployment, said):
        return Taken(first, "repeated")
    known = _counts(tx, deployment, said, read.prepared.bands)
    if refused := screening.refusal(read.given, read.spec, known):  # others of its source have come since it was read
        return Taken(None, "rejected", (refused,))
    verdict = screening.judge(read.prepared, read.spec, known)
    if verdict.status not in STATUS_OF:
        return Taken(None, verdict.status.value, verdict.reasons)
    row = _row(deployment, read.kept, said, read.metadata, read.tokens, verdict)
    tx.add(row)
    tx.flush()
    tx.add_all(ExperienceBand(deployment=deployment.id, band=band, experience=row.id) for band in read.prepared.bands)
    if row.status == QUARANTINED:
        audit.note_own(tx, deployment.tenant, "experience_quarantined", row.id, reasons=[one["code"] for one in row.reasons])
    return Taken(row, row.status, verdict.reasons)


def tell_quarantined(tx: Session, deployment: Deployment, rows: Sequence[ExperienceRow], batch: str | None = None) -> None:
    """Webhooks hear of what was put aside together, if anything was: not what it says, and not what somebody said of it."""
    if not rows:
        return
    told = {"experiences": [row.id for row in rows], "reasons": sorted({one["code"] for row in rows for one in row.reasons})}
    outbox.tell(tx, deployment, "experience.quarantined", f"{len(rows)} in quarantine", told | {"batch": batch})


def _row(
    deployment: Deployment,
    experience: Experience,
    said: Said,
    metadata: dict[str, str],
    tokens: int,
    verdict: screening.Verdict,
) -> ExperienceRow:
    return ExperienceRow(
        id=experience.id,
        deployment=deployment.id,
        body=experience.model_dump(mode="json"),
        source=experience.source,
        tokens=tokens,
        status=STATUS_OF[verdict.status],
        reasons=[{"code": reason.code.value, "detail": reason.detail} for reason in verdict.reasons],
        findings={finding.kind: finding.count for finding in verdict.findings},
        sender=said.sender,
        subject=said.subject,
        session=said.session,
        uri=said.uri,
        consent=said.consent,
        occurred_at=said.occurred_at,
        dedupe_key=said.dedupe_key,
        signature=verdict.signature or None,
        trace=said.trace or here(),
        meta=metadata,
    )


def _repeated(tx: Session, deployment: Deployment, said: Said) -> ExperienceRow | None:
    if said.dedupe_key is None:
        return None
    same = (ExperienceRow.deployment == deployment.id, ExperienceRow.dedupe_key == said.dedupe_key)
    return tx.scalar(select(ExperienceRow).where(*same))


def _counts(tx: Session, deployment: Deployment, said: Said, bands: list[str] | None = None) -> screening.Known:
    """What is known when it comes in; with bands, what is stored that may be nearly the same."""
    recent = (ExperienceRow.sender == said.sender, ExperienceRow.created_at > time.time() - MINUTE)
    count = tx.scalar(select(func.count()).where(ExperienceRow.deployment == deployment.id, *recent)) or 0
    neighbours: list[bytes] = []
    if bands:
        near = select(ExperienceBand.experience).where(ExperienceBand.deployment == deployment.id, ExperienceBand.band.in_(bands))
        found = tx.scalars(select(ExperienceRow.signature).where(ExperienceRow.id.in_(near)))
        neighbours = [signature for signature in found if signature]
    return screening.Known(int(count), said.consent, neighbours)
