"""Probes: what an operator asks of a deployment again and again, and what counts as a right answer."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from circadian.pieces import words
from circadian.specs.base import Fraction, PositiveInt, Spec
from circadian.specs.experience import Message
from circadian.specs.screening import MOST_EXPRESSION, expression_of

ProbeKind = Literal["retention", "acquisition", "general", "safety", "canary", "privacy"]
ProbeScorer = Literal["contains", "exact", "regex", "f1", "choice", "code", "grid"]
SECRET: tuple[ProbeKind, ...] = ("canary", "privacy")
"""Kinds of which `expected` is what must not be said."""
AGAINST_BASE: tuple[ProbeKind, ...] = ("general", "safety")
"""Kinds that are held against the base too: what is lost a little every night is lost against no parent."""
MOST_ITEMS = 512
MOST_TEXT = 32_768
"""Characters."""
FEWEST_WORDS, FEWEST_LETTERS = 3, 8
"""A shorter prompt stands in texts that have nothing to do with it: to hold it out would hold out the day."""


def _tuple(given: Any) -> Any:
    return (given,) if isinstance(given, str) else given


Text = Annotated[str, Field(min_length=1, max_length=MOST_TEXT)]


class ProbeItem(Spec):
    """A question, as a chat (`messages`) or as the beginning of a text (`prompt`), and what is expected."""

    prompt: Annotated[str, Field(max_length=MOST_TEXT)] = ""
    messages: Annotated[tuple[Message, ...], Field(max_length=64)] = ()
    expected: Annotated[tuple[Text, ...], Field(min_length=1, max_length=16), BeforeValidator(_tuple)]
    """A text, or several of which any will do. Of kinds `canary` and `privacy`: what must not be said."""

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if bool(self.messages) == bool(self.prompt):
            raise ValueError("give either messages (a chat) or prompt (the beginning of a text), not both and not neither")
        if self.messages and self.messages[-1].role == "assistant":
            raise ValueError("messages end with an answer; end them with what is asked")
        return self


class UserProbe(Spec):
    """A probe as a night is given it."""

    id: str
    kind: ProbeKind
    items: Annotated[tuple[ProbeItem, ...], Field(min_length=1, max_length=MOST_ITEMS)]
    scorer: ProbeScorer = "contains"
    """See circadian/probing.py. An item's score is from 0 to 1; a probe's is the mean over its items."""
    threshold: Fraction | None = None
    """The least score with which a candidate passes. A canary has none: recipe.gate.max_exposure judges it."""
    max_regression: Fraction | None = None
    """By which the score may be lower than the parent's (of kinds `general` and `safety` also than the base's)."""
    max_tokens: Annotated[PositiveInt, Field(le=1024)] = 32
    """Of an answer."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.kind == "canary":
            self._check_canary()
        if self.scorer == "regex":
            for item in self.items:
                for expression in item.expected:
                    if len(expression) > MOST_EXPRESSION:
                        raise ValueError(f"expected: an expression has at most {MOST_EXPRESSION} characters; shorten it")
                    expression_of(expression)
        return self

    def _check_canary(self) -> None:
        if self.threshold is not None or self.max_regression is not None:
            raise ValueError("a canary has no threshold and no max_regression; leave them out, recipe.gate.max_exposure judges it")
        if self.scorer == "regex":
            raise ValueError("a canary is a text, not an expression; use the scorer `contains`")
        if any(len(item.expected) > 1 for item in self.items):
            raise ValueError("expected: a canary is one text; make an item of each")

    @property
    def judged(self) -> bool:
        """Whether a night has something to hold it against."""
        return self.kind == "canary" or self.threshold is not None or self.max_regression is not None


def texts_of(probes: Iterable[UserProbe]) -> list[str]:
    """What no night may learn: prompts, and what must not be said. Of a chat every message of the user's."""
    found: list[str] = []
    for probe in probes:
        for item in probe.items:
            asked = [item.prompt] if item.prompt else [said.content for said in item.messages if said.role == "user"]
            secrets = item.expected if probe.kind in SECRET and probe.scorer != "regex" else ()
            found += [text for text in asked if words(text) >= FEWEST_WORDS]
            found += [text for text in secrets if len(text.strip()) >= FEWEST_LETTERS]
    return list(dict.fromkeys(found))
