"""How long the answers of canaries take, and those of the versions beside them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    with op.batch_alter_table("rollouts") as table:
        table.add_column(sa.Column("paces", sa.JSON(), nullable=False, server_default="{}"))
    with op.batch_alter_table("rollouts") as table:
        table.alter_column("paces", server_default=None)
