"""Which of the waiting experiences a sleep takes: those it asks for, oldest first, under the deployment's caps and its own budget.

What a sleep was begun on is written down (`Taken`) beside the mark on each experience: the mark goes when the sleep ends, and the same
sleep can be tried again on the same experiences.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator
from sqlalchemy import ColumnElement, func, insert, literal, select, update
from sqlalchemy.orm import Session

from circadian.specs import PositiveInt, Spec
from circadian.specs.screening import ScreeningSpec
from services import registry
from services.budget import Budget
from services.errors import Problem
from services.screening import Candidate, within_caps
from services.tables import Deployment, ExperienceRow, Taken

MOST_IDS = 10_000
"""Experiences that can be named: more are asked for by what they have in common."""
Text = Annotated[str, Field(min_length=1, max_length=256)]


class Selection(Spec):
    """Of the experiences that wait, those that a sleep is to take. All that is given must hold."""

    experience_ids: Annotated[tuple[Text, ...], Field(min_length=1, max_length=MOST_IDS)] | None = None
    """These and no others; each must be waiting."""
    source: Literal["wake", "import", "human", "tool"] | None = None
    subject_id: Text | None = None
    session_id: Text | None = None
    created_after: Annotated[float, Field(ge=0.0)] | None = None
    """Unix seconds; those of that very moment are not among them."""
    created_before: Annotated[float, Field(ge=0.0)] | None = None
    max_experiences: PositiveInt | None = None
    """The oldest of them; the others wait for the next sleep."""

    @model_validator(mode="after")
    def _some_time(self) -> Self:
        if self.created_after is not None and self.created_before is not None and self.created_after >= self.created_before:
            raise ValueError(
                "created_after is not before created_before, so nothing was created between; swap them, or leave one out"
            )
        return self


@dataclass(frozen=True)
class Chosen:
    """What a sleep takes."""

    ids: tuple[str, ...]
    """Oldest first."""
    tokens: int
    left: int
    """Experiences that were asked for and wait all the same: over the caps, the budget or max_experiences."""


def choose(tx: Session, deployment: Deployment, selection: Selection, budget: Budget) -> Chosen:
    """From what waits now. Raises Problem where an experience is named that does not wait."""
    columns = (ExperienceRow.id, ExperienceRow.sender, ExperienceRow.source, ExperienceRow.created_at, ExperienceRow.subject)
    where = (*registry.pending_where(deployment.id), *_where(selection))
    rows = tx.execute(select(*columns, ExperienceRow.tokens).where(*where)).all()
    _all_wait(selection.experience_ids or (), {row[0] for row in rows})
    candidates = [Candidate(id, f"{sender}/{source}", at, subject) for id, sender, source, at, subject, _ in rows]
    allowed, _ = within_caps(candidates, ScreeningSpec.model_validate(deployment.screening))
    ids, tokens = affordable(allowed, {row[0]: row[5] for row in rows}, selection.max_experiences, budget.max_tokens)
    return Chosen(ids, tokens, len(rows) - len(ids))


def affordable(
    ids: Sequence[str], tokens: dict[str, int], most: int | None, most_tokens: int | None
) -> tuple[tuple[str, ...], int]:
    """The first of them, so many and of so many tokens at most, and their tokens. One that is too long leaves its place to later ones."""
    taken: list[str] = []
    used = 0
    for id in ids:
        if most is not None and len(taken) == most:
            break
        if most_tokens is None or used + tokens[id] <= most_tokens:
            taken.append(id)
            used += tokens[id]
    return tuple(taken), used


def take(tx: Session, sleep_id: str, ids: Sequence[str]) -> None:
    """These experiences are the sleep's."""
    for start in range(0, len(ids), MOST_IDS):
        mine = ExperienceRow.id.in_(ids[start : start + MOST_IDS])
        tx.execute(update(ExperienceRow).where(mine).values(sleep=sleep_id))
    own = select(literal(sleep_id), ExperienceRow.id).where(ExperienceRow.sleep == sleep_id)
    tx.execute(insert(Taken).from_select(["sleep", "experience"], own))


def taken_again(tx: Session, deployment_id: str, sleep_id: str) -> tuple[int, int]:
    """Give a sleep back what it was begun on, as far as that still waits; returns how many it was, and how many of them are its own now."""
    mine = select(Taken.experience).where(Taken.sleep == sleep_id)
    wanted = tx.scalar(select(func.count()).select_from(Taken).where(Taken.sleep == sleep_id)) or 0
    free = (*registry.pending_where(deployment_id), ExperienceRow.sleep.is_(None), ExperienceRow.id.in_(mine))
    tx.execute(update(ExperienceRow).where(*free).values(sleep=sleep_id))
    return wanted, tx.scalar(select(func.count()).select_from(ExperienceRow).where(ExperienceRow.sleep == sleep_id)) or 0


def _where(selection: Selection) -> list[ColumnElement[bool]]:
    given: list[tuple[object, ColumnElement[bool]]] = [
        (selection.source, ExperienceRow.source == selection.source),
        (selection.subject_id, ExperienceRow.subject == selection.subject_id),
        (selection.session_id, ExperienceRow.session == selection.session_id),
        (selection.created_after, ExperienceRow.created_at > (selection.created_after or 0.0)),
        (selection.created_before, ExperienceRow.created_at < (selection.created_before or 0.0)),
        (selection.experience_ids, ExperienceRow.id.in_(selection.experience_ids or ())),
    ]
    return [condition for asked, condition in given if asked is not None]


def _all_wait(named: Sequence[str], found: set[str]) -> None:
    if missing := [id for id in named if id not in found]:
        detail = (
            f"selection.experience_ids: {missing[0]} does not wait for a sleep of this deployment ({len(missing)} of {len(named)} do "
            "not); name only experiences whose status is pending"
        )
        raise Problem(422, "validation_failed", detail, param="selection.experience_ids")
