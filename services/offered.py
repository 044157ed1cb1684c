"""An experience as it is offered: by a client, or by a line of a batch."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from circadian.specs import Message, Spec
from circadian.specs.experience import Trust
from services.metadata import Line, Metadata, ShortText

MOST_SECONDS = 253_402_300_799
"""The last second of the year 9999."""


class ExperienceCreate(Spec):
    """A chat (`messages`) or a document (`text`), exactly one of the two."""

    deployment: str
    messages: Annotated[tuple[Message, ...], Field(max_length=1024)] = ()
    text: str = ""
    source: Literal["wake", "import", "human", "tool"] = "import"
    trust: Trust | None = None
    """How far what it says may be believed; by its source unless given. Whatever is dreamt of it is trusted no more."""
    subject_id: ShortText | None = None
    """Whom it is about: what is to be forgotten with them, and of whom no night takes too much."""
    session_id: ShortText | None = None
    uri: Annotated[Line, Field(min_length=1, max_length=2048)] | None = None
    """Where it is from."""
    consent: bool | None = None
    """Whether the one whom it is from agreed to its being learned. False is always refused."""
    occurred_at: Annotated[float, Field(ge=0.0, le=MOST_SECONDS)] | None = None
    """Unix seconds; when it came in unless given."""
    dedupe_key: ShortText | None = None
    """Your name for it: sent again, the first one is answered, and nothing is stored."""
    metadata: Metadata = {}

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if bool(self.messages) == bool(self.text):
            raise ValueError("give either messages (a chat) or text (a document), not both and not neither")
        return self
