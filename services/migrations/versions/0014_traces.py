"""Where in which trace (W3C Trace Context) experiences came in, nights and rollouts were lived and versions made, and whose traces are
still to be sent. Empty where nobody collects traces."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
TRACED = ("experiences", "experience_batches", "sleeps", "versions", "rollouts")
ASKED = ("sleeps", "rollouts")


def upgrade() -> None:
    for table in TRACED:
        op.add_column(table, sa.Column("trace", sa.String()))
    for table in ASKED:
        op.add_column(table, sa.Column("asked_trace", sa.String()))
    op.create_table(
        "untold_traces",
        sa.Column("object", sa.String(), nullable=False),
        sa.Column("life", sa.Integer(), nullable=False, autoincrement=False),
        sa.Column("deployment", sa.String(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("object", "life", name="pk_untold_traces"),
    )
    op.create_index("ix_untold_traces_deployment", "untold_traces", ["deployment"])
