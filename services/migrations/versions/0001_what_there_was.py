"""The schema from before there were migrations: deployments, experiences, sleeps, versions, events."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from services.migrations.columns import NUMBER, listed

revision = "0001"
down_revision = None

ACTIVE = sa.text("status IN ('queued', 'preparing', 'running', 'evaluating', 'cancelling')")


def upgrade() -> None:
    _listed(
        "deployments",
        *(sa.Column(name, sa.String(), nullable=False) for name in ("name", "active_version")),
        *(sa.Column(name, sa.JSON(), nullable=False) for name in ("base_model", "memory", "recipe", "serving")),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("error", sa.String()),
        sa.UniqueConstraint("name"),
    )
    _listed(
        "experiences",
        _of_deployment(),
        sa.Column("body", sa.JSON(), nullable=False),
        sa.Column("source", sa.String(), nullable=False),
        sa.Column("tokens", sa.Integer(), nullable=False),
        sa.Column("sleep", sa.String(), index=True),
        sa.Column("consolidated_in", sa.String()),
        sa.Column("left_out", sa.String()),
    )
    _listed("sleeps", _of_deployment(), *_sleep())
    op.create_index(
        "one_active_sleep_per_deployment", "sleeps", ["deployment"], unique=True, sqlite_where=ACTIVE, postgresql_where=ACTIVE
    )
    _listed(
        "versions",
        _of_deployment(),
        sa.Column("parent", sa.String()),
        sa.Column("sleep", sa.String()),
        sa.Column("folder", sa.String(), nullable=False),
        sa.Column("record", sa.JSON(), nullable=False),
        sa.Column("status", sa.String(), nullable=False),
    )
    _beside()


def _listed(name: str, *columns: sa.schema.SchemaItem) -> None:
    """A table of objects that clients list."""
    op.create_table(
        name,
        *listed(),
        *columns,
        sa.UniqueConstraint("id"),
    )


def _of_deployment() -> sa.Column[str]:
    return sa.Column("deployment", sa.String(), sa.ForeignKey("deployments.id"), nullable=False, index=True)


def _sleep() -> list[sa.schema.SchemaItem]:
    return [
        sa.Column("finished_at", sa.Double()),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("phase", sa.String()),
        sa.Column("outcome", sa.String()),
        sa.Column("error", sa.JSON()),
        sa.Column("seed", sa.Integer(), nullable=False),
        sa.Column("recipe", sa.JSON(), nullable=False),
        sa.Column("held_out", sa.JSON(), nullable=False),
        *(sa.Column(name, sa.String(), nullable=False) for name in ("request_sha256", "parent_version", "child_version")),
        sa.Column("result_version", sa.String()),
        sa.Column("began_at", sa.Double()),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("submitted", sa.Boolean(), nullable=False),
        sa.Column("waiting", sa.String()),
        *(sa.Column(name, sa.JSON(), nullable=False) for name in ("left_out", "progress")),
        sa.Column("last_seq", sa.Integer(), nullable=False),
        sa.Column("events_offset", sa.BigInteger(), nullable=False),
        sa.Column("fast", sa.String(16), nullable=False),
        sa.Column("fast_delivery", sa.String()),
        sa.Column("rest_delivery", sa.String()),
        sa.Column("report", sa.JSON()),
    ]


def _beside() -> None:
    """What clients do not list by itself."""
    op.create_table(
        "events",
        sa.Column("number", NUMBER, primary_key=True, autoincrement=True),
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("sleep", sa.String(), nullable=False, index=True),
        sa.Column("seq", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        *(sa.Column(name, sa.String(), nullable=False) for name in ("type", "level", "message")),
        sa.Column("data", sa.JSON(), nullable=False),
        sa.UniqueConstraint("id"),
        sa.UniqueConstraint("sleep", "seq"),
    )
    op.create_table(
        "fast_memories",
        sa.Column("deployment", sa.String(), sa.ForeignKey("deployments.id"), primary_key=True),
        sa.Column("version", sa.String(), nullable=False),
        *(sa.Column(name, sa.Integer(), nullable=False) for name in ("day", "chunks", "tokens")),
        sa.Column("checksum", sa.String()),
        sa.Column("error", sa.String()),
    )
    op.create_table(
        "learned_online",
        sa.Column("experience", sa.String(), primary_key=True),
        sa.Column("deployment", sa.String(), nullable=False, index=True),
        sa.Column("chunk", sa.Integer(), nullable=False),
    )
    op.create_table(
        "stray_jobs",
        sa.Column("id", sa.String(), primary_key=True),
        sa.Column("sleep", sa.String(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
    )
    op.create_table(
        "api_keys",
        sa.Column("id", sa.String(), primary_key=True),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("prefix", sa.String(), nullable=False),
        sa.Column("hmac_sha256", sa.String(), nullable=False),
    )
