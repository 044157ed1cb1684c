"""Contexts are drawn where dreams help, and every round harder ones."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from circadian.dreaming.curriculum import Standing, draw, standings
from circadian.specs.dreaming import CurriculumSpec

SPEC = CurriculumSpec(weakness=1.0, forgetting=1.0, novelty=0.0, width=0.25)
KNOWN = {f"c{i}": Standing(weakness=i / 9) for i in range(10)}


def test_what_is_known_of_a_context() -> None:
    known = standings({"a": [0.25, 0.75, 0.5], "b": [1.0]}, {"a": 2.0, "b": 4.0})
    assert known == {"a": Standing(0.5, 0.25, 0.5), "b": Standing(0.0, 0.0, 1.0)}
    assert known["a"].need(CurriculumSpec(weakness=2.0, forgetting=1.0, novelty=1.0)) == pytest.approx((1.0 + 0.25 + 0.5) / 4)
    assert standings({"a": [0.0]}, {}) == {"a": Standing(1.0)}


def mean_weakness(round_: int, rounds: int) -> float:
    drawn = [line["weakness"] for seed in range(200) for line in draw(KNOWN, 3, round_, rounds, SPEC, str(seed)) if line["drawn"]]
    assert len(drawn) == 600
    return sum(drawn) / len(drawn)


def test_every_round_is_harder_than_the_one_before() -> None:
    weakness = [mean_weakness(round_, 3) for round_ in range(3)]
    assert weakness[0] == pytest.approx(0.5, abs=0.05)
    assert weakness == sorted(weakness)
    assert weakness[-1] > 0.7
    assert mean_weakness(0, 1) > 0.7, "an only round goes where the need is"


def test_a_record_tells_of_every_context_and_the_chances_are_those_of_the_draw() -> None:
    lines = draw(KNOWN, 1, 1, 3, SPEC, "0")
    assert [line["context"] for line in lines] == sorted(KNOWN)
    assert sum(line["chance"] for line in lines) == pytest.approx(1.0)
    counts = dict.fromkeys(KNOWN, 0)
    for seed in range(2000):
        counts[next(line["context"] for line in draw(KNOWN, 1, 1, 3, SPEC, str(seed)) if line["drawn"])] += 1
    for line in lines:
        assert counts[line["context"]] / 2000 == pytest.approx(line["chance"], abs=0.035)


def test_no_more_are_drawn_than_there_are() -> None:
    assert [line["drawn"] for line in draw(KNOWN, 99, 0, 2, SPEC, "0")] == [True] * 10
    assert draw({}, 3, 0, 2, SPEC, "0") == []


def test_a_curriculum_without_a_weight_is_refused() -> None:
    with pytest.raises(ValidationError, match="raise one of them"):
        CurriculumSpec(weakness=0.0, forgetting=0.0, novelty=0.0)
