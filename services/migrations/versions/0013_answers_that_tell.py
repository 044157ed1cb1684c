"""Which experience an answer tells that is kept to be given again. Those from before are forgotten within a day."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    op.add_column("repeatable_requests", sa.Column("experience", sa.String()))
    op.create_index("ix_repeatable_requests_experience", "repeatable_requests", ["experience"])
