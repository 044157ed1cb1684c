"""Schedules, what became of them, and how much deployments are asked."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from services.migrations.columns import listed

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.create_table(
        "schedules",
        *listed(),
        sa.Column("deployment", sa.String(), sa.ForeignKey("deployments.id"), nullable=False, index=True),
        *(sa.Column(name, sa.JSON(), nullable=False) for name in ("spec", "template")),
        *(sa.Column(name, sa.Integer(), nullable=False) for name in ("revision", "fired")),
        sa.Column("owner", sa.String(), nullable=False),
        *(sa.Column(name, sa.Double()) for name in ("considered_at", "last_fired_at", "next_at")),
        sa.Column("queued", sa.JSON()),
        sa.UniqueConstraint("id"),
    )
    op.create_table(
        "schedule_runs",
        *listed(),
        sa.Column("deployment", sa.String(), sa.ForeignKey("deployments.id"), nullable=False),
        sa.Column("schedule", sa.String(), nullable=False, index=True),
        *(sa.Column(name, sa.String(), nullable=False) for name in ("occurrence", "trigger", "outcome", "reason", "text")),
        sa.Column("firing", sa.Integer()),
        sa.Column("due_at", sa.Double(), nullable=False),
        sa.Column("sleep", sa.String()),
        sa.UniqueConstraint("id"),
        sa.UniqueConstraint("schedule", "occurrence"),
        sa.UniqueConstraint("schedule", "firing"),
    )
    op.create_table(
        "traffic",
        sa.Column("deployment", sa.String(), primary_key=True),
        sa.Column("minute", sa.Integer(), primary_key=True),
        *(sa.Column(name, sa.Integer(), nullable=False) for name in ("requests", "prompt_tokens", "completion_tokens")),
        sa.Column("last_at", sa.Double(), nullable=False),
    )
