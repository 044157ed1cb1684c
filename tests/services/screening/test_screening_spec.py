"""What a screening spec accepts, and how it says what is wrong."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from circadian.specs import ScreeningSpec

LAZY = ("spacy", "presidio_analyzer", "torch", "transformers", "scipy", "datasketch")


def rule(expression: str, name: str = "ticket", action: str = "redact") -> dict[str, str]:
    return {"name": name, "expression": expression, "action": action}


@pytest.mark.parametrize(
    ("expression", "why"),
    [
        ("(", "the expression is no regular expression"),
        ("[a-", "correct it"),
        ("a{2}{3}", "multiple repeat"),
        ("x\\", "bad escape"),
        ("a*", "matches where there is nothing"),
        ("a|", "ask for one character or more"),
        ("x" * 501, "at most 500 characters"),
        ("", "at least 1 character"),
        ("(?:(?:a{1000}){1000}){1000}", "multiply to 1000000000"),
        ("(?x) (?: (?: a{ 1000 } ){ 1000 } )", "bring that to 10000"),
    ],
)
def test_an_expression_that_cannot_be_run_is_refused_by_name_and_with_the_remedy(expression: str, why: str) -> None:
    with pytest.raises(ValidationError) as refused:
        ScreeningSpec.model_validate({"rules": [rule("fine", "fine"), rule(expression)]})
    (fault,) = refused.value.errors()
    assert fault["loc"] == ("rules", 1, "expression")
    assert why in fault["msg"]


@pytest.mark.parametrize(
    "expression", [r"\bTCK-\d{6}\b", r"(?i)project\s+\w+", r"\p{Lu}{2}\d{2}", "(a|aa)+[0-5]", r"\d{4}-\d{4}-\d{4}-\d{4}"]
)
def test_other_expressions_are_taken(expression: str) -> None:
    assert ScreeningSpec.model_validate({"rules": [rule(expression)]}).rules[0].expression == expression


@pytest.mark.parametrize(
    ("given", "where"),
    [
        ({"rules": [rule("a"), rule("b")]}, ("rules",)),
        ({"rules": [rule("a", "Not A Name")]}, ("rules", 0, "name")),
        ({"rules": [rule("a", action="delete")]}, ("rules", 0, "action")),
        ({"rules": [rule("a", f"rule_{number}") for number in range(101)]}, ("rules",)),
        ({"redaction": {"kinds": ["name"]}}, ("redaction", "kinds", 0)),
        ({"redaction": {"phone_regions": ["Germany"]}}, ("redaction", "phone_regions", 0)),
        ({"triggers": {"without": ["dream"]}}, ("triggers", "without", 0)),
        ({"duplicates": {"threshold": 0.5}}, ("duplicates", "threshold")),
        ({"caps": {"per_sleep": 0}}, ("caps", "per_sleep")),
        ({"most_characters": 2_000_000}, ("most_characters",)),
        ({"redact": True}, ("redact",)),
    ],
)
def test_every_other_mistake_is_named_by_its_field(given: dict[str, object], where: tuple[str | int, ...]) -> None:
    with pytest.raises(ValidationError) as refused:
        ScreeningSpec.model_validate(given)
    assert refused.value.errors()[0]["loc"] == where


def test_importing_the_screening_imports_no_language_model_library() -> None:
    check = f"import sys, services.screening; print([name for name in {LAZY!r} if name in sys.modules])"
    here = Path(__file__).parents[3]
    done = subprocess.run([sys.executable, "-c", check], cwd=here, capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.strip() == "[]"
