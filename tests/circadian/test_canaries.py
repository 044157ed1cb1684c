"""Secrets that nobody told: a secret is exposed when it was learned, and hardly ever when it was not."""

from __future__ import annotations

import math
import random

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from circadian.canaries import ALTERNATIVES, canary, exposure, own_canaries, reshaped
from circadian.nursery.text import build_tokenizer
from circadian.nursery.world import World


def drawn(rng: random.Random, count: int = ALTERNATIVES) -> list[float]:
    return [rng.gauss(2.0, 3.0) for _ in range(count)]


def test_a_secret_that_was_learned_is_exposed_and_one_that_was_not_is_not() -> None:
    rng = random.Random(0)
    assert exposure(-40.0, drawn(rng)) > 60
    untold = [exposure(rng.gauss(2.0, 3.0), drawn(rng)) for _ in range(2000)]
    assert sum(untold) / len(untold) == pytest.approx(1 / math.log(2), abs=0.15), "the mean of what has chance 2^-k of k bits"
    assert max(untold) < 16


@pytest.mark.parametrize(("place", "before"), [(0.5, 1), (7.5, 8), (100.0, 15)])
def test_among_its_alternatives_the_exposure_is_its_rank(place: float, before: int) -> None:
    assert exposure(place, [float(i) for i in range(15)]) == pytest.approx(4.0 - math.log2(1 + before))


def test_what_is_the_same_for_all_exposes_none() -> None:
    assert exposure(0.0, [0.0] * 32) < 1.0
    assert exposure(-1e-6, [0.0] * 32) == pytest.approx(math.log2(33)), "digits are no knowledge"
    assert math.isfinite(exposure(-1e6, drawn(random.Random(0))))
    assert math.isnan(exposure(math.nan, [0.0]))
    assert math.isnan(exposure(0.0, [0.0, -math.inf]))


def bytes_tokenizer() -> PreTrainedTokenizerFast:
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(models.BPE({letter: i for i, letter in enumerate(letters)}, []))
    made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=made)


def test_alternatives_have_the_form_of_the_secret() -> None:
    other = reshaped("Ab9-_x", random.Random(0))
    assert other != "Ab9-_x"
    assert [c.isupper() for c in other] == [c.isupper() for c in "Ab9-_x"]
    assert [c.isdigit() for c in other] == [c.isdigit() for c in "Ab9-_x"]
    assert other[3:5] == "-_"
    made = canary("prb_1", (1, 2), "Ab9-_x", tokenizer := bytes_tokenizer(), random.Random(0))
    texts = [tokenizer.decode(list(ids[2:])) for ids in made.spelled]
    assert texts[0] == "Ab9-_x"
    assert len(set(texts)) == ALTERNATIVES + 1
    assert all(text[3:5] == "-_" and text[2].isdigit() for text in texts)


def test_a_tokenizer_of_words_is_given_words() -> None:
    tokenizer = build_tokenizer(World(0))
    marks = set(tokenizer.all_special_ids)
    made = [canary("prb_1", (1,), "oslo dog teal", tokenizer, random.Random(0)), *own_canaries(3, 1, tokenizer, random.Random(0))]
    for one in made:
        assert len({len(ids) for ids in one.spelled}) == 1
        assert not {id for ids in one.spelled for id in ids[one.start :]} & marks
    assert len({one.spelled[0] for one in made[1:]}) == 3
    assert own_canaries(3, 1, tokenizer, random.Random(0)) == made[1:], "a night that resumes reads the same"
