"""A dream of ARC: a JSON object that says how an instance is to be trained on a puzzle.

unreadable     no JSON object in it: it is written again
no update      wrong keys or values, or more steps than are allowed: a dream that changes nothing
"""

from __future__ import annotations

import json
from typing import Annotated, Literal

from pydantic import ConfigDict, Field, ValidationError

from benchmarks.seal.grids import Augmentation
from circadian.specs.base import Spec

STEPS = 375
"""SEAL's: a self-edit of more steps changes nothing."""
BATCH = 2


class SelfEdit(Spec):
    """How an instance is trained."""

    model_config = ConfigDict(strict=True)

    basic_augmentations: bool
    size_augmentations: bool
    chain_augmentations: bool
    repeat_augmentations: bool
    strategy: Literal["train_using_all_tokens", "train_using_output_tokens"]
    learning_rate: Annotated[float, Field(gt=0.0, le=1.0)]
    num_train_epochs: Annotated[int, Field(ge=1)]

    @property
    def chosen(self) -> tuple[Augmentation, ...]:
        kinds: tuple[Augmentation, ...] = ("basic", "size", "chain", "repeat")
        return tuple(kind for kind in kinds if getattr(self, f"{kind}_augmentations"))

    def steps(self, items: int) -> int:
        """Of so many items, two a step."""
        return self.num_train_epochs * items // BATCH


UNTAUGHT = SelfEdit(
    basic_augmentations=False,
    size_augmentations=False,
    chain_augmentations=False,
    repeat_augmentations=False,
    strategy="train_using_output_tokens",
    learning_rate=1e-4,
    num_train_epochs=2,
)
"""Who does not dream learns the examples so."""


def object_in(text: str) -> dict[str, object] | None:
    """The JSON object that begins at the text's first brace; None where there is none."""
    start = text.find("{")
    if start < 0:
        return None
    try:
        found, _ = json.JSONDecoder().raw_decode(text[start:])
    except (json.JSONDecodeError, RecursionError):
        return None
    return found


def edit_in(text: str) -> SelfEdit | None:
    """The self-edit; None where a text is unreadable, or is one that changes nothing."""
    found = object_in(text)
    try:
        return None if found is None else SelfEdit.model_validate(found)
    except ValidationError:
        return None
