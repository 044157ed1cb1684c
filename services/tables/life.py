"""Deployments, what they meet, their sleeps and their versions."""

from __future__ import annotations

import time

from sqlalchemy import JSON, BigInteger, ForeignKey, Index, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column, relationship

from services.states import ACTIVE, FastState, ServingState, SleepStatus
from services.tables.base import NUMBER, Base, Json, Row

_ACTIVE_SQL = f"status IN ({', '.join(repr(status.value) for status in ACTIVE)})"


class Deployment(Row):
    """A model that is served, and which version of it."""

    __tablename__ = "deployments"
    tenant: Mapped[str]
    """Whose it is: what another tenant asks about it is not found."""
    name: Mapped[str]
    """Under which clients ask for it; no other one of its tenant has it."""
    base_model: Mapped[Json]
    memory: Mapped[Json]
    recipe: Mapped[Json]
    serving: Mapped[Json]
    screening: Mapped[Json] = mapped_column(default=dict)
    """How what comes in is screened; empty: by the defaults."""
    promotion: Mapped[Json] = mapped_column(default=dict)
    """What becomes of a version that passed its gates; empty: by the defaults."""
    canary: Mapped[Json | None] = mapped_column(JSON(none_as_null=True), default=None)
    """While a version answers a share of the clients beside the active one: its rollout, its id and the share."""
    retention: Mapped[Json] = mapped_column(default=dict)
    """How long it is kept; empty: for ever."""
    active_version: Mapped[str]
    state: Mapped[ServingState] = mapped_column(default=ServingState.PROVISIONING)
    error: Mapped[str | None] = mapped_column(default=None)
    deleting_at: Mapped[float | None] = mapped_column(default=None)
    """When its deletion was asked for: from then on nothing of it is found but itself; see services/deleting.py."""
    forgotten_at: Mapped[float | None] = mapped_column(default=None)
    """When all that it had was deleted but its folder; its name is another's to take."""
    fast: Mapped[FastMemory | None] = relationship(lazy="joined")
    """Of one that learns online."""
    __table_args__ = (UniqueConstraint("tenant", "name"),)


class ExperienceRow(Row):
    """Something met while awake. `sleep` is the night that has taken it; then either `consolidated_in` is the version that keeps it, or
    `left_out` says why that night's version does not: it is not offered to another."""

    __tablename__ = "experiences"
    deployment: Mapped[str] = mapped_column(ForeignKey("deployments.id"), index=True)
    body: Mapped[Json]
    source: Mapped[str]
    tokens: Mapped[int]
    sleep: Mapped[str | None] = mapped_column(default=None, index=True)
    consolidated_in: Mapped[str | None] = mapped_column(default=None)
    left_out: Mapped[str | None] = mapped_column(default=None)
    status: Mapped[str] = mapped_column(default="pending")
    """What screening made of it: pending, or quarantined; when its body is gone, expired or erased."""
    reasons: Mapped[list[Json]] = mapped_column(JSON, default=list)
    """Of a quarantine: codes and texts."""
    findings: Mapped[Json] = mapped_column(default=dict)
    """What was redacted: kinds and counts."""
    sender: Mapped[str | None] = mapped_column(default=None)
    """The key that sent it."""
    subject: Mapped[str | None] = mapped_column(default=None, index=True)
    """Whom it is about."""
    session: Mapped[str | None] = mapped_column(default=None)
    uri: Mapped[str | None] = mapped_column(default=None)
    consent: Mapped[bool | None] = mapped_column(default=None)
    occurred_at: Mapped[float | None] = mapped_column(default=None)
    dedupe_key: Mapped[str | None] = mapped_column(default=None)
    """The sender's name for it: the same one is kept once."""
    signature: Mapped[bytes | None] = mapped_column(default=None)
    """Of its words; see services/screening/duplicates.py."""
    trace: Mapped[str | None] = mapped_column(default=None)
    """Where it came in, as a `traceparent`; None where nobody collects traces."""
    erased_by: Mapped[str | None] = mapped_column(default=None, index=True)
    """The erasure that took its body."""
    __table_args__ = (
        UniqueConstraint("deployment", "dedupe_key"),
        Index("ix_experiences_deployment_status_created_at", "deployment", "status", "created_at"),
        Index("ix_experiences_sender_created_at", "sender", "created_at"),
    )


