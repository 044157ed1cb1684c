"""The registry's schema: the same on both databases, reached from every schema there ever was, and never half."""

from __future__ import annotations

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import inspect, text

from services.access import SCOPES
from services.migrations import head
from services.tables import ApiKey, Base, Database, Deployment, SchemaBehind
from services.tables.database import UnsupportedDatabase

OLD = Path(__file__).parent / "home_before_migrations.sql"
"""A home's database as the last release without migrations left it: one deployment, one sleep, its versions, experiences and key."""


def test_the_migrations_make_what_the_tables_say(empty_url: str) -> None:
    database = Database(empty_url, 5.0)
    with database.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, Base.metadata) == []
    database.close()


def test_a_database_that_is_up_to_date_is_left_as_it_is(empty_url: str) -> None:
    Database(empty_url, 5.0).close()
    again = Database(empty_url, 5.0, migrates=False)
    with again.read() as tx:
        assert tx.scalar(text("SELECT version_num FROM alembic_version")) == head()
    again.close()


def test_a_home_from_before_migrations_keeps_everything(tmp_path: Path) -> None:
    file = tmp_path / "circadian.db"
    with sqlite3.connect(file) as old:
        old.executescript(OLD.read_text())
        counts = {
            name: old.execute(f"SELECT count(*) FROM {name}").fetchone()[0] for name in ("deployments", "sleeps", "experiences")
        }
        hashed = old.execute("SELECT hmac_sha256 FROM api_keys").fetchone()[0]
    assert all(counts.values())
    database = Database(f"sqlite:///{file}", 5.0)
    with database.read() as tx:
        assert {name: tx.scalar(text(f"SELECT count(*) FROM {name}")) for name in counts} == counts
        key, deployment = tx.query(ApiKey).one(), tx.query(Deployment).one()
    assert (key.hmac_sha256, key.tenant, deployment.tenant) == (hashed, "default", "default")
    assert set(key.scopes) == set(SCOPES)
    fresh = Database(f"sqlite:///{tmp_path / 'fresh.db'}", 5.0)
    assert shape(database) == shape(fresh)
    for each in (database, fresh):
        each.close()


def shape(database: Database) -> dict[str, tuple[set[str], set[tuple[str, ...]]]]:
    """Of every table its columns, and which of them are unique together: old files have no names for that."""
    found = inspect(database.engine)
    return {
        name: (
            {column["name"] for column in found.get_columns(name)},
            {tuple(unique["column_names"]) for unique in found.get_unique_constraints(name)},
        )
        for name in found.get_table_names()
    }


def test_where_a_controller_may_not_migrate_it_says_what_to_run(empty_url: str) -> None:
    with pytest.raises(SchemaBehind, match=r"services\.migrate"):
        Database(empty_url, 5.0, migrates=False)


def test_where_a_controller_may_not_migrate_it_does_not_start_on_an_earlier_schema(empty_url: str) -> None:
    database = Database(empty_url, 5.0)
    with database.write() as tx:
        tx.execute(text("UPDATE alembic_version SET version_num = '0001'"))
    with pytest.raises(SchemaBehind, match=r"0001.*services\.migrate"):
        Database(empty_url, 5.0, migrates=False)
    database.close()


@pytest.mark.parametrize("migrates", [True, False])
def test_after_a_rollback_a_controller_starts_on_the_later_schema_and_leaves_it(empty_url: str, migrates: bool) -> None:
    database = Database(empty_url, 5.0)
    with database.write() as tx:
        tx.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    rolled_back = Database(empty_url, 5.0, migrates=migrates)
    assert rolled_back.is_current()
    with rolled_back.read() as tx:
        assert tx.scalar(text("SELECT version_num FROM alembic_version")) == "9999"
    for each in (rolled_back, database):
        each.close()


def test_of_two_controllers_that_start_at_once_both_find_the_schema(empty_url: str) -> None:
    with ThreadPoolExecutor(4) as pool:
        for database in pool.map(lambda _: Database(empty_url, 15.0), range(4)):
            database.close()


def test_another_kind_of_database_is_refused_with_the_remedy() -> None:
    with pytest.raises(UnsupportedDatabase, match="postgresql://"):
        Database("mysql://localhost/circadian", 5.0)
