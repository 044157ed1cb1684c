"""Batches, stored chats, retention and erasures."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from services.migrations.columns import listed

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    with op.batch_alter_table("deployments") as table:
        table.add_column(sa.Column("retention", sa.JSON(), nullable=False, server_default="{}"))
    with op.batch_alter_table("deployments") as table:
        table.alter_column("retention", server_default=None)
    op.add_column("experiences", sa.Column("erased_by", sa.String()))
    op.create_index("ix_experiences_erased_by", "experiences", ["erased_by"])
    op.create_index("ix_experiences_deployment_status_created_at", "experiences", ["deployment", "status", "created_at"])
    op.create_index("ix_experience_bands_experience", "experience_bands", ["experience"])
    op.create_table(
        "experience_batches",
        *listed(),
        sa.Column("tenant", sa.String(), nullable=False, index=True),
        sa.Column("deployment", sa.String()),
        sa.Column("sender", sa.String(), nullable=False),
        sa.Column("allowed", sa.JSON()),
        sa.Column("request", sa.String(), unique=True),
        sa.Column("sha256", sa.String(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("lines", sa.Integer(), nullable=False),
        sa.Column("status", sa.String(), nullable=False, index=True),
        sa.Column("waiting", sa.String()),
        sa.Column("error", sa.String()),
        sa.Column("line", sa.Integer(), nullable=False),
        sa.Column("offset", sa.BigInteger(), nullable=False),
        *[sa.Column(name, sa.Integer(), nullable=False) for name in ("accepted", "duplicate", "rejected", "quarantined")],
        sa.Column("finished_at", sa.Double()),
        sa.UniqueConstraint("id"),
    )
    op.create_table(
        "experience_batch_errors",
        sa.Column("batch", sa.String(), primary_key=True),
        sa.Column("line", sa.Integer(), primary_key=True, autoincrement=False),
        *[sa.Column(name, sa.String(), nullable=False) for name in ("code", "pointer", "detail")],
    )
    op.create_table(
        "chat_completions",
        *listed(),
        sa.Column("deployment", sa.String(), nullable=False, index=True),
        sa.Column("experience", sa.String(), nullable=False, unique=True),
        sa.Column("model", sa.String(), nullable=False),
        sa.Column("version", sa.String(), nullable=False),
        sa.Column("prompt", sa.Integer(), nullable=False),
        sa.Column("finish_reason", sa.String(), nullable=False),
        sa.Column("fingerprint", sa.String()),
        sa.Column("usage", sa.JSON()),
        sa.UniqueConstraint("id"),
    )
    op.create_table(
        "erasures",
        *listed(),
        sa.Column("tenant", sa.String(), nullable=False, index=True),
        sa.Column("deployment", sa.String()),
        sa.Column("subject", sa.String()),
        sa.Column("experiences", sa.JSON(), nullable=False),
        sa.Column("mode", sa.String(), nullable=False),
        sa.Column("sender", sa.String(), nullable=False),
        sa.Column("allowed", sa.JSON()),
        sa.Column("status", sa.String(), nullable=False, index=True),
        sa.Column("waiting", sa.String()),
        *[sa.Column(name, sa.JSON(), nullable=False) for name in ("work", "affected_versions", "actions")],
        sa.Column("finished_at", sa.Double()),
        sa.UniqueConstraint("id"),
    )
