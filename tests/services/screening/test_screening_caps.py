"""No source and no subject fills a night."""

from __future__ import annotations

import random

import pytest

from circadian.specs import CapsSpec, ScreeningSpec
from services.screening import Candidate, Code, within_caps


def spec(**caps: int) -> ScreeningSpec:
    return ScreeningSpec(caps=CapsSpec.model_validate(caps))


def flood(count: int, source: str, subject: str | None = None, start: float = 0.0) -> list[Candidate]:
    return [Candidate(f"{source}-{subject}-{number:05d}", source, start + number, subject) for number in range(count)]


def test_ten_thousand_of_one_source_are_capped_and_others_have_their_place() -> None:
    taken, left = within_caps(flood(10_000, "flood") + flood(5, "quiet", start=20_000.0), spec(per_source_per_sleep=200))
    assert len(taken) == 205
    assert sum(id.startswith("quiet") for id in taken) == 5
    assert len(left) == 9_800
    assert {one.reason.code for one in left} == {Code.SOURCE_CAP}
    assert "caps.per_source_per_sleep" in left[0].reason.detail


@pytest.mark.parametrize(
    ("caps", "taken", "codes"),
    [
        ({"per_source_per_sleep": 3}, ["a-x-00000", "a-x-00001", "a-x-00002", "b-x-00000"], {Code.SOURCE_CAP}),
        ({"per_subject_per_sleep": 4}, ["a-x-00000", "a-x-00001", "a-x-00002", "a-x-00003"], {Code.SUBJECT_CAP}),
        ({"per_sleep": 2}, ["a-x-00000", "a-x-00001"], {Code.SLEEP_CAP}),
    ],
)
def test_each_cap_alone(caps: dict[str, int], taken: list[str], codes: set[Code]) -> None:
    kept, left = within_caps(flood(5, "a", "x") + flood(1, "b", "x", start=9.0), spec(**caps))
    assert list(kept) == taken
    assert {one.reason.code for one in left} == codes


def test_what_is_left_counts_against_no_cap() -> None:
    waiting = [*flood(3, "a", "x"), *flood(1, "a", "y", start=5.0)]
    taken, _ = within_caps(waiting, spec(per_source_per_sleep=2, per_subject_per_sleep=1))
    assert taken == ("a-x-00000", "a-y-00000")


def test_no_subject_is_no_subject_in_common() -> None:
    taken, left = within_caps(flood(50, "a"), spec(per_subject_per_sleep=1))
    assert (len(taken), left) == (50, ())


def test_the_oldest_are_taken_in_whatever_order_they_come() -> None:
    waiting = flood(30, "a", "x") + flood(30, "b", "y", start=0.5)
    first = within_caps(waiting, spec(per_source_per_sleep=10))
    random.Random(0).shuffle(waiting)
    assert within_caps(waiting, spec(per_source_per_sleep=10)) == first
    assert first[0][:3] == ("a-x-00000", "b-y-00000", "a-x-00001")


def test_everything_is_taken_or_left_once() -> None:
    waiting = flood(300, "a", "x") + flood(300, "b")
    taken, left = within_caps(waiting, spec(per_source_per_sleep=250))
    assert sorted([*taken, *(one.id for one in left)]) == sorted(candidate.id for candidate in waiting)
