"""Why an experience was not simply accepted: a code for programs, and for people a sentence with the remedy. It quotes nothing."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Code(StrEnum):
    TOO_LARGE = "too_large"
    NO_CONSENT = "no_consent"
    SOURCE_RATE = "source_rate"
    TOO_SLOW = "too_slow"
    REJECTED_BY_RULE = "rejected_by_rule"
    NEAR_DUPLICATE = "near_duplicate"
    QUARANTINED_BY_RULE = "quarantined_by_rule"
    RULE_TOO_SLOW = "rule_too_slow"
    TRIGGER = "trigger"
    SOURCE_CAP = "source_cap"
    SUBJECT_CAP = "subject_cap"
    SLEEP_CAP = "sleep_cap"


@dataclass(frozen=True)
class Reason:
    code: Code
    detail: str
