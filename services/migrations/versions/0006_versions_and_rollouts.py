"""What becomes of versions: which experiences each keeps, promotion by hand, canaries and rollbacks; where nights lie; names that are a
tenant's own."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from services.migrations.columns import listed

revision = "0006"
down_revision = "0005"

NAMES = {"uq": "uq_%(table_name)s_%(column_0_N_name)s"}
KEPT = """
INSERT INTO lineage (version, experience)
SELECT consolidated_in, id FROM experiences WHERE consolidated_in IS NOT NULL
"""
LEFT_OUT = """
INSERT INTO lineage (version, experience, left_out)
SELECT sleeps.result_version, experiences.id, experiences.left_out
FROM experiences JOIN sleeps ON sleeps.id = experiences.sleep
WHERE experiences.left_out IS NOT NULL AND sleeps.result_version IS NOT NULL
"""


def upgrade() -> None:
    op.create_table(
        "lineage",
        sa.Column("version", sa.String(), primary_key=True),
        sa.Column("experience", sa.String(), primary_key=True, index=True),
        sa.Column("left_out", sa.String()),
    )
    op.execute(KEPT)
    op.execute(LEFT_OUT)
    _rollouts()
    with op.batch_alter_table("deployments", naming_convention=NAMES) as table:
        table.add_column(sa.Column("promotion", sa.JSON(), nullable=False, server_default="{}"))
        table.add_column(sa.Column("canary", sa.JSON()))
        table.drop_constraint("uq_deployments_name", type_="unique")
        table.create_unique_constraint("uq_deployments_tenant_name", ["tenant", "name"])
    with op.batch_alter_table("sleeps") as table:
        table.add_column(sa.Column("promotion", sa.JSON(), nullable=False, server_default="{}"))
        table.add_column(sa.Column("placement", sa.String()))
        table.add_column(sa.Column("placed", sa.JSON()))
        table.add_column(sa.Column("lent", sa.Boolean(), nullable=False, server_default=sa.false()))
    with op.batch_alter_table("versions") as table:
        table.add_column(sa.Column("gates", sa.JSON(), nullable=False, server_default="[]"))
        table.add_column(sa.Column("signature", sa.JSON()))
    for name, column in (("deployments", "promotion"), ("sleeps", "promotion"), ("sleeps", "lent"), ("versions", "gates")):
        with op.batch_alter_table(name) as table:
            table.alter_column(column, server_default=None)


def _rollouts() -> None:
    op.create_table(
        "rollouts",
        *listed(),
        sa.Column("deployment", sa.String(), sa.ForeignKey("deployments.id"), nullable=False, index=True),
        *(sa.Column(name, sa.String(), nullable=False) for name in ("kind", "strategy", "from_version", "to_version", "was")),
        *(sa.Column(name, sa.String(), nullable=False) for name in ("status", "started_by")),
        sa.Column("overridden", sa.JSON(), nullable=False),
        sa.Column("canary", sa.JSON()),
        *(sa.Column(name, sa.Integer(), nullable=False) for name in ("requests", "errors")),
        *(sa.Column(name, sa.Double()) for name in ("live_at", "finished_at")),
        *(sa.Column(name, sa.String()) for name in ("reason", "error", "abort")),
        sa.UniqueConstraint("id"),
    )
    running = sa.text("status = 'running'")
    op.create_index(
        "one_running_rollout_per_deployment",
        "rollouts",
        ["deployment"],
        unique=True,
        sqlite_where=running,
        postgresql_where=running,
    )
