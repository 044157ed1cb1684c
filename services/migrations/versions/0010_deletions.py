"""Deployments that are being deleted."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    with op.batch_alter_table("deployments") as table:
        table.add_column(sa.Column("deleting_at", sa.Double()))
        table.add_column(sa.Column("forgotten_at", sa.Double()))
