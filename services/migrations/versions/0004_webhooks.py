"""Webhooks: endpoints, and what is on its way to them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "webhook_endpoints",
        *_listed(),
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
        *_listed(),
        sa.Column("endpoint", sa.String(), nullable=False, index=True),
        *(sa.Column(name, sa.String(), nullable=False) for name in ("tenant", "event", "type", "body", "status")),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("next_at", sa.Double(), index=True),
        sa.Column("last_at", sa.Double()),
        sa.Column("last_status", sa.Integer()),
        sa.Column("last_reason", sa.String()),
        sa.UniqueConstraint("id"),
    )


def _listed() -> list[sa.Column[object]]:
    return [
        sa.Column("number", NUMBER, primary_key=True, autoincrement=True),
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("metadata", sa.JSON(), nullable=False),
    ]
