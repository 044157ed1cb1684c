"""What a run is: every option of the command, its default and its explanation. The defaults are SEAL's (protocols 1 and 2)."""

from __future__ import annotations

import argparse
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

from pydantic import Field

from circadian.specs.base import PositiveInt, Spec

Arm = Literal["base", "passage", "seal", "sleep"]
ARMS: tuple[Arm, ...] = get_args(Arm)
R = TypeVar("R", bound="Request")


class Request(Spec):
    """What both protocols have."""

    data: Path
    """Folder with SEAL's data; docs/seal.md says which files."""
    model: str
    """Folder or hub id of the model."""
    out: Path
    """JSON file of the result; beside it a folder is kept by which a run that was broken off goes on."""
    revision: str | None = None
    """Commit of a hub id."""
    engine: Literal["local", "cluster"] = "local"
    """local: all in this process, on the CPU. cluster: Ray with vLLM and tasks on this machine, on its GPUs where it has any."""
    only: tuple[Arm, ...] = ARMS
    """Arms to live: base, passage, seal, sleep."""
    seed: int = 0
    """Of everything that is drawn."""
    tests: PositiveInt | None = None
    """Contexts to test on, the first ones; all, unless given."""
    ratio: PositiveInt = 3
    """Sleep writes so many times as many dreams as it tries."""
    score: Literal["norm", "alignment", "validation"] = "validation"
    """Of a dream's gradient, by which sleep selects."""
    one_for_all: bool = False
    """Of a test context sleep writes no more dreams than the others, and none is selected."""
    pack_tokens: PositiveInt = 4096
    """Tokens that all instances of one pack learn in a step: what bounds memory."""


class SquadRequest(Request):
    """Knowledge incorporation."""

    contexts: PositiveInt = 50
    """Passages of a round."""
    rounds: Annotated[int, Field(ge=0)] = 2
    """In which the dreamer learns."""
    dreams: Annotated[int, Field(ge=2)] = 5
    """Of each passage and round, all tried; sleep tries one less."""
    instances: PositiveInt = 3
    """Of each dream of a round; their mean counts."""
    scorer: Literal["contains", "f1", "judge"] = "contains"
    """Whether an answer is right; judge: the base itself is asked."""
    plain: bool = True
    """Prompts are plain text, for a base that was never taught to chat."""
    tokens: PositiveInt = 8192
    """Of a dream, as far as the length allows."""
    length: PositiveInt = 10240
    """Tokens of a prompt and what follows it, as far as the model allows."""


class ArcRequest(Request):
    """Few-shot."""

    score: Literal["norm", "alignment"] = "alignment"
    """Of a dream's gradient, by which sleep selects."""
    contexts: PositiveInt | None = None
    """Puzzles that the dreamer learns on, the first ones; all, unless given."""
    rounds: Annotated[int, Field(ge=0)] = 1
    """In which the dreamer learns."""
    dreams: Annotated[int, Field(ge=2)] = 15
    """Of each puzzle and round, all tried; sleep tries one less."""
    trials: PositiveInt = 5
    """Dreams of each test puzzle."""
    attempts: PositiveInt = 4
    """How often dreams are written for a puzzle that lacks readable ones."""
    items: PositiveInt = 250
    """That an instance learns."""
    queries: PositiveInt = 64
    """Ways in which a test input is asked."""
    plain: bool = False
    """Prompts are plain text, for a base that was never taught to chat."""
    tokens: PositiveInt = 128
    """Of a dream."""
    answer_tokens: PositiveInt = 2048
    """Of an answer: a grid of 30 x 30 has 900 cells."""
    length: PositiveInt = 16384
    """Tokens of a prompt and what follows it, as far as the model allows; longer items are left out."""


def options_of(parser: argparse.ArgumentParser, kind: type[Request]) -> None:
    """The parser's options are the request's fields."""
    for name, field in kind.model_fields.items():
        told: dict[str, Any] = {"required": field.is_required(), "help": (field.description or "").rstrip(".")}
        if not field.is_required():
            told["help"] += f" (default: {_shown(field.default)})"
        if field.annotation is bool:
            told["action"] = argparse.BooleanOptionalAction
        elif get_origin(field.annotation) is tuple:
            told |= {"nargs": "+", "metavar": "NAME"}
        elif choices := _choices(field.annotation):
            told["choices"] = choices
        else:
            told["metavar"] = name.upper()
        parser.add_argument(f"--{name.replace('_', '-')}", **told)


def read_request(options: argparse.Namespace, kind: type[R]) -> R:
    """What was given; what was not is as the request has it. Raises pydantic.ValidationError."""
    given = {name: getattr(options, name) for name in kind.model_fields if getattr(options, name) is not None}
    return kind.model_validate(given)


def _shown(default: object) -> str:
    return " ".join(map(str, default)) if isinstance(default, tuple) else str(default)


def _choices(annotation: Any) -> tuple[str, ...]:
    """Of a Literal, or of one that may be absent."""
    if get_origin(annotation) in (Union, UnionType):
        return next((found for part in get_args(annotation) if (found := _choices(part))), ())
    return get_args(annotation) if get_origin(annotation) is Literal else ()
