"""Webhooks: endpoints, and what is on its way to them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from services.migrations.columns import listed

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.create_table(
        "webhook_endpoints",
        *listed(),
        sa.Column("tenant", sa.String(), nullable=False, index=True),
        *(sa.Column(name, sa.String(), nullable=False) for name in ("url", "secret")),
        sa.Column("events", sa.JSON(), nullable=False),
        sa.Column("deployments", sa.JSON()),
        *(sa.Column(name, sa.String()) for name in ("previous_secret", "disabled")),
        sa.Column("previous_until", sa.Double(), nullable=False),
        sa.Column("dead_in_a_row", sa.Integer(), nullable=False),
        sa.UniqueConstraint("id"),
    )
    op.create_table(
        "webhook_deliveries",
        *listed(),
        sa.Column("endpoint", sa.String(), nullable=False, index=True),
        *(sa.Column(name, sa.String(), nullable=False) for name in ("tenant", "event", "type", "body", "status")),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("next_at", sa.Double(), index=True),
        sa.Column("last_at", sa.Double()),
        sa.Column("last_status", sa.Integer()),
        sa.Column("last_reason", sa.String()),
        sa.UniqueConstraint("id"),
    )