class ExperienceBand(Base):
    """By what a stored experience is found that is nearly the same."""

    __tablename__ = "experience_bands"
    deployment: Mapped[str] = mapped_column(primary_key=True)
    band: Mapped[str] = mapped_column(primary_key=True)
    experience: Mapped[str] = mapped_column(primary_key=True, index=True)


class Feedback(Row):
    """What somebody said about an experience."""

    __tablename__ = "feedback"
    experience: Mapped[str] = mapped_column(index=True)
    reward: Mapped[float | None] = mapped_column(default=None)
    label: Mapped[str | None] = mapped_column(default=None)
    comment: Mapped[str | None] = mapped_column(default=None)
    given_by: Mapped[str]


class FastMemory(Base):
    """The fast memory of a deployment that learns online; one that learns at dusk has none."""

    __tablename__ = "fast_memories"
    deployment: Mapped[str] = mapped_column(ForeignKey("deployments.id"), primary_key=True)
    version: Mapped[str]
    """The version beneath it."""
    day: Mapped[int] = mapped_column(default=1)
    """Counted up whenever it is emptied: its files are in a folder of the day."""
    chunks: Mapped[int] = mapped_column(default=0)
    """That are committed."""
    tokens: Mapped[int] = mapped_column(default=0)
    """Of these chunks."""
    checksum: Mapped[str | None] = mapped_column(default=None)
    """Of the expert after the last one."""
    error: Mapped[str | None] = mapped_column(default=None)
    """Why no more is learned today."""


class Learned(Base):
    """An experience that a fast memory has learned online."""

    __tablename__ = "learned_online"
    experience: Mapped[str] = mapped_column(primary_key=True)
    deployment: Mapped[str] = mapped_column(index=True)
    chunk: Mapped[int]


class Sleep(Row):
    """One night of a deployment. At most one is active: the database itself refuses a second."""

    __tablename__ = "sleeps"
    deployment: Mapped[str] = mapped_column(ForeignKey("deployments.id"), index=True)
    finished_at: Mapped[float | None] = mapped_column(default=None)
    status: Mapped[SleepStatus] = mapped_column(default=SleepStatus.QUEUED)
    phase: Mapped[str | None] = mapped_column(default=None)
    outcome: Mapped[str | None] = mapped_column(default=None)
    error: Mapped[Json | None] = mapped_column(default=None)
    seed: Mapped[int] = mapped_column(default=0)
    recipe: Mapped[Json]
    promotion: Mapped[Json] = mapped_column(default=dict)
    """As of the deployment, for this sleep; empty: as the deployment's."""
    placement: Mapped[str | None] = mapped_column(default=None)
    """That was asked for; None: as its deployment's."""
    placed: Mapped[Json | None] = mapped_column(JSON(none_as_null=True), default=None)
    """How it lies beside the replicas, once that was decided."""
    lent: Mapped[bool] = mapped_column(default=False)
    """Replicas have been asked to lend what they hold, and not been asked to come back."""
    held_out: Mapped[list[str]]
    probes: Mapped[list[Json]] = mapped_column(JSON, default=list)
    """What its candidate is held against, as it was when the sleep began."""
    request_sha256: Mapped[str]
    parent_version: Mapped[str]
    child_version: Mapped[str]
    result_version: Mapped[str | None] = mapped_column(default=None)
    began_at: Mapped[float | None] = mapped_column(default=None)
    """When the first attempt was to be submitted, or, of one that was retried, the first one since."""
    attempt: Mapped[int] = mapped_column(default=0)
    """Of the night, from 1 on; written before its job is submitted, so that a submission whose answer is lost is not forgotten."""
    submitted: Mapped[bool] = mapped_column(default=False)
    """The cluster has confirmed this attempt's job."""
    waiting: Mapped[str | None] = mapped_column(default=None)
    """Why a queued sleep does not begin."""
    selection: Mapped[Json] = mapped_column(default=dict)
    """Which experiences were asked for; empty: all that wait."""
    budget: Mapped[Json] = mapped_column(default=dict)
    """What the night may spend; empty: as much as it takes."""
    failures: Mapped[int] = mapped_column(default=0)
    """Attempts that were followed by another one because they failed, since the sleep was asked for or retried."""
    life: Mapped[int] = mapped_column(default=0)
    """Times it was retried by hand; each has a durable workflow of its own."""
    retry_at: Mapped[float | None] = mapped_column(default=None)
    """When the next attempt of a night that failed begins."""
    stop_at: Mapped[float | None] = mapped_column(default=None)
    """When the job of a night that is to stop is stopped though nothing was sealed meanwhile; None: at once."""
    paused_at: Mapped[float | None] = mapped_column(default=None)
    """Since when it stands still: paused, or in line again."""
    pending_since: Mapped[float | None] = mapped_column(default=None)
    """Since when the cluster has its job and has not begun it: for want of room, in a queue, or because a cluster of its own starts."""
    paused_seconds: Mapped[float] = mapped_column(default=0.0)
    """For which it stood still or was pending before, since `began_at`."""
    starts_over: Mapped[bool] = mapped_column(default=False)
    """The next attempt begins with an empty home."""
    left_out: Mapped[Json] = mapped_column(default=dict)
    """Of the experiences that the night could not learn, how many for which reason."""
    progress: Mapped[Json] = mapped_column(default=dict)
    last_seq: Mapped[int] = mapped_column(default=0)
    events_offset: Mapped[int] = mapped_column(BigInteger, default=0)
    """Bytes of the night's events.jsonl that are in the events table."""
    fast: Mapped[FastState] = mapped_column(default=FastState.NONE)
    fast_delivery: Mapped[str | None] = mapped_column(default=None)
    rest_delivery: Mapped[str | None] = mapped_column(default=None)
    report: Mapped[Json | None] = mapped_column(default=None)
    trace: Mapped[str | None] = mapped_column(default=None)
    """Its own first span, as a `traceparent`: one trace, however often it is tried. None where nobody collects traces."""
    asked_trace: Mapped[str | None] = mapped_column(default=None)
    """Of the request that asked for it."""

    __table_args__ = (
        Index(
            "one_active_sleep_per_deployment",
            "deployment",
            unique=True,
            sqlite_where=text(_ACTIVE_SQL),
            postgresql_where=text(_ACTIVE_SQL),
        ),
    )


