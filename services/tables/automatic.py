"""What happens by itself: schedules, webhooks, and how much a deployment is asked."""

from __future__ import annotations

from sqlalchemy import JSON, ForeignKey, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from services.tables.base import Base, Json, Row


class Schedule(Row):
    """When a deployment falls asleep by itself, and what is known of it; see services/schedules/plan.py."""

    __tablename__ = "schedules"
    deployment: Mapped[str] = mapped_column(ForeignKey("deployments.id"), index=True)
    spec: Mapped[Json]
    template: Mapped[Json]
    """Of the sleeps that it begins."""
    revision: Mapped[int] = mapped_column(default=1)
    """Counted up by every change of spec or template: its ETag."""
    owner: Mapped[str]
    """The key that made it."""
    considered_at: Mapped[float | None] = mapped_column(default=None)
    fired: Mapped[int] = mapped_column(default=0)
    last_fired_at: Mapped[float | None] = mapped_column(default=None)
    queued: Mapped[Json | None] = mapped_column(default=None)
    next_at: Mapped[float | None] = mapped_column(default=None)
    cooling_until: Mapped[float | None] = mapped_column(default=None)
    """Until when it begins nothing, because the gates have refused the deployment's last versions."""


class ScheduleRun(Row):
    """An occurrence of a schedule: fired, with its sleep, or skipped, with the reason. None is in here twice."""

    __tablename__ = "schedule_runs"
    deployment: Mapped[str] = mapped_column(ForeignKey("deployments.id"))
    schedule: Mapped[str] = mapped_column(index=True)
    occurrence: Mapped[str]
    firing: Mapped[int | None] = mapped_column(default=None)
    """Which of the schedule's firings; None of what was skipped."""
    trigger: Mapped[str]
    due_at: Mapped[float]
    outcome: Mapped[str]
    """fired, failed or skipped."""
    reason: Mapped[str]
    text: Mapped[str]
    sleep: Mapped[str | None] = mapped_column(default=None)
    __table_args__ = (UniqueConstraint("schedule", "occurrence"), UniqueConstraint("schedule", "firing"))


class Traffic(Base):
    """What a deployment was asked in one minute, over all controllers."""

    __tablename__ = "traffic"
    deployment: Mapped[str] = mapped_column(primary_key=True)
    minute: Mapped[int] = mapped_column(primary_key=True)
    """Unix seconds / 60."""
    requests: Mapped[int] = mapped_column(default=0)
    prompt_tokens: Mapped[int] = mapped_column(default=0)
    completion_tokens: Mapped[int] = mapped_column(default=0)
    last_at: Mapped[float] = mapped_column(default=0.0)
    """When the last of them came."""


class WebhookEndpoint(Row):
    """Where events are sent. Its secrets are sealed with a key that is not in the database."""

    __tablename__ = "webhook_endpoints"
    tenant: Mapped[str] = mapped_column(index=True)
    url: Mapped[str]
    events: Mapped[list[str]]
    deployments: Mapped[list[str] | None] = mapped_column(JSON(none_as_null=True), default=None)
    """Ids whose events are sent; None: of all of the tenant."""
    secret: Mapped[str]
    previous_secret: Mapped[str | None] = mapped_column(default=None)
    previous_until: Mapped[float] = mapped_column(default=0.0)
    dead_in_a_row: Mapped[int] = mapped_column(default=0)
    disabled: Mapped[str | None] = mapped_column(default=None)
    """Why nothing is sent any more."""


class WebhookDelivery(Row):
    """An event on its way to an endpoint; written in the transaction that writes the event."""

    __tablename__ = "webhook_deliveries"
    tenant: Mapped[str]
    endpoint: Mapped[str] = mapped_column(index=True)
    event: Mapped[str]
    type: Mapped[str]
    body: Mapped[str]
    status: Mapped[str] = mapped_column(default="pending")
    """pending, delivered or dead."""
    attempts: Mapped[int] = mapped_column(default=0)
    next_at: Mapped[float | None] = mapped_column(default=None, index=True)
    """None: never again."""
    last_at: Mapped[float | None] = mapped_column(default=None)
    last_status: Mapped[int | None] = mapped_column(default=None)
    last_reason: Mapped[str | None] = mapped_column(default=None)
