"""Sketches of gradients, against gradients; and what is selected by them."""

from __future__ import annotations

import random

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from transformers import Qwen3ForCausalLM

from circadian.dreaming.gradients import SCORES, sketches
from circadian.dreaming.instances import Pack
from circadian.dreaming.selection import CHANCE, DROPPED, TOP, TWICE, select
from circadian.experience import Row
from tests.circadian.dreaming.small import DREAMS, SPEC, dream, small_model


@pytest.fixture(scope="module")
def model() -> Qwen3ForCausalLM:
    return small_model()


def gradient_alone(model: Qwen3ForCausalLM, rows: list[Row]) -> torch.Tensor:
    pack = Pack(model, 1, SPEC, 5)
    with pack.attached():
        parts = torch.autograd.grad(pack.losses([rows])[0], [layer.B for layer in pack.layers.values()])
    return torch.cat([part.flatten() for part in parts])


def test_a_sketch_keeps_lengths_and_angles_of_the_gradients(model: Qwen3ForCausalLM) -> None:
    texts = [*DREAMS, [*DREAMS[0], *dream(9, 1)]]
    exact = torch.stack([gradient_alone(model, rows) for rows in texts])
    short = sketches(model, texts, SPEC, seed=5)
    size = exact.norm(dim=1)
    off = (short @ short.T - exact @ exact.T) / (size[:, None] * size[None])
    assert float(off.abs().max()) < 5 * (2 / short.shape[1]) ** 0.5
    assert F.cosine_similarity(exact[0], exact[3], dim=0) > 0.5, "a text that holds another is near it"


def test_a_sketch_with_a_place_for_everything_is_the_gradient_turned(model: Qwen3ForCausalLM) -> None:
    """No score depends on the sketch alone: where hardly any coordinates share a place, dot products are nearly exact."""
    exact = torch.stack([gradient_alone(model, rows) for rows in DREAMS])
    short = sketches(model, DREAMS, SPEC, seed=5, places=1 << 22)
    torch.testing.assert_close(short @ short.T, exact @ exact.T, rtol=2e-3, atol=1e-5)


@pytest.mark.parametrize("most_tokens", [1, 40, 10_000])
def test_several_passes_find_what_one_finds_also_of_texts_with_fewer_rows(model: Qwen3ForCausalLM, most_tokens: int) -> None:
    texts = [DREAMS[0][:1], [*DREAMS[1], *dream(9, 1)]]
    whole = sketches(model, texts, SPEC, seed=5)
    torch.testing.assert_close(sketches(model, texts, SPEC, seed=5, most_tokens=most_tokens), whole, rtol=1e-4, atol=1e-6)
    alone = sketches(model, texts[:1], SPEC, seed=5)
    torch.testing.assert_close(whole[:1], alone, rtol=1e-4, atol=1e-6)


def test_scores_are_what_they_say() -> None:
    dreams = torch.tensor([[3.0, 4.0], [0.0, 1.0], [-2.0, 0.0]])
    context, held = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 2.0])
    assert SCORES["norm"](dreams, context, held).tolist() == pytest.approx([5.0, 1.0, 2.0])
    assert SCORES["alignment"](dreams, context, held).tolist() == pytest.approx([0.6, 0.0, -1.0])
    assert SCORES["validation"](dreams, context, held).tolist() == pytest.approx([0.8, 1.0, 0.0])
    assert SCORES["none"](dreams, context, held).tolist() == [0.0] * 3


def test_the_best_are_tried_and_some_others_by_chance() -> None:
    scores, texts = [0.1, 0.9, 0.5, 0.9, 0.2, 0.3], ["a", "b", "c", "b", "d", "e"]
    fates = select(scores, texts, 2, 1, random.Random(0))
    assert fates[1] == fates[2] == TOP
    assert fates[3] == TWICE
    assert sorted(fates[i] for i in (0, 4, 5)) == sorted([CHANCE, DROPPED, DROPPED])
    chosen = {select(scores, texts, 2, 1, random.Random(seed)).index(CHANCE) for seed in range(40)}
    assert chosen == {0, 4, 5}, "every other dream has its chance"


@given(st.lists(st.tuples(st.floats(-1, 1), st.integers(0, 5)), max_size=20), st.integers(0, 6), st.integers(0, 6))
def test_no_more_than_asked_are_tried_and_none_twice(dreams: list[tuple[float, int]], top: int, chance: int) -> None:
    scores, texts = [score for score, _ in dreams], [text for _, text in dreams]
    fates = select(scores, texts, top, chance, random.Random(1))
    tried = [texts[i] for i, fate in enumerate(fates) if fate in (TOP, CHANCE)]
    assert len(tried) == len(set(tried)) == min(len(set(texts)), top + chance)
    assert fates.count(TWICE) == len(texts) - len(set(texts))
    worst = min((scores[i] for i, fate in enumerate(fates) if fate == TOP), default=1.0)
    assert all(scores[i] <= worst for i, fate in enumerate(fates) if fate == DROPPED)
