"""Keys with scopes, tenants, the audit log, the lease on leading, and requests that may be repeated."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from services.migrations.columns import listed

revision = "0002"
down_revision = "0001"

FIRST_TENANT = "default"
"""Whose everything is that was there before there were tenants."""
SCOPES = (
    "inference:write experiences:read experiences:write sleeps:read sleeps:write versions:read versions:promote schedules:write "
    "probes:read probes:write deployments:read deployments:admin audit:read keys:admin gates:override tenants:admin"
)
"""All there were when this was written."""


def upgrade() -> None:
    with op.batch_alter_table("deployments") as table:
        table.add_column(sa.Column("tenant", sa.String(), nullable=False, server_default=FIRST_TENANT))
    with op.batch_alter_table("deployments") as table:
        table.alter_column("tenant", server_default=None)
    _keys()
    op.create_table(
        "audit_events",
        *listed(),
        sa.Column("tenant", sa.String(), nullable=False, index=True),
        *(sa.Column(name, sa.String(), nullable=False) for name in ("actor", "action", "object", "digest")),
        sa.Column("request", sa.String()),
        sa.Column("data", sa.JSON(), nullable=False),
        sa.UniqueConstraint("id"),
    )
    op.create_table(
        "leadership",
        sa.Column("id", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("holder", sa.String(), nullable=False),
        sa.Column("term", sa.Integer(), nullable=False),
        sa.Column("until", sa.Double(), nullable=False),
    )
    op.create_table(
        "repeatable_requests",
        sa.Column("key", sa.String(), primary_key=True),
        sa.Column("request_sha256", sa.String(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False, index=True),
        sa.Column("status", sa.Integer()),
        sa.Column("headers", sa.JSON(), nullable=False),
        sa.Column("body", sa.String()),
    )


def _keys() -> None:
    """The keys that are there keep what they could do: everything."""
    old = op.get_bind().execute(sa.text("SELECT id, created_at, prefix, hmac_sha256 FROM api_keys")).mappings().all()
    op.drop_table("api_keys")
    keys = op.create_table(
        "api_keys",
        *listed(),
        sa.Column("tenant", sa.String(), nullable=False, index=True),
        *(sa.Column(name, sa.String(), nullable=False) for name in ("name", "prefix", "hmac_sha256")),
        sa.Column("scopes", sa.JSON(), nullable=False),
        sa.Column("deployments", sa.JSON()),
        sa.Column("requests_per_minute", sa.Integer()),
        *(sa.Column(name, sa.Double()) for name in ("expires_at", "last_used_at", "revoked_at")),
        sa.Column("created_by", sa.String()),
        sa.UniqueConstraint("id"),
        sa.UniqueConstraint("hmac_sha256"),
    )
    new = {"metadata": {}, "tenant": FIRST_TENANT, "name": "operator", "scopes": SCOPES.split()}
    if old:
        op.bulk_insert(keys, [dict(row) | new for row in old])