class Taken(Base):
    """An experience that a sleep was begun on; kept when the sleep has given it back, so that the same sleep can be tried again."""

    __tablename__ = "taken_experiences"
    sleep: Mapped[str] = mapped_column(primary_key=True)
    experience: Mapped[str] = mapped_column(primary_key=True)


class StrayJob(Base):
    """A night's job that must end, because its sleep has; `id` is its submission id."""

    __tablename__ = "stray_jobs"
    id: Mapped[str] = mapped_column(primary_key=True)
    sleep: Mapped[str]
    created_at: Mapped[float] = mapped_column(default=time.time)


class Version(Row):
    """A version folder, and whether it serves."""

    __tablename__ = "versions"
    deployment: Mapped[str] = mapped_column(ForeignKey("deployments.id"), index=True)
    parent: Mapped[str | None]
    sleep: Mapped[str | None]
    folder: Mapped[str]
    record: Mapped[Json]
    """version.json."""
    status: Mapped[str]
    """candidate, active, retired, rejected or revoked."""
    gates: Mapped[list[Json]] = mapped_column(JSON, default=list)
    """What the night measured of it: names, whether passed, values and limits."""
    signature: Mapped[Json | None] = mapped_column(JSON(none_as_null=True), default=None)
    """Of its manifest; None of versions from before there were signatures."""
    trace: Mapped[str | None] = mapped_column(default=None)
    """Its span, in the trace of its night."""


class Event(Base):
    """Something that happened in a sleep; `seq` counts from 1 without gaps."""

    __tablename__ = "events"
    number: Mapped[int] = mapped_column(NUMBER, primary_key=True, autoincrement=True)
    id: Mapped[str] = mapped_column(unique=True)
    sleep: Mapped[str] = mapped_column(index=True)
    seq: Mapped[int]
    created_at: Mapped[float]
    type: Mapped[str]
    level: Mapped[str] = mapped_column(default="info")
    message: Mapped[str]
    data: Mapped[Json]
    __table_args__ = (UniqueConstraint("sleep", "seq"),)
