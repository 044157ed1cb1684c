"""What a line of a batch says: an experience as `POST /v1/experiences` takes it, or why it is none. Pure functions."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from services import readable
from services.errors import Problem, at_fault, faults, unreadable
from services.offered import ExperienceCreate

MOST_POINTER, MOST_DETAIL = 256, 1024
"""Characters that are kept of what a line's error says: names of fields may be the sender's own."""


@dataclass(frozen=True)
class Fault:
    """Why a line is not kept; it quotes no value."""

    code: str
    pointer: str
    detail: str

    @classmethod
    def of(cls, problem: Problem) -> Fault:
        pointer = problem.errors[0]["pointer"] if problem.errors else f"/{problem.param}" if problem.param else ""
        detail = problem.errors[0]["detail"] if problem.errors else problem.detail
        return cls(problem.code, pointer[:MOST_POINTER], detail[:MOST_DETAIL])


TOO_LONG = Fault("too_large", "", "the line is longer than a request may be; send it in parts")


def said_in_line(line: bytes | None, deployment: str | None) -> ExperienceCreate | Fault | None:
    """None where the line is empty. deployment: of a line that names none."""
    if line is None:
        return TOO_LONG
    if not line:
        return None
    try:
        given = _object(line)
        if deployment is not None:
            given = {"deployment": deployment} | given
        return ExperienceCreate.model_validate(given)
    except ValidationError as error:
        return Fault.of(faults(error.errors(include_input=False, include_url=False)))
    except Problem as problem:
        return Fault.of(problem)


def _object(line: bytes) -> dict[str, Any]:
    """Raises Problem, also for what no request may hold: a line is kept in the same columns."""
    if problem := readable.fault(line):
        raise problem
    try:
        given = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise unreadable(error) from error
    if not isinstance(given, dict):
        raise at_fault([], "give a JSON object")
    return given
