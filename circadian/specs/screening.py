"""What may be kept and learned of what a deployment meets: redaction, rules, triggers, near-duplicates, and caps that no source can exceed.

Caps are counts, not shares: about 250 poisoned documents were enough to plant a trigger in models of 600 million to 13 billion parameters,
however much clean data lay beside them.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import Annotated, Literal, get_args

import regex
from pydantic import Field, field_validator

from circadian.specs.base import Fraction, PositiveInt, Seconds, Spec

PiiKind = Literal[
    "email",
    "phone",
    "credit_card",
    "iban",
    "ip_address",
    "us_ssn",
    "us_itin",
    "uk_nino",
    "uk_nhs",
    "crypto_wallet",
    "mac_address",
]
"""What is recognised by its form. Names and addresses of people are not: they need a model that was trained to see them."""
Region = Annotated[str, Field(pattern="^[A-Z]{2}$")]
TriggerName = Literal["dreaming", "instructions", "training_data", "judge", "chat_markup"]
"""The built-in rules against texts that speak to the dreamer (services/screening/triggers.py)."""
MOST_RULES = 100
MOST_EXPRESSION = 500
"""Characters."""
MOST_UNROLLED = 10_000
"""A compiled expression holds one copy of what {n} repeats for each repeat, so `(?:(?:a{1000}){1000}){1000}` would fill any memory."""
COUNTED = regex.compile(r"\{\s*+(\d++)")


class RedactionSpec(Spec):
    """What is replaced by a placeholder such as <EMAIL> before anything is stored."""

    on: bool = True
    kinds: tuple[PiiKind, ...] = tuple(kind for kind in get_args(PiiKind) if kind not in ("uk_nhs", "mac_address"))
    """Of the two that are left out, one is any ten digits of which a check digit fits by chance, the other names a device."""
    phone_regions: Annotated[tuple[Region, ...], Field(max_length=20)] = ("US", "GB", "DE", "FR", "IN", "BR")
    """Countries whose phone numbers are seen without the country's code; with +, all are. Each takes time."""
    secrets: bool = True
    """Keys, tokens, passwords that follow their name, and long random strings."""
    min_score: Fraction = 0.4
    """How sure a recogniser must be. 0.4 takes what has the form, and a weak form (bare digits) where a word before it says what it is."""


def expression_of(expression: str) -> regex.Pattern[str]:
    """Somebody's regular expression. Raises ValueError, with the remedy, for one that is none or that would fill the memory."""
    unrolled = math.prod(int(count) or 1 for count in COUNTED.findall(expression))
    if unrolled > MOST_UNROLLED:
        raise ValueError(
            f"the expression has counts in braces that multiply to {unrolled}; bring that to {MOST_UNROLLED}, or use +"
        )
    try:
        return regex.compile(expression)
    except (regex.error, ValueError, OverflowError, RecursionError) as error:
        remedy = "correct it, or put \\ before what stands for itself"
        raise ValueError(f"the expression is no regular expression ({error}); {remedy}") from error


class RuleSpec(Spec):
    """A rule of your own."""

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,39}$")]
    """What findings are counted under; a redacting rule `ticket` leaves <TICKET>."""
    expression: Annotated[str, Field(min_length=1, max_length=MOST_EXPRESSION)]
    """A regular expression of Python's `regex` package, found anywhere in the text; begin it with (?i) to ignore case."""
    action: Literal["redact", "quarantine", "reject"]
    """`redact` reads each message as it came in. The others read what would be kept, so after redaction: all messages as one text, once as
    they are and once folded (lower case, words with one space between them, look-alike letters as the Latin ones)."""

    @field_validator("expression")
    @classmethod
    def _can_be_run(cls, expression: str) -> str:
        compiled = expression_of(expression)
        if compiled.search("") is not None:
            raise ValueError(
                "the expression matches where there is nothing, so in every text; ask for one character or more, with + for *"
            )
        return expression


class TriggersSpec(Spec):
    """Built-in rules that put a text that speaks to the dreamer in quarantine. More of them are `rules` that quarantine."""

    on: bool = True
    without: tuple[TriggerName, ...] = ()
    """Those to leave out, for a deployment whose subject they are."""


class DuplicatesSpec(Spec):
    """How often nearly the same text is kept."""

    on: bool = True
    threshold: Annotated[float, Field(ge=0.7, le=1.0)] = 0.85
    """Share of words and word pairs that two texts have in common from which on they are copies. Stored texts are looked up by hashes that
    miss more and more of what is less alike than 0.7. Texts of fewer than eight words are copies when all words are the same."""
    copies: PositiveInt = 3
    """The most that are kept: what is met a few times matters, what is met a thousand times is a flood."""


class CapsSpec(Spec):
    """The most that is taken, however much is sent."""

    per_source_per_minute: PositiveInt = 600
    """Experiences, when they come in."""
    per_source_per_sleep: PositiveInt = 1000
    """Experiences, oldest first; the others wait for the next sleep."""
    per_subject_per_sleep: PositiveInt = 100
    """Of one person or thing that experiences are about."""
    per_sleep: PositiveInt = 100_000


class ScreeningSpec(Spec):
    """How what comes in is screened."""

    redaction: RedactionSpec = RedactionSpec()
    rules: Annotated[tuple[RuleSpec, ...], Field(max_length=MOST_RULES)] = ()
    triggers: TriggersSpec = TriggersSpec()
    duplicates: DuplicatesSpec = DuplicatesSpec()
    caps: CapsSpec = CapsSpec()
    consent_required: bool = False
    """Reject what comes without consent. What comes with a refusal is always rejected."""
    most_characters: Annotated[int, Field(ge=1, le=1_000_000)] = 100_000
    """Of one experience, all messages together."""
    most_seconds: Seconds = 10.0
    """Of computing, for one experience. What takes longer (100,000 characters of numbers with spaces between them take twice as long,
    100,000 of prose 0.2 seconds) is rejected, because it would be kept unredacted."""
    rule_seconds: Seconds = 0.2
    """Of these, for one rule on one text. A rule that takes longer is not applied, and the experience is put in quarantine."""

    @field_validator("rules")
    @classmethod
    def _one_name_each(cls, rules: tuple[RuleSpec, ...]) -> tuple[RuleSpec, ...]:
        again = [name for name, count in Counter(rule.name for rule in rules).items() if count > 1]
        if again:
            raise ValueError(f"two rules are named {again[0]!r}; give each a name of its own, or join their expressions with |")
        return rules
