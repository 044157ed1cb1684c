"""Since when a cluster has a night's job and has not begun it. Empty where it runs, as for every night of before."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"


def upgrade() -> None:
    op.add_column("sleeps", sa.Column("pending_since", sa.Double()))
