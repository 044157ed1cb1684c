"""The schema of the registry, step by step: Alembic, run by the service itself.

    versions/NNNN_what.py   one step each; from release to release they only expand, so that the release before runs on the new schema

On PostgreSQL of two controllers that start at once one migrates and the other waits (an advisory lock); an SQLite file is locked by the
transaction. A database from before there were migrations is taken for what it is, the first step's result.
"""

from __future__ import annotations

import logging
from functools import cache

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect, text

log = logging.getLogger(__name__)
LOCK = 5_236_410_727
"""Of PostgreSQL's advisory locks: any number that nobody else of this database takes."""
FIRST = "0001"


class SchemaBehind(Exception):
    """The database has another schema than this release needs."""


def migrate(connection: Connection) -> None:
    """Bring the schema up to date, in the caller's transaction: wholly or not at all. A later release's is left as it is (`serves`)."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": LOCK})
    config = _config(connection)
    at = _revision(connection)
    if at is None and inspect(connection).has_table("deployments"):
        command.stamp(config, FIRST)
    elif at is not None and at not in _known():
        log.warning("the database has schema %s, which this release does not know and leaves as it is: a later release made it", at)
        return
    command.upgrade(config, "head")
    if connection.dialect.name == "sqlite" and (broken := connection.exec_driver_sql("PRAGMA foreign_key_check").first()):
        raise SchemaBehind(f"the database has a row in {broken[0]} that refers to none in {broken[2]}; restore it from a backup")


def check(connection: Connection) -> None:
    """Raises SchemaBehind where this release does not run on the schema (`serves`)."""
    if not serves(connection):
        at = _revision(connection) or "none"
        raise SchemaBehind(f"the database has schema {at}, this release needs {head()}; run `python -m services.migrate` first")


def serves(connection: Connection) -> bool:
    """Whether this release runs on the schema: its own, or a later one, made by a newer release beside which, or after which, it runs."""
    at = _revision(connection)
    return at is not None and (at == head() or at not in _known())


@cache
def head() -> str:
    """The last step of this release."""
    return ScriptDirectory.from_config(_config(None)).get_current_head() or FIRST


@cache
def _known() -> set[str]:
    return {script.revision for script in ScriptDirectory.from_config(_config(None)).walk_revisions()}


def _revision(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


def _config(connection: Connection | None) -> Config:
    config = Config()
    config.set_main_option("script_location", "services:migrations")
    config.attributes["connection"] = connection
    return config
