"""What is learned of an experience, and what sleep is told of it."""

import random

import pytest
from pydantic import ValidationError

from circadian.experience import Reader
from circadian.memory.cues import Cue, join_cues
from circadian.nursery.text import build_tokenizer
from circadian.nursery.world import World
from circadian.specs import Experience, Level, MemorySpec, Message, Recipe

TOKENIZER = build_tokenizer(World(0))
SAID = Message(role="user", content="the city of jehas is oslo .")
ASKED = Message(role="user", content="what is the city of jehas ?")
ANSWERED = Message(role="assistant", content="oslo")


def learned(experience: Experience) -> list[str]:
    """The words whose prediction is learned."""
    row = Reader(TOKENIZER).row(experience)
    return [word for word, w in zip(TOKENIZER.convert_ids_to_tokens(row.ids), row.weight, strict=True) if w]


def test_of_a_statement_every_token_is_learned() -> None:
    assert learned(Experience(id="1", messages=(SAID,), source="human")) == "<user> the city of jehas is oslo . <eos>".split()


def test_of_an_exchange_only_the_answer_is_learned() -> None:
    assert learned(Experience(id="1", messages=(ASKED, ANSWERED), source="human")) == ["oslo", "<eos>"]
    both = Experience(id="1", messages=(ASKED, ANSWERED, ASKED, ANSWERED), source="human")
    assert learned(both) == ["oslo", "<eos>"] * 2


def test_the_deployment_never_learns_its_own_answers() -> None:
    own = Message(role="assistant", content="paris")
    assert "paris" not in learned(Experience(id="1", messages=(SAID, own), source="wake"))
    assert "oslo" in learned(Experience(id="1", messages=(SAID, own), source="wake"))


def test_a_cue_never_holds_the_answer() -> None:
    reader = Reader(TOKENIZER)
    (cue,) = reader.questions(Experience(id="1", messages=(ASKED, ANSWERED), source="human"))
    assert TOKENIZER.convert_ids_to_tokens(cue) == "<bos> <user> what is the city of jehas ? <assistant>".split()
    assert reader.questions(Experience(id="2", messages=(SAID,), source="human")) == []


def test_cuts_are_beginnings_of_different_lengths() -> None:
    reader, experience = Reader(TOKENIZER), Experience(id="1", messages=(SAID,), source="human")
    ids = reader.row(experience).ids
    cuts = reader.cuts(experience, random.Random(0), 3)
    assert len({len(cut) for cut in cuts}) == 3
    assert all(ids[: len(cut)] == cut and len(cut) < len(ids) for cut in cuts)


def test_held_out_texts_are_found_wherever_they_stand() -> None:
    reader = Reader(TOKENIZER, held_out=[ASKED.content])
    assert reader.is_held_out(reader.row(Experience(id="1", messages=(SAID, ASKED), source="human")).ids)
    assert not reader.is_held_out(reader.row(Experience(id="1", messages=(SAID,), source="human")).ids)


def test_the_cue_store_is_a_reservoir() -> None:
    kept: list[Cue] = []
    met = 0
    for night in range(10):
        kept, met = join_cues(kept, met, [Cue((night, i), f"slp_{night}", True) for i in range(100)], 200, seed=0)
    assert (len(kept), met) == (200, 1000)
    nights = [sum(cue.sleep == f"slp_{night}" for cue in kept) for night in range(10)]
    assert min(nights) >= 8, nights
    assert max(nights) <= 34, nights


@pytest.mark.parametrize(
    ("build", "remedy"),
    [
        (lambda: Experience(id="1"), "either messages .* or text"),
        (lambda: Experience(id="1", text="a", messages=(SAID,)), "either messages .* or text"),
        (lambda: MemorySpec(levels=(Level(period=10), Level(period=15))), "period 15 is not a larger multiple of 10"),
        (lambda: MemorySpec(layers=(2, 1)), "not ascending"),
        (lambda: Recipe.model_validate({"seeding": {"stepz": 3}}), "Extra inputs are not permitted"),
    ],
)
def test_bad_settings_name_the_field_and_the_remedy(build: object, remedy: str) -> None:
    with pytest.raises(ValidationError, match=remedy):
        build()  # type: ignore[operator]
