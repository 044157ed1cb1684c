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


@pytest.mark.parametrize(
    ("written", "wanted", "z", "longest"),
    [
        ([], [], 0, 1),
        ([], [7, 8], 2, 2),
        ([7, 8, 9], [], 3, 3),
        ([70001, 70002], [70001, 70003], 1, 2),  # lengths and distance count tokens, however many letters these have
        ([5, 6, 7, 8], [6, 7, 8, 9], 2, 4),
        ([5, 5, 5, 5, 5, 5], [5], 5, 6),
    ],
)
def test_closeness_up_to_the_threshold_and_one_beyond(written: list[int], wanted: list[int], z: int, longest: int) -> None:
    """The threshold z0 is inclusive: at z == z0 the distance counts, at z == z0 + 1 there is nothing."""
    assert lexical_reward(written, wanted, z) == lexical_reward(wanted, written, z) == 1 - z / longest
    assert lexical_reward(written, wanted, z + 1) == 1 - z / longest
    if z:
        assert lexical_reward(written, wanted, z - 1) == 0.0


@pytest.mark.parametrize("gamma", [0.0, 0.25, 1.0])
def test_the_reward_is_the_papers_for_every_weight(gamma: float) -> None:
    spec = ImitationSpec(gamma=gamma, threshold=2)
    for meant in (False, True):
        for written, closeness in (([1, 2, 3, 4], 1.0), ([1, 2, 9, 9], 0.5), ([1, 9, 9, 9], 0.0)):
            r = gamma * (1 if meant else 0) + (1 - gamma) * closeness
            assert reward(meant, lexical_reward(written, [1, 2, 3, 4], spec.threshold), spec) == pytest.approx(r, abs=1e-15)


@given(st.floats(0.0, 1.0, width=32), st.integers(2, 16))
def test_a_group_of_equal_rewards_has_nothing_to_tell(r: float, size: int) -> None:
    """Exactly: a mean that is rounded must not become an advantage."""
    assert advantages(torch.full((1, size), r)).tolist() == [[0.0] * size]


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


def test_the_surrogate_against_brute_force() -> None:
    """Every token on its own, in Python's float64."""
    rng, clip, count = random.Random(0), 0.2, 500
    before = [-rng.expovariate(1.0) for _ in range(count)]
    now = [b + rng.gauss(0, 0.3) for b in before]
    advantage = [rng.choice([0.0, rng.gauss(0, 1)]) for _ in range(count)]
    wanted = []
    for b, n, a in zip(before, now, advantage, strict=True):
        ratio = math.exp(n) / math.exp(b)
        wanted.append(-min(ratio * a, max(1 - clip, min(1 + clip, ratio)) * a))
    tensors = [torch.tensor(values, dtype=torch.float64) for values in (now, before, advantage)]
    torch.testing.assert_close(clipped_surrogate(*tensors, clip), torch.tensor(wanted, dtype=torch.float64), rtol=1e-12, atol=1e-14)
