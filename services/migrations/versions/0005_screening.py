"""Screening: what deployments ask of experiences, what was found in them, whose they are, and what was said about them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from services.migrations.columns import listed

revision = "0005"
down_revision = "0004"

AT_FIRST = {"status": "pending", "reasons": "[]", "findings": "{}"}


def upgrade() -> None:
    with op.batch_alter_table("deployments") as table:
        table.add_column(sa.Column("screening", sa.JSON(), nullable=False, server_default="{}"))
    with op.batch_alter_table("deployments") as table:
        table.alter_column("screening", server_default=None)
    with op.batch_alter_table("experiences") as table:
        table.add_column(sa.Column("status", sa.String(), nullable=False, server_default=AT_FIRST["status"]))
        for name in ("reasons", "findings"):
            table.add_column(sa.Column(name, sa.JSON(), nullable=False, server_default=AT_FIRST[name]))
        for name in ("sender", "subject", "session", "uri", "dedupe_key"):
            table.add_column(sa.Column(name, sa.String()))
        table.add_column(sa.Column("consent", sa.Boolean()))
        table.add_column(sa.Column("occurred_at", sa.Double()))
        table.add_column(sa.Column("signature", sa.LargeBinary()))
    with op.batch_alter_table("experiences") as table:
        for name in AT_FIRST:
            table.alter_column(name, server_default=None)
        table.create_index("ix_experiences_subject", ["subject"])
        table.create_index("ix_experiences_sender_created_at", ["sender", "created_at"])
        table.create_unique_constraint("uq_experiences_deployment_dedupe_key", ["deployment", "dedupe_key"])
    op.create_table(
        "experience_bands",
        sa.Column("deployment", sa.String(), primary_key=True),
        sa.Column("band", sa.String(), primary_key=True),
        sa.Column("experience", sa.String(), primary_key=True),
    )
    op.create_table(
        "feedback",
        *listed(),
        sa.Column("experience", sa.String(), nullable=False, index=True),
        sa.Column("reward", sa.Double()),
        sa.Column("label", sa.String()),
        sa.Column("comment", sa.String()),
        sa.Column("given_by", sa.String(), nullable=False),
        sa.UniqueConstraint("id"),
    )
