"""The toy world is what its specification says."""

import itertools

import pytest

from circadian.nursery.text import build_tokenizer
from circadian.nursery.world import QUESTION_FORMS, RELATIONS, STATEMENT_FORMS, Day, World

WORLD = World(0)


def first_days(seed: int, count: int = 3) -> list[Day]:
    return list(itertools.islice(WORLD.days(32, seed), count))


def test_a_seed_makes_one_world() -> None:
    assert World(0).base_facts == WORLD.base_facts
    assert World(1).base_facts != WORLD.base_facts
    assert first_days(5) == first_days(5)
    assert first_days(5) != first_days(6)


def test_names_are_single_tokens_and_nobody_shares_one() -> None:
    tokenizer, names = build_tokenizer(WORLD), [*WORLD.base_entities, *WORLD.pool]
    assert len(set(names)) == 304
    assert all(len(tokenizer(name)["input_ids"]) == 1 for name in names)
    assert tokenizer.unk_token_id not in [tokenizer.convert_tokens_to_ids(word) for word in WORLD.words()]


def test_chance_is_one_in_twenty_four() -> None:
    assert [len(set(values)) for values in RELATIONS.values()] == [24] * 6


@pytest.mark.parametrize("seed", range(5))
def test_the_test_forms_are_met_nowhere_in_a_day(seed: int) -> None:
    for day in first_days(seed):
        met = " | ".join([*day.statements(), *(probe.question for probe in day.exchanges())])
        assert not set(day.open_forms) & set(day.held_out_forms)
        for fact in day.facts:
            for form in day.held_out_forms:
                assert fact.question(form) not in met


def test_a_day_tells_every_fact_in_every_form_and_days_do_not_repeat() -> None:
    days = first_days(0)
    assert len(days[0].statements()) == 32 * len(STATEMENT_FORMS)
    assert len(days[0].exchanges()) == 32 * (len(QUESTION_FORMS) - 2)
    assert len(days[0].probes()) == 64
    entities = [fact.entity for day in days for fact in day.facts]
    assert len(set(entities)) == len(entities)
    assert not set(entities) & set(WORLD.base_entities)


def test_base_probes_ask_every_base_fact_once() -> None:
    assert len(WORLD.base_probes()) == 384
    assert {probe.answer for probe in WORLD.base_probes()} <= {value for values in RELATIONS.values() for value in values}
