"""What a deployment meets."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from circadian.specs.base import Spec


class Message(Spec):
    """One message of a chat."""

    role: Literal["system", "user", "assistant"]
    content: Annotated[str, Field(min_length=1)]


class Experience(Spec):
    """Something the deployment met while awake: a chat or a document, exactly one of the two."""

    id: str
    messages: tuple[Message, ...] = ()
    text: str = ""
    source: Literal["wake", "import", "human", "tool"] = "import"
    """Of `wake` experiences (the deployment's own traffic) only what others said is learned, never its own answers."""

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if bool(self.messages) == bool(self.text):
            raise ValueError("give either messages (a chat) or text (a document), not both and not neither")
        return self
