"""What becomes of an experience that comes in: pure functions of the experience, the spec and what the database knows.

    refusal  looks at nothing but sizes and counts          -> rejected (too_large, no_consent, source_rate)
    prepare  reads the text: redaction, rules, triggers     -> what may be stored, its signature, what speaks against it
    judge    compares with what is stored                   -> rejected | duplicate | quarantined | accepted, in this order

`screen` is the three in one. A service calls them apart: `prepare` computes and wants no transaction open, `judge` compares counts and
wants the transaction that writes its verdict. Redaction comes first, everything after it reads what would be stored; so an experience that
was screened once is screened to the same verdict, text and signature again, with no findings.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from circadian.specs.experience import Experience
from circadian.specs.screening import RuleSpec, ScreeningSpec
from services.screening import triggers
from services.screening.clock import Deadline, TooSlow
from services.screening.duplicates import bands, signature, similar
from services.screening.folding import fold
from services.screening.reasons import Code, Reason
from services.screening.redaction import Redacted, begun, redact
from services.screening.rules import applies
from services.screening.spans import Finding


class Status(StrEnum):
    ACCEPTED = "accepted"
    QUARANTINED = "quarantined"
    """Stored, and kept from every night until somebody releases it."""
    REJECTED = "rejected"
    """Not stored."""
    DUPLICATE = "duplicate"
    """Not stored: enough copies are."""


REJECTING = (Code.TOO_LARGE, Code.NO_CONSENT, Code.SOURCE_RATE, Code.TOO_SLOW, Code.REJECTED_BY_RULE)


@dataclass(frozen=True)
class Known:
    """What the database knows when an experience comes in."""

    from_source_last_minute: int = 0
    """Experiences of the same source."""
    consent: bool | None = None
    """Given with the experience."""
    neighbours: Sequence[bytes] = ()
    """Signatures of stored experiences of the deployment, quarantined ones too, that share a band with this one."""


@dataclass(frozen=True)
class Prepared:
    """An experience that was read, before it is compared."""

    experience: Experience | None
    """Redacted; None where it may not be stored."""
    findings: tuple[Finding, ...] = ()
    signature: bytes = b""
    reasons: tuple[Reason, ...] = ()

    @property
    def bands(self) -> list[str]:
        """Keys to look up neighbours by, and to keep where it is stored."""
        return bands(self.signature) if self.signature else []


@dataclass(frozen=True)
class Verdict(Prepared):
    status: Status = Status.ACCEPTED


def screen(experience: Experience, spec: ScreeningSpec, known: Known) -> Verdict:
    """The verdict on an experience."""
    refused = refusal(experience, spec, known)
    if refused:
        return Verdict(None, reasons=(refused,), status=Status.REJECTED)
    return judge(prepare(experience, spec), spec, known)


def refusal(experience: Experience, spec: ScreeningSpec, known: Known) -> Reason | None:
    """Why an experience is not even read."""
    length, most = len(text_of(experience)), spec.most_characters
    if length > most:
        return Reason(Code.TOO_LARGE, f"it has {length} characters, {most} are taken; send it in parts, or raise most_characters")
    if known.consent is False or (spec.consent_required and not known.consent):
        return Reason(Code.NO_CONSENT, "it came without consent; send consent: true where that was given, and leave out the others")
    most = spec.caps.per_source_per_minute
    if known.from_source_last_minute >= most:
        return Reason(
            Code.SOURCE_RATE, f"its source sent {most} in the last minute; send it later, or raise caps.per_source_per_minute"
        )
    return None


def prepare(experience: Experience, spec: ScreeningSpec) -> Prepared:
    """Read an experience that was not refused."""
    deadline = begun(spec)
    try:
        kept, findings, slow = _redacted(experience, spec, deadline)
        text = text_of(kept)
        reasons = [_slow(name) for name in slow] + _by_rules(text, spec, deadline)
        reasons += [_triggered(name) for name in triggers.found(text, spec.triggers, deadline)]
    except (TooSlow, TimeoutError):
        detail = (
            f"it could not be read to its end in {spec.most_seconds:g} seconds, or a redacting rule finds more beside what it replaced; "
            "send it in parts, raise most_seconds, or correct the rule"
        )
        return Prepared(None, reasons=(Reason(Code.TOO_SLOW, detail),))
    storable = not any(reason.code in REJECTING for reason in reasons)
    return Prepared(kept if storable else None, findings, signature(text), tuple(reasons))


def judge(prepared: Prepared, spec: ScreeningSpec, known: Known) -> Verdict:
    """What becomes of it, by the worst that speaks against it."""
    reasons = prepared.reasons + _copied(prepared.signature, spec, known)
    codes = {reason.code for reason in reasons}
    if codes & set(REJECTING):
        status = Status.REJECTED
    elif Code.NEAR_DUPLICATE in codes:
        status = Status.DUPLICATE
    else:
        status = Status.QUARANTINED if codes else Status.ACCEPTED
    return Verdict(prepared.experience, prepared.findings, prepared.signature, reasons, status)


def text_of(experience: Experience) -> str:
    """All that it says."""
    return experience.text or "\n".join(message.content for message in experience.messages)


def _redacted(
    experience: Experience, spec: ScreeningSpec, deadline: Deadline
) -> tuple[Experience, tuple[Finding, ...], tuple[str, ...]]:
    """The experience as it may be stored, what was replaced in all of it, and the rules that were too slow."""
    whole: list[Redacted] = []
    counts = Counter[str]()
    for text in (experience.text, *(message.content for message in experience.messages)):
        whole.append(redact(text, spec, deadline, whole[-1].slow if whole else ()))
        counts.update({finding.kind: finding.count for finding in whole[-1].findings})
    said = zip(experience.messages, whole[1:], strict=True)
    messages = tuple(message.model_copy(update={"content": part.text}) for message, part in said)
    kept = experience.model_copy(update={"text": whole[0].text, "messages": messages})
    return kept, tuple(Finding(kind, count) for kind, count in sorted(counts.items())), whole[-1].slow


def _by_rules(text: str, spec: ScreeningSpec, deadline: Deadline) -> list[Reason]:
    rules = [rule for rule in spec.rules if rule.action != "redact"]
    folded = fold(text) if rules else ""
    reasons: list[Reason | None] = []
    for rule in rules:
        deadline.left()
        reasons.append(_by_rule(text, folded, rule, spec.rule_seconds))
    return [reason for reason in reasons if reason]


def _by_rule(text: str, folded: str, rule: RuleSpec, seconds: float) -> Reason | None:
    try:
        if not (applies(text, rule, seconds) or applies(folded, rule, seconds)):
            return None
    except (TooSlow, TimeoutError):
        return _slow(rule.name)
    if rule.action == "reject":
        return Reason(Code.REJECTED_BY_RULE, f"the rule {rule.name!r} rejects it; send it without what the rule names")
    return Reason(Code.QUARANTINED_BY_RULE, f"the rule {rule.name!r} holds it; release it, or delete it")


def _slow(name: str) -> Reason:
    return Reason(
        Code.RULE_TOO_SLOW,
        f"the rule {name!r} took longer than rule_seconds, so it was not applied; simplify its expression (repeat nothing "
        "that matches in two ways), and send the experience again",
    )


def _triggered(name: str) -> Reason:
    detail = f"it speaks to the dreamer (trigger {name!r}); release it if it only tells of that, or name it in triggers.without"
    return Reason(Code.TRIGGER, detail)


def _copied(own: bytes, spec: ScreeningSpec, known: Known) -> tuple[Reason, ...]:
    """Whether enough copies are stored."""
    if not own or not spec.duplicates.on:
        return ()
    copies = sum(similar(own, other) >= spec.duplicates.threshold for other in known.neighbours)
    if copies < spec.duplicates.copies:
        return ()
    return (Reason(Code.NEAR_DUPLICATE, f"{copies} that are nearly the same are kept; leave it out, or raise duplicates.copies"),)
