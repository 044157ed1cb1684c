"""Which rows a step is made of: the share of each kind, and lambda, the share that the student wrote."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from typing import Any

import pytest
from pydantic import ValidationError

from circadian.objectives.knowledge_seeding import for_load, mix, shares, teacher_of
from circadian.objectives.rows import Kind, TaughtRow
from circadian.specs import SeedingSpec

KINDS: tuple[Kind, ...] = ("day", "old", "free")
TEACHER, STUDENT = 0, 1
"""Who wrote a row, as its first token."""
DRAWN = 20_000
TOLERANCE = 0.015
"""More than four standard deviations of a share of so many rows."""


def pools(writer: int, *without: Kind) -> dict[Kind, list[TaughtRow]]:
    return {kind: [] if kind in without else [TaughtRow((writer, 1, 2), 1, "awake", kind)] for kind in KINDS}


def counted(spec: SeedingSpec, *without: Kind, student: bool = True) -> dict[tuple[Kind, int], float]:
    """Of the drawn rows the share of each kind and writer."""
    written = pools(STUDENT, *(without if student else KINDS))
    rows = mix(pools(TEACHER, *without), written, spec, DRAWN, random.Random(0))
    found = Counter((row.kind, row.ids[0]) for row in rows)
    return {place: count / DRAWN for place, count in found.items()}


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 1.0])
def test_lambda_is_the_share_of_rows_that_the_student_wrote(share: float) -> None:
    found = counted(SeedingSpec(on_policy_share=share))
    for kind, weight in shares(SeedingSpec(), old_cues=True).items():
        assert found.get((kind, STUDENT), 0.0) == pytest.approx(weight * share, abs=TOLERANCE), "of each kind alike"
        assert found.get((kind, TEACHER), 0.0) == pytest.approx(weight * (1 - share), abs=TOLERANCE)
    if share in (0.0, 1.0):
        assert {writer for _, writer in found} == {STUDENT if share else TEACHER}, "and at its ends without an exception"


def test_where_the_student_wrote_nothing_the_teacher_stands_in() -> None:
    found = counted(SeedingSpec(on_policy_share=1.0), student=False)
    assert {writer for _, writer in found} == {TEACHER}


@pytest.mark.parametrize(
    ("old_share", "free_share", "expected"),
    [
        (0.6, 0.3, {"day": 0.4, "old": 0.3, "free": 0.3}),
        (0.6, 0.0, {"day": 0.4, "old": 0.6, "free": 0.0}),
        (0.6, 0.6, {"day": 0.4, "old": 0.0, "free": 0.6}),
        (1.0, 0.25, {"day": 0.0, "old": 0.75, "free": 0.25}),
        (0.0, 0.0, {"day": 1.0, "old": 0.0, "free": 0.0}),
    ],
)
def test_the_mixture_has_the_shares_that_the_recipe_names(old_share: float, free_share: float, expected: dict[Kind, float]) -> None:
    spec = SeedingSpec(old_share=old_share, free_share=free_share)
    found = counted(spec)
    for kind, share in expected.items():
        got = found.get((kind, TEACHER), 0.0) + found.get((kind, STUDENT), 0.0)
        assert got == (pytest.approx(share, abs=TOLERANCE) if 0 < share < 1 else share)
    assert sum(shares(spec, old_cues=True).values()) == pytest.approx(1.0)


@pytest.mark.parametrize(("free_share", "day", "free"), [(0.0, 0.6, 0.4), (0.3, 0.45, 0.55), (0.8, 0.2, 0.8)])
def test_before_there_are_old_cues_day_and_free_running_halve_their_share(free_share: float, day: float, free: float) -> None:
    spec = SeedingSpec(old_share=0.8, free_share=free_share)
    found: defaultdict[Kind, float] = defaultdict(float)
    for (kind, _), share in counted(spec, "old").items():
        found[kind] += share
    assert found == pytest.approx({"day": day, "free": free}, abs=TOLERANCE)
    assert shares(spec, old_cues=False) == pytest.approx({"day": day, "old": 0.0, "free": free})


@pytest.mark.parametrize(
    ("moving", "staying", "day", "nights"),
    [
        (1, 0, 0.2, 1),  # a night as the recipe has it,
        (1, 9, 0.2, 1),  # whatever there was before it
        (2, 0, 0.4, 2),  # two nights on their way have twice as much
        (4, 0, 0.6, 4),  # but never more than there is beside free running
        (4, 4, 0.3, 4),  # or than their part of it
        (2, 8, 0.2, 2),  # nor less than one night would have
    ],
)
def test_a_transfer_of_several_nights_has_as_many_steps_and_their_part_of_the_rows(
    moving: int, staying: int, day: float, nights: int
) -> None:
    spec = SeedingSpec(old_share=0.8, free_share=0.4, steps=50)
    loaded = for_load(spec, moving, staying)
    assert shares(loaded, old_cues=True) == pytest.approx({"day": day, "old": 0.6 - day, "free": 0.4})
    assert loaded.steps == nights * 50
    assert loaded == spec.model_copy(update={"old_share": loaded.old_share, "steps": loaded.steps}), "and nothing else is changed"


def test_where_nothing_was_written_from_nothing_the_day_stands_in() -> None:
    assert {kind for kind, _ in counted(SeedingSpec(), "old", "free")} == {"day"}


def test_free_running_cannot_be_more_than_what_keeps_the_past() -> None:
    with pytest.raises(ValidationError, match="lower free_share, or raise old_share"):
        SeedingSpec(old_share=0.2, free_share=0.3)


@pytest.mark.parametrize(
    ("spec", "free"), [({}, "anchored"), ({"free_teacher": "rested"}, "rested"), ({"free_teacher": "base"}, "base")]
)
def test_each_kind_has_its_teacher(spec: dict[str, Any], free: str) -> None:
    assert [teacher_of(kind, SeedingSpec(**spec)) for kind in KINDS] == ["awake", "rested", free]
