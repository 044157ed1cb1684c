"""What several steps have in common. Never changed once released: a step must do tomorrow what it did today."""

from __future__ import annotations

import sqlalchemy as sa

NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
"""SQLite counts only what it calls an integer."""


def listed() -> list[sa.Column[object]]:
    """Columns of objects that clients list."""
    return [
        sa.Column("number", NUMBER, primary_key=True, autoincrement=True),
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("metadata", sa.JSON(), nullable=False),
    ]
