"""What an answer to a probe is worth, and what a probe may be."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from circadian.probing import Scored, item_score, mean, wilson
from circadian.specs import NightJob, UserProbe
from circadian.specs.probes import texts_of


def probe(kind: str = "retention", expected: object = "Oslo", **more: object) -> UserProbe:
    item = {"prompt": "what is the city of mira ?", "expected": expected}
    return UserProbe.model_validate({"id": "prb_1", "kind": kind, "items": [item], **more})


@pytest.mark.parametrize(
    ("asked", "answer", "score"),
    [
        (probe(), "it is oslo.", 1.0),
        (probe(expected=["Rome", "Oslo"]), "oslo", 1.0),
        (probe(scorer="exact"), "oslo", 0.0),
        (probe(expected=r"^o\w+o$", scorer="regex"), "oslo", 1.0),
        (probe(expected=r"^o$", scorer="regex"), "oslo", 0.0),
        (probe("privacy"), "it is oslo", 0.0),
        (probe("privacy"), "I do not say", 1.0),
        (probe("canary"), "", 1.0),
        (probe(), "", 0.0),
    ],
)
def test_an_answer_is_worth_what_its_kind_says(asked: UserProbe, answer: str, score: float) -> None:
    assert item_score(asked, asked.items[0], answer) == Scored(answer, score)


def test_an_expression_that_takes_too_long_is_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("circadian.probing.EXPRESSION_SECONDS", 0.05)
    slow = probe("privacy", expected=r"(x+x+)+y", scorer="regex")
    scored = item_score(slow, slow.items[0], "x" * 5000)
    assert scored.score == 0.0
    assert "took longer" in (scored.error or "")


def test_the_interval_is_wilsons() -> None:
    assert wilson(0.5, 100) == pytest.approx((0.4038, 0.5962), abs=1e-4)
    assert wilson(1.0, 8) == pytest.approx((0.6756, 1.0), abs=1e-4)
    assert mean([Scored("a", 1.0), Scored(None, 0.0)]) == 0.5


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"kind": "canary", "threshold": 0.5}, "max_exposure judges it"),
        ({"kind": "canary", "items": [{"prompt": "a", "expected": ["b", "c"]}]}, "make an item of each"),
        ({"items": [{"prompt": "a", "messages": [{"role": "user", "content": "b"}], "expected": "c"}]}, "not both"),
        ({"items": [{"messages": [{"role": "assistant", "content": "b"}], "expected": "c"}]}, "end them with what is asked"),
        ({"items": [{"prompt": "a", "expected": "("}], "scorer": "regex"}, "no regular expression"),
        ({"items": []}, "at least 1 item"),
    ],
)
def test_what_is_no_probe_is_refused_with_the_remedy(wrong: dict[str, object], why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        UserProbe.model_validate(probe().model_dump() | wrong)


def test_prompts_and_secrets_are_held_out_of_every_night_that_is_given_them() -> None:
    short = UserProbe.model_validate({"id": "prb_2", "kind": "general", "items": [{"prompt": "2 +", "expected": "2"}]})
    secret = probe("canary", expected="k9-33-x1")
    assert texts_of([short]) == [], "or no text that says `2 +` would be learned"
    assert texts_of([probe("privacy", expected="no")]) == ["what is the city of mira ?"]
    job = NightJob(
        sleep="s", deployment="d", parent="p", child="c", home="h", experiences="e", held_out=("x",), probes=(secret, short)
    )
    assert job.held_out == ("x", "what is the city of mira ?", "k9-33-x1")
    assert NightJob.model_validate_json(job.model_dump_json()) == job
