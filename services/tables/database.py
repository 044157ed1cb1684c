"""The registry's database: SQLite in WAL mode by default, PostgreSQL by URL. Its schema is brought up to date when it is opened."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import URL, Engine, create_engine, event
from sqlalchemy.engine import Connection, make_url
from sqlalchemy.orm import Session, sessionmaker

from services.migrations import SchemaBehind, check, migrate, serves

__all__ = ["Database", "SchemaBehind"]
CONNECT_SECONDS = 10
SILENT_SECONDS = 30
"""After which a connection whose other end has vanished is broken: a machine that is gone refuses nothing, and Linux itself would wait for
a quarter of an hour, or two hours. A server that is slow still acknowledges what it gets, and loses no connection."""
PROBES, PROBE_SECONDS = 3, 5
"""That a connection on which nothing is said gets before that, and the seconds between them."""
ALIVE = {
    "keepalives": 1,
    "keepalives_idle": SILENT_SECONDS - PROBES * PROBE_SECONDS,
    "keepalives_interval": PROBE_SECONDS,
    "keepalives_count": PROBES,
    "tcp_user_timeout": SILENT_SECONDS * 1000,
}
"""As libpq takes them; it keeps them to itself, so a pool in between sees none of them, and leaves them out on a Unix socket. What the URL
says of them goes first."""
POOL, OVERFLOW = 10, 30
"""Connections to PostgreSQL that are kept, and that come on top under load: one a thread that asks, at most."""


def alive(url: URL) -> dict[str, int]:
    """What a connection to PostgreSQL is asked to notice, in libpq's words, but what the URL says of it."""
    return {name: value for name, value in ALIVE.items() if name not in url.query}


class UnsupportedDatabase(Exception):
    """A URL of a database that the service cannot live on."""


class Database:
    """Transactions on the registry. Rows stay readable after their transaction has ended."""

    def __init__(self, url: str, busy_seconds: float, *, migrates: bool = True) -> None:
        """Raises SchemaBehind where this release does not run on the schema and may not change it, UnsupportedDatabase for other kinds."""
        setup = _engine(make_url(url), busy_seconds, foreign_keys=False)  # SQLite alters a table by making it anew
        try:
            with setup.execution_options(circadian_write=True).begin() as connection:
                migrate(connection) if migrates else check(connection)
        finally:
            setup.dispose()
        self.engine = _engine(make_url(url), busy_seconds)
        writing = self.engine.execution_options(circadian_write=True)
        self._read = sessionmaker(self.engine, expire_on_commit=False)
        self._write = sessionmaker(writing, expire_on_commit=False)
        self._turn = threading.Lock() if self.engine.dialect.name == "sqlite" else None
        self._busy_seconds = busy_seconds

    def is_current(self) -> bool:
        """Whether the schema is one that this release runs on."""
        with self.engine.connect() as connection:
            return serves(connection)

    @contextmanager
    def read(self) -> Iterator[Session]:
        with self._read() as session:
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        """Commits at the end, rolls back on an exception.

        SQLite lets one write at a time, and who finds it busy sleeps and looks again: threads of this process take turns before that.
        """
        with self._turns(), self._write.begin() as session:
            yield session

    @contextmanager
    def _turns(self) -> Iterator[None]:
        """Not for ever: whoever has waited as long as SQLite would goes on, to be told by it that the database is locked."""
        taken = self._turn is not None and self._turn.acquire(timeout=self._busy_seconds)
        try:
            yield
        finally:
            if self._turn is not None and taken:
                self._turn.release()

    def close(self) -> None:
        self.engine.dispose()


def _engine(url: URL, busy_seconds: float, *, foreign_keys: bool = True) -> Engine:
    backend = url.get_backend_name()
    if backend == "sqlite":
        _create_file(url)
        engine = create_engine(url, connect_args={"timeout": busy_seconds})
        _prepare_sqlite(engine, foreign_keys)
        return engine
    if backend == "postgresql":
        milliseconds = int(busy_seconds * 1000)
        bounds = f"-c lock_timeout={milliseconds} -c idle_in_transaction_session_timeout={4 * milliseconds} -c timezone=UTC"
        return create_engine(
            url.set(drivername="postgresql+psycopg"),
            connect_args={"connect_timeout": CONNECT_SECONDS, "options": bounds, **alive(url)},
            pool_size=POOL,
            max_overflow=OVERFLOW,
            pool_timeout=busy_seconds,
            pool_pre_ping=True,
        )
    raise UnsupportedDatabase(f"database_url: {backend} is not supported; give sqlite:///FILE or postgresql://USER@HOST/NAME")


def _create_file(url: URL) -> None:
    """An SQLite file is its owner's alone, and with it the files that SQLite puts beside it."""
    if url.database:
        os.close(os.open(url.database, os.O_RDWR | os.O_CREAT, 0o600))


def _prepare_sqlite(engine: Engine, foreign_keys: bool) -> None:
    """Readers never wait; a commit is on disk when it returns; a writer takes its lock at once, so it cannot lose it."""

    @event.listens_for(engine, "connect")
    def _connect(connection: Any, _: Any) -> None:
        connection.isolation_level = None
        for pragma in ("journal_mode=WAL", "synchronous=FULL", f"foreign_keys={'ON' if foreign_keys else 'OFF'}"):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        writes = connection.get_execution_options().get("circadian_write")
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
