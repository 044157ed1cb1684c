"""Tables of the registry, and how to open it. SQLite in WAL mode by default, any SQLAlchemy URL otherwise.

`number` orders rows and is never shown; `id` is what clients see. Times are Unix seconds.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import Any

from sqlalchemy import JSON, Engine, Enum, ForeignKey, Index, UniqueConstraint, create_engine, event, text
from sqlalchemy.engine import Connection, make_url
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship, sessionmaker

from services.states import ACTIVE, FastState, ServingState, SleepStatus

Json = dict[str, Any]
ID_BYTES = 9
"""72 random bits: no two ids meet in the life of a service."""


_ACTIVE_SQL = f"status IN ({', '.join(repr(status.value) for status in ACTIVE)})"


def new_id(prefix: str) -> str:
    """A fresh id, for example `slp_5f2c...`."""
    return f"{prefix}_{secrets.token_hex(ID_BYTES)}"


def _values(states: type[StrEnum]) -> Enum:
    return Enum(states, native_enum=False, values_callable=list, length=16)


class Base(DeclarativeBase):
    type_annotation_map = {
        Json: JSON,
        list[str]: JSON,
        SleepStatus: _values(SleepStatus),
        FastState: _values(FastState),
        ServingState: _values(ServingState),
    }


class Row(Base):
    """What every listed object has."""

    __abstract__ = True
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    id: Mapped[str] = mapped_column(unique=True)
    created_at: Mapped[float] = mapped_column(default=time.time)
    meta: Mapped[Json] = mapped_column("metadata", default=dict)


class Deployment(Row):
    """A model that is served, and which version of it."""

    __tablename__ = "deployments"
    name: Mapped[str] = mapped_column(unique=True)
    base_model: Mapped[Json]
    memory: Mapped[Json]
    recipe: Mapped[Json]
    serving: Mapped[Json]
    active_version: Mapped[str]
    state: Mapped[ServingState] = mapped_column(default=ServingState.PROVISIONING)
    error: Mapped[str | None] = mapped_column(default=None)
    fast: Mapped[FastMemory | None] = relationship(lazy="joined")
    """Of one that learns online."""


class ExperienceRow(Row):
    """Something met while awake. `sleep` is the night that has taken it; then either `consolidated_in` is the version that keeps it, or
    `left_out` says why that night's version does not: it is not offered to another."""

    __tablename__ = "experiences"
    deployment: Mapped[str] = mapped_column(ForeignKey("deployments.id"), index=True)
    body: Mapped[Json]
    source: Mapped[str]
    tokens: Mapped[int]
    sleep: Mapped[str | None] = mapped_column(default=None, index=True)
    consolidated_in: Mapped[str | None] = mapped_column(default=None)
    left_out: Mapped[str | None] = mapped_column(default=None)


class FastMemory(Base):
    """The fast memory of a deployment that learns online; one that learns at dusk has none."""

    __tablename__ = "fast_memories"
    deployment: Mapped[str] = mapped_column(ForeignKey("deployments.id"), primary_key=True)
    version: Mapped[str]
    """The version beneath it."""
    day: Mapped[int] = mapped_column(default=1)
    """Counted up whenever it is emptied: its files are in a folder of the day."""
    chunks: Mapped[int] = mapped_column(default=0)
    """That are committed."""
    tokens: Mapped[int] = mapped_column(default=0)
    """Of these chunks."""
    checksum: Mapped[str | None] = mapped_column(default=None)
    """Of the expert after the last one."""
    error: Mapped[str | None] = mapped_column(default=None)
    """Why no more is learned today."""


class Learned(Base):
    """An experience that a fast memory has learned online."""

    __tablename__ = "learned_online"
    experience: Mapped[str] = mapped_column(primary_key=True)
    deployment: Mapped[str] = mapped_column(index=True)
    chunk: Mapped[int]


