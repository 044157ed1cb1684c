"""Learning to Imitate against the paper's formulas, written out."""

from __future__ import annotations

import math
import random
import statistics

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from circadian.objectives.imitation import advantages, clipped_surrogate, lexical_reward, reward
from circadian.specs import ImitationSpec

tokens = st.lists(st.integers(0, 4), max_size=9)


def levenshtein(a: list[int], b: list[int]) -> int:
    """By its recurrence."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        last, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            last, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, last + (x != y))
    return row[-1]


@given(tokens, tokens, st.integers(0, 9))
def test_lexical_reward_is_that_of_the_paper(written: list[int], wanted: list[int], threshold: int) -> None:
    z = levenshtein(written, wanted)
    longest = max(len(written), len(wanted))
    expected = (1 - z / longest if longest else 1.0) if z <= threshold else 0.0
    assert lexical_reward(written, wanted, threshold) == pytest.approx(expected)


def test_the_threshold_counts_as_reached() -> None:
    assert lexical_reward([1, 2, 3, 4], [1, 2, 9, 9], threshold=2) == 0.5
    assert lexical_reward([1, 2, 3, 4], [1, 9, 9, 9], threshold=2) == 0.0


@pytest.mark.parametrize(("semantic", "expected"), [(True, 0.3 + 0.7 * 0.5), (False, 0.7 * 0.5), (None, 0.5)])
def test_reward_mixes_meaning_and_closeness(semantic: bool | None, expected: float) -> None:
    assert reward(semantic, 0.5, ImitationSpec(gamma=0.3)) == pytest.approx(expected)


def test_advantages_are_relative_to_the_group() -> None:
    rng = random.Random(0)
    rewards = [[rng.random() for _ in range(5)] for _ in range(3)] + [[0.25] * 5]
    got = advantages(torch.tensor(rewards))
    for row, group in zip(got.tolist(), rewards, strict=True):
        spread = statistics.pstdev(group)
        assert row == pytest.approx([(r - statistics.fmean(group)) / spread if spread else 0.0 for r in group], abs=1e-5)


@pytest.mark.parametrize("advantage", [2.0, -2.0])
@pytest.mark.parametrize("ratio", [0.5, 0.9, 1.0, 1.1, 1.7])
def test_the_surrogate_is_clipped_where_it_would_gain(advantage: float, ratio: float) -> None:
    before = torch.tensor([-1.5], dtype=torch.float64)
    now = (before + math.log(ratio)).requires_grad_()
    loss = clipped_surrogate(now, before, torch.tensor([advantage]), clip=0.2)
    clipped = min(max(ratio, 0.8), 1.2)
    assert float(loss.detach()) == pytest.approx(-min(ratio * advantage, clipped * advantage))
    loss.sum().backward()
    moves = ratio < 1.2 if advantage > 0 else ratio > 0.8
    assert now.grad is not None
    assert float(now.grad) == pytest.approx(-ratio * advantage if moves else 0.0)
