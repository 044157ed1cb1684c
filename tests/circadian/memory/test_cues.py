"""The cue store: what it may hold, and a fair sample of it in bounded bytes."""

from __future__ import annotations

import json
import math
import random
from collections import Counter
from pathlib import Path

import pytest
from pydantic import ValidationError

from circadian.memory.cues import LARGEST, Cue, Store, cues_json, join_cues, priority, read_cues, read_store, stored
from circadian.specs import Recipe

LIMIT, NIGHTS, CUES_A_NIGHT, LIVES = 8192, 12, 40, 60


def met_on(sleep: str, rng: random.Random, count: int = CUES_A_NIGHT) -> list[Cue]:
    """Questions and texts of 2 to 40 tokens."""
    lengths = [rng.choice((2, 10, 40)) for _ in range(count)]
    return [Cue(tuple(rng.randrange(50_000) for _ in range(length)), sleep, rng.random() < 0.5) for length in lengths]


def life(seed: int, nights: int = NIGHTS) -> list[list[Cue]]:
    """What the nights of one deployment met."""
    rng = random.Random(seed)
    return [met_on(f"slp_{seed}_{night}", rng) for night in range(nights)]


def joined(nights: list[list[Cue]], limit: int = LIMIT, store: Store | None = None) -> Store:
    store = store or Store()
    for cues in nights:
        store = join_cues(store, cues, limit)
    return store


def test_of_a_text_the_store_keeps_at_most_half_and_of_a_question_all() -> None:
    assert stored((1, 2, 3, 4, 5, 6, 7), 8, "slp", question=False) == Cue((1, 2, 3, 4), "slp", False)
    assert stored((1, 2, 3), 3, "slp", question=False) is None
    assert stored((1, 2, 3, 4, 5, 6, 7), 8, "slp", question=True) == Cue((1, 2, 3, 4, 5, 6, 7), "slp", True)


@pytest.mark.parametrize("limit", [4096, 5000, LIMIT, 1 << 20])
def test_the_store_never_passes_its_bytes_and_fills_them(limit: int) -> None:
    store = Store()
    for cues in life(1, nights=40):
        store = join_cues(store, cues, limit)
        size = len(cues_json(store).encode())
        assert size <= limit
        if store.cut < 1:
            assert size > limit * (1 - 2 / LARGEST) - 512, "room stays for one more cue at most, and what the cut leaves"
    assert store.met == 40 * CUES_A_NIGHT
    assert (store.cut == 1.0) == (limit == 1 << 20)


def test_every_cue_has_the_same_chance_whatever_its_night_and_size() -> None:
    """Over many lives; each count within four standard deviations of what is expected."""
    kept_of, met_of = Counter[object](), Counter[object]()
    for seed in range(LIVES):
        nights = life(seed)
        kept = set(joined(nights).cues)
        for night, cues in enumerate(nights):
            for cue in cues:
                for trait in (("night", night), ("tokens", len(cue.ids)), ("question", cue.question)):
                    met_of[trait] += 1
                    kept_of[trait] += cue in kept
    chance = sum(kept_of[trait] for trait in met_of if trait[0] == "night") / (LIVES * NIGHTS * CUES_A_NIGHT)  # type: ignore[index]
    assert 0.05 < chance < 0.5
    for trait, count in met_of.items():
        # Of one life the number is steadier than if each cue were drawn alone, so this bound is wide.
        assert abs(kept_of[trait] - count * chance) < 4 * math.sqrt(count * chance * (1 - chance)), (trait, kept_of[trait], count)


def test_the_store_is_the_same_in_whatever_order_cues_come() -> None:
    """Nights in any order, one by one or all at once: exactly the cues below the cut."""
    nights, rng = life(3), random.Random(0)
    everything = [cue for cues in nights for cue in cues]
    wanted = joined(nights)
    assert set(wanted.cues) == {cue for cue in everything if priority(cue) < wanted.cut}
    for _ in range(5):
        shuffled = rng.sample(nights, len(nights))
        got = joined([rng.sample(cues, len(cues)) for cues in shuffled])
        assert (set(got.cues), got.cut, got.met) == (set(wanted.cues), wanted.cut, wanted.met)
    at_once = joined([everything])
    assert (set(at_once.cues), at_once.cut) == (set(wanted.cues), wanted.cut)
    assert cues_json(joined(nights)) == cues_json(wanted)


def test_what_was_kept_stays_in_its_order_and_a_repeated_night_changes_nothing() -> None:
    nights = life(4, nights=2)
    store = joined(nights)
    places = {cue: place for place, cue in enumerate(cue for cues in nights for cue in cues)}
    assert [places[cue] for cue in store.cues] == sorted(places[cue] for cue in store.cues)
    roomy = joined(nights, limit=1 << 20)
    assert join_cues(roomy, nights[1], 1 << 20) == roomy


def test_a_cue_that_would_fill_the_store_does_not_enter() -> None:
    """However small its priority: the smallest of all would leave no room for any other."""
    small = met_on("slp_small", random.Random(0))
    huge = next(cue for i in range(1000) if priority(cue := Cue((i,) * (LIMIT // 4), "slp_huge", True)) < min(map(priority, small)))
    store = joined([[huge, *small]])
    assert set(store.cues) == set(joined([small]).cues)
    assert huge not in store.cues


def test_a_limit_that_is_lowered_is_kept_at_once() -> None:
    nights = life(5)
    store = joined(nights[6:], limit=4096, store=joined(nights[:6]))
    assert len(cues_json(store).encode()) <= 4096
    assert set(store.cues) == set(joined(nights, limit=4096).cues)


def test_a_store_survives_its_file_and_one_of_before_there_was_a_cut_is_read(tmp_path: Path) -> None:
    assert read_store(tmp_path) == Store()
    store = joined(life(6))
    (tmp_path / "cues.json").write_text(cues_json(store))
    assert read_store(tmp_path) == store
    assert read_cues(tmp_path) == list(store.cues)
    cues = [{"ids": [1, 4, 9], "sleep": "slp_0", "question": True}]
    (tmp_path / "cues.json").write_text(json.dumps({"met": 7, "cues": cues}))
    old = read_store(tmp_path)
    assert old == Store((Cue((1, 4, 9), "slp_0", True),), 7, 1.0)
    assert join_cues(old, [Cue((5, 6), "slp_1", True)], 4096).met == 8


def test_a_store_of_a_few_bytes_is_refused() -> None:
    with pytest.raises(ValidationError, match="greater than or equal to 4096"):
        Recipe.model_validate({"cue_bytes": 100})