class Sleep(Row):
    """One night of a deployment. At most one is active: the database itself refuses a second."""

    __tablename__ = "sleeps"
    deployment: Mapped[str] = mapped_column(ForeignKey("deployments.id"), index=True)
    finished_at: Mapped[float | None] = mapped_column(default=None)
    status: Mapped[SleepStatus] = mapped_column(default=SleepStatus.QUEUED)
    phase: Mapped[str | None] = mapped_column(default=None)
    outcome: Mapped[str | None] = mapped_column(default=None)
    error: Mapped[Json | None] = mapped_column(default=None)
    seed: Mapped[int] = mapped_column(default=0)
    recipe: Mapped[Json]
    held_out: Mapped[list[str]]
    request_sha256: Mapped[str]
    parent_version: Mapped[str]
    child_version: Mapped[str]
    result_version: Mapped[str | None] = mapped_column(default=None)
    began_at: Mapped[float | None] = mapped_column(default=None)
    """When the first attempt was to be submitted."""
    attempt: Mapped[int] = mapped_column(default=0)
    """Of the night, from 1 on; written before its job is submitted, so that a submission whose answer is lost is not forgotten."""
    submitted: Mapped[bool] = mapped_column(default=False)
    """The cluster has confirmed this attempt's job."""
    waiting: Mapped[str | None] = mapped_column(default=None)
    """Why a queued sleep does not begin."""
    left_out: Mapped[Json] = mapped_column(default=dict)
    """Of the experiences that the night could not learn, how many for which reason."""
    progress: Mapped[Json] = mapped_column(default=dict)
    last_seq: Mapped[int] = mapped_column(default=0)
    events_offset: Mapped[int] = mapped_column(default=0)
    """Bytes of the night's events.jsonl that are in the events table."""
    fast: Mapped[FastState] = mapped_column(default=FastState.NONE)
    fast_delivery: Mapped[str | None] = mapped_column(default=None)
    rest_delivery: Mapped[str | None] = mapped_column(default=None)
    report: Mapped[Json | None] = mapped_column(default=None)

    __table_args__ = (
        Index(
            "one_active_sleep_per_deployment",
            "deployment",
            unique=True,
            sqlite_where=text(_ACTIVE_SQL),
            postgresql_where=text(_ACTIVE_SQL),
        ),
    )


class StrayJob(Base):
    """A night's job that must end, because its sleep has; `id` is its submission id."""

    __tablename__ = "stray_jobs"
    id: Mapped[str] = mapped_column(primary_key=True)
    sleep: Mapped[str]
    created_at: Mapped[float] = mapped_column(default=time.time)


class Version(Row):
    """A version folder, and whether it serves."""

    __tablename__ = "versions"
    deployment: Mapped[str] = mapped_column(ForeignKey("deployments.id"), index=True)
    parent: Mapped[str | None]
    sleep: Mapped[str | None]
    folder: Mapped[str]
    record: Mapped[Json]
    """version.json."""
    status: Mapped[str]
    """candidate, active, retired or rejected."""


class Event(Base):
    """Something that happened in a sleep; `seq` counts from 1 without gaps."""

    __tablename__ = "events"
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    id: Mapped[str] = mapped_column(unique=True)
    sleep: Mapped[str] = mapped_column(index=True)
    seq: Mapped[int]
    created_at: Mapped[float]
    type: Mapped[str]
    level: Mapped[str] = mapped_column(default="info")
    message: Mapped[str]
    data: Mapped[Json]
    __table_args__ = (UniqueConstraint("sleep", "seq"),)


class ApiKey(Base):
    """A key's HMAC; the key itself is kept nowhere."""

    __tablename__ = "api_keys"
    id: Mapped[str] = mapped_column(primary_key=True)
    created_at: Mapped[float] = mapped_column(default=time.time)
    prefix: Mapped[str]
    hmac_sha256: Mapped[str]


class Database:
    """Transactions on the registry. Rows stay readable after their transaction has ended."""

    def __init__(self, url: str, busy_seconds: float) -> None:
        _create_file(url)
        self.engine = create_engine(url, connect_args={"timeout": busy_seconds} if url.startswith("sqlite") else {})
        if self.engine.dialect.name == "sqlite":
            _prepare_sqlite(self.engine)
        Base.metadata.create_all(self.engine)
        self._read = sessionmaker(self.engine, expire_on_commit=False)
        self._write = sessionmaker(self.engine.execution_options(circadian_write=True), expire_on_commit=False)

    @contextmanager
    def read(self) -> Iterator[Session]:
        with self._read() as session:
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        """Commits at the end, rolls back on an exception."""
        with self._write.begin() as session:
            yield session

    def close(self) -> None:
        self.engine.dispose()


def _create_file(url: str) -> None:
    """An SQLite file is its owner's alone, and with it the files that SQLite puts beside it."""
    parts = make_url(url)
    if parts.get_backend_name() == "sqlite" and parts.database and parts.database != ":memory:":
        os.close(os.open(parts.database, os.O_RDWR | os.O_CREAT, 0o600))


def _prepare_sqlite(engine: Engine) -> None:
    """Readers never wait; a commit is on disk when it returns; a writer takes its lock at once, so it cannot lose it."""

    @event.listens_for(engine, "connect")
    def _connect(connection: Any, _: Any) -> None:
        connection.isolation_level = None
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        writes = connection.get_execution_options().get("circadian_write")
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
