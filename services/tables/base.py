"""What all tables share.

`number` orders rows and is never shown; `id` is what clients see. Times are Unix seconds.
"""

from __future__ import annotations

import secrets
import time
from enum import StrEnum
from typing import Any

from sqlalchemy import JSON, BigInteger, Enum, Integer, MetaData
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from services.states import FastState, ServingState, SleepStatus

Json = dict[str, Any]
ID_BYTES = 9
"""72 random bits: no two ids meet in the life of a service."""
NAMES = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}
"""Of indices and constraints, so that a later migration can name what it changes on every database."""


NUMBER = BigInteger().with_variant(Integer(), "sqlite")
"""SQLite counts only what it calls an integer."""


def new_id(prefix: str) -> str:
    """A fresh id, for example `slp_5f2c...`."""
    return f"{prefix}_{secrets.token_hex(ID_BYTES)}"


def values_of(states: type[StrEnum]) -> Enum:
    """A column of these states, kept as text."""
    return Enum(states, native_enum=False, values_callable=list, length=16)


class Base(DeclarativeBase):
    metadata = MetaData(naming_convention=NAMES)
    type_annotation_map = {
        Json: JSON,
        list[str]: JSON,
        SleepStatus: values_of(SleepStatus),
        FastState: values_of(FastState),
        ServingState: values_of(ServingState),
    }


class Row(Base):
    """What every listed object has."""

    __abstract__ = True
    number: Mapped[int] = mapped_column(NUMBER, primary_key=True, autoincrement=True)
    id: Mapped[str] = mapped_column(unique=True)
    created_at: Mapped[float] = mapped_column(default=time.time)
    meta: Mapped[Json] = mapped_column("metadata", default=dict)
