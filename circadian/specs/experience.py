"""What a deployment meets."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from circadian.specs.base import Spec


class Message(Spec):
    """One message of a chat."""

    role: Literal["system", "user", "assistant"]
    content: Annotated[str, Field(min_length=1)]


Trust = Literal["trusted", "untrusted"]
"""How far what a text says may be believed. What was made of several texts has the lowest of theirs."""
TRUSTED_SOURCES = ("import", "human")
"""What somebody brought in on purpose; traffic and what tools returned is whatever it is."""


def lowest(trusts: Iterable[Trust]) -> Trust:
    """Of some texts; of none it is trusted: nothing doubtful is in it."""
    return "untrusted" if "untrusted" in trusts else "trusted"


class Experience(Spec):
    """Something the deployment met while awake: a chat or a document, exactly one of the two."""

    id: str
    messages: tuple[Message, ...] = ()
    text: str = ""
    source: Literal["wake", "import", "human", "tool"] = "import"
    """Of `wake` experiences (the deployment's own traffic) only what others said is learned, never its own answers."""
    trust: Trust | None = None
    """None: by its source."""

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if bool(self.messages) == bool(self.text):
            raise ValueError("give either messages (a chat) or text (a document), not both and not neither")
        return self

    @property
    def trusted(self) -> Trust:
        """What counts."""
        return self.trust or ("trusted" if self.source in TRUSTED_SOURCES else "untrusted")
