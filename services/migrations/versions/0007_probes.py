"""Probes of operators, their runs, and those that a sleep holds its candidate against."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from services.migrations.columns import listed

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    op.create_table(
        "probes",
        *listed(),
        sa.Column("deployment", sa.String(), sa.ForeignKey("deployments.id"), nullable=False, index=True),
        sa.Column("spec", sa.JSON(), nullable=False),
        sa.Column("visibility", sa.String(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.UniqueConstraint("id"),
    )
    op.create_table(
        "probe_runs",
        *listed(),
        sa.Column("deployment", sa.String(), sa.ForeignKey("deployments.id"), nullable=False),
        sa.Column("probe", sa.String(), nullable=False, index=True),
        sa.Column("spec", sa.JSON(), nullable=False),
        sa.Column("version", sa.String(), nullable=False),
        sa.Column("status", sa.String(), nullable=False, index=True),
        *(sa.Column(name, sa.Double()) for name in ("began_at", "finished_at", "score")),
        sa.Column("per_item", sa.JSON(), nullable=False),
        sa.Column("error", sa.JSON()),
        sa.UniqueConstraint("id"),
    )
    with op.batch_alter_table("sleeps") as table:
        table.add_column(sa.Column("probes", sa.JSON(), nullable=False, server_default="[]"))
    with op.batch_alter_table("sleeps") as table:
        table.alter_column("probes", server_default=None)
