"""Probes that a model makes for itself."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from circadian.dreaming.tasks import Agreed, agreed, probes_of, split
from circadian.specs.dreaming import ProbeSpec


def test_what_most_answers_say_is_agreed_on_as_it_was_first_put() -> None:
    assert agreed(["The Oslo.", "bern", "oslo", ""]) == Agreed("The Oslo.", 0.5)
    assert agreed(["bern", "oslo"]) == Agreed("bern", 0.5)
    assert agreed(["", " . "]) == Agreed("", 0.0)


def test_a_question_is_a_probe_if_its_answers_agree_and_it_was_not_asked_before() -> None:
    questions = ["where is she ?", "Where  is she ?", "who ?", "why ?", "  "]
    answers = [["oslo", "oslo", "bern"], ["bern"] * 3, ["a", "b", "c"], ["because", "Because.", ""], ["x"] * 3]
    made = probes_of(questions, answers, min_agreement=0.6)
    assert [(probe.question, probe.answers) for probe in made] == [("where is she ?", ("oslo",)), ("why ?", ("because",))]


@given(st.integers(0, 12), st.floats(0, 1), st.integers())
def test_no_probe_is_both_the_rewards_and_for_validation(count: int, share: float, seed: int) -> None:
    probes = [ProbeSpec(question=f"q{i}", answers=("a",)) for i in range(count)]
    reward, validation = split(probes, share, random.Random(seed))
    assert sorted(probe.question for probe in reward + validation) == sorted(probe.question for probe in probes)
    assert len(reward) >= min(1, count)
    assert len(validation) == (min(round(share * count), count - 1) if count else 0)
