"""Sleeps that pause, are retried and have budgets; and which experiences each was begun on."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"

AT_FIRST: dict[str, tuple[sa.types.TypeEngine[Any], Any]] = {
    "selection": (sa.JSON(), "{}"),
    "budget": (sa.JSON(), "{}"),
    "failures": (sa.Integer(), "0"),
    "life": (sa.Integer(), "0"),
    "paused_seconds": (sa.Double(), "0"),
    "starts_over": (sa.Boolean(), sa.false()),
}
ONE_ACTIVE = "one_active_sleep_per_deployment"
ACTIVE = "status IN ('queued', 'preparing', 'running', 'evaluating', 'pausing', 'paused', 'cancelling')"


def upgrade() -> None:
    op.drop_index(ONE_ACTIVE, table_name="sleeps")
    with op.batch_alter_table("sleeps") as table:
        for name, (kind, value) in AT_FIRST.items():
            table.add_column(sa.Column(name, kind, nullable=False, server_default=value))
        for name in ("retry_at", "stop_at", "paused_at"):
            table.add_column(sa.Column(name, sa.Double()))
    with op.batch_alter_table("sleeps") as table:
        for name in AT_FIRST:
            table.alter_column(name, server_default=None)
    op.execute("UPDATE sleeps SET failures = attempt - 1 WHERE attempt > 0")
    where = sa.text(ACTIVE)
    op.create_index(ONE_ACTIVE, "sleeps", ["deployment"], unique=True, sqlite_where=where, postgresql_where=where)
    op.create_table(
        "taken_experiences",
        sa.Column("sleep", sa.String(), primary_key=True),
        sa.Column("experience", sa.String(), primary_key=True),
    )
    op.execute("INSERT INTO taken_experiences (sleep, experience) SELECT sleep, id FROM experiences WHERE sleep IS NOT NULL")
