"""Filters of lists: `metadata[key]=value`, as OpenAI's clients send them, and what an experience's status is made of."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Depends, Request
from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import InstrumentedAttribute, Session

from services.errors import Problem
from services.metadata import METADATA_PAIRS, NUL
from services.tables import ExperienceRow

PREFIX, END = "metadata[", "]"
METADATA_PARAMETER: dict[str, Any] = {
    "parameters": [
        {
            "name": "metadata",
            "in": "query",
            "description": "`metadata[key]=value`: those with this pair; several: with all of them",
            "style": "deepObject",
            "explode": True,
            "schema": {"type": "object", "additionalProperties": {"type": "string"}},
        }
    ]
}
"""FastAPI has no word for it."""


def _pairs(request: Request) -> dict[str, str]:
    """Raises Problem (422)."""
    named = [(key, value) for key, value in request.query_params.multi_items() if key.startswith(PREFIX) and key.endswith(END)]
    pairs = {key[len(PREFIX) : -len(END)]: value for key, value in named}
    if len(pairs) > METADATA_PAIRS or any(NUL in text for pair in pairs.items() for text in pair):
        raise Problem(
            422, "validation_failed", f"metadata: at most {METADATA_PAIRS} pairs, without NUL characters", param="metadata"
        )
    return pairs


MetadataFilter = Annotated[dict[str, str], Depends(_pairs)]


def with_metadata(tx: Session, column: InstrumentedAttribute[Any], pairs: dict[str, str]) -> list[ColumnElement[bool]]:
    """That a row's metadata has all of these pairs."""
    if tx.get_bind().dialect.name == "postgresql":
        return [column.op("->>")(key) == value for key, value in pairs.items()]
    # Not `->>` or a path: SQLite has no way to write a key with a quotation mark in one.
    each = func.json_each(column).table_valued("key", "atom")
    return [select(1).select_from(each).where(each.c.key == key, each.c.atom == value).exists() for key, value in pairs.items()]


def with_status(status: str) -> ColumnElement[bool]:
    """That an experience has this status, as clients see it."""
    gone = ExperienceRow.status.in_(("expired", "erased"))
    kept, left = ExperienceRow.consolidated_in.is_not(None), ExperienceRow.left_out.is_not(None)
    if status in ("expired", "erased"):
        return ExperienceRow.status == status
    if status == "consolidated":
        return kept & ~gone
    return left & ~kept & ~gone if status == "left_out" else (ExperienceRow.status == status) & ~kept & ~left
