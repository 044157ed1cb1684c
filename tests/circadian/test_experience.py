"""What is learned of an experience, and what sleep is told of it."""

import random

import pytest
from pydantic import ValidationError
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from circadian.experience import HELD_OUT, Reader, Unreadable, day_rows, experience_ids, parts
from circadian.nursery.text import build_tokenizer
from circadian.nursery.world import World
from circadian.specs import Experience, Level, MemorySpec, Message, Recipe

TOKENIZER = build_tokenizer(World(0))
SAID = Message(role="user", content="the city of jehas is oslo .")
ASKED = Message(role="user", content="what is the city of jehas ?")
ANSWERED = Message(role="assistant", content="oslo")


def learned(experience: Experience) -> list[str]:
    """The words whose prediction is learned."""
    (row,) = Reader(TOKENIZER).rows(experience)
    return [word for word, w in zip(TOKENIZER.convert_ids_to_tokens(row.ids), row.weight, strict=True) if w]


def test_of_a_statement_every_token_is_learned_but_not_that_it_ends_there() -> None:
    assert learned(Experience(id="1", messages=(SAID,), source="human")) == "<user> the city of jehas is oslo .".split()
    assert learned(Experience(id="1", text="the city of jehas is oslo .")) == "city of jehas is oslo .".split()


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
    (cue,) = reader.rows(Experience(id="1", messages=(ASKED, ANSWERED), source="human"))[0].questions()
    assert TOKENIZER.convert_ids_to_tokens(cue) == "<bos> <user> what is the city of jehas ? <assistant>".split()
    assert reader.rows(Experience(id="2", messages=(SAID,), source="human"))[0].questions() == []


def test_cuts_are_beginnings_of_different_lengths() -> None:
    reader, experience = Reader(TOKENIZER), Experience(id="1", messages=(SAID,), source="human")
    (row,) = reader.rows(experience)
    ids, cuts = row.ids, row.cuts(random.Random(0), 3, longest=100)
    assert len({len(cut) for cut in cuts}) == 3
    assert all(ids[: len(cut)] == cut and len(cut) < len(ids) for cut in cuts)
    assert {len(cut) for cut in row.cuts(random.Random(0), 9, longest=4)} == {2, 3, 4}


def test_held_out_texts_are_found_wherever_they_stand() -> None:
    reader = Reader(TOKENIZER, held_out=[ASKED.content])
    assert reader.is_held_out(reader.rows(Experience(id="1", messages=(SAID, ASKED), source="human"))[0].ids)
    assert not reader.is_held_out(reader.rows(Experience(id="1", messages=(SAID,), source="human"))[0].ids)


def bpe(*texts: str) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer, as most base models have."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=["<end>"], initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(list(texts) * 5, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>")


BPE = bpe("Who found the amber key? Mira found the amber key.", "user: assistant: the key is amber")


def test_held_out_texts_are_found_inside_a_sentence_whose_tokens_differ() -> None:
    reader = Reader(BPE, held_out=["Who found the amber key?", "  "])
    alone = tuple(BPE("Who found the amber key?")["input_ids"])
    inside = tuple(BPE("I ask: who  found the\nAMBER key? Mira did.")["input_ids"])
    assert alone not in [inside[i : i + len(alone)] for i in range(len(inside))]
    assert reader.are_held_out([inside, tuple(BPE("Mira found the amber key.")["input_ids"])]) == [True, False]


def test_a_tokenizer_without_a_template_reads_plain_lines() -> None:
    chat = Experience(id="1", messages=(SAID, ASKED, ANSWERED), source="human")
    (row,) = Reader(BPE).rows(chat)
    assert row.ids == experience_ids(BPE, chat)
    assert BPE.decode(row.ids) == f"user: {SAID.content}\nuser: {ASKED.content}\nassistant: oslo<end>\n"
    assert BPE.decode([i for i, w in zip(row.ids, row.weight, strict=True) if w]) == " oslo<end>\n"


def test_answers_that_a_template_later_renders_otherwise_are_rows_of_their_own() -> None:
    thinks = build_tokenizer(World(0))
    thinks.chat_template = (
        "{% for m in messages %}{% if m['role'] == 'assistant' %}<assistant> {% if loop.last %}<pad> {% endif %}"
        "{{ m['content'] }} <eos>{% else %}<user> {{ m['content'] }} {% endif %}{% endfor %}"
        "{% if add_generation_prompt %}<assistant>{% endif %}"
    )
    rows = Reader(thinks).rows(Experience(id="1", messages=(ASKED, ANSWERED, SAID, ANSWERED), source="human"))
    words = [thinks.convert_ids_to_tokens(row.ids) for row in rows]
    question, said = (
        "<user> what is the city of jehas ? <assistant>".split(),
        "<user> the city of jehas is oslo . <assistant>".split(),
    )
    answer = "<pad> oslo <eos>".split()
    assert words == [question + answer, [*question, "oslo", "<eos>", *said, *answer]]
    assert all(row.weight == (0.0,) * (len(row.ids) - 3) + (1.0,) * 3 for row in rows)


def test_a_chat_that_the_template_refuses_is_unreadable_and_says_why() -> None:
    strict = build_tokenizer(World(0))
    strict.chat_template = "{{ raise_exception('roles must alternate') }}"
    with pytest.raises(Unreadable, match="roles must alternate"):
        Reader(strict).rows(Experience(id="1", messages=(SAID,)))


@pytest.mark.parametrize(
    ("build", "remedy"),
    [
        (lambda: Experience(id="1"), "either messages .* or text"),
        (lambda: Experience(id="1", text="a", messages=(SAID,)), "either messages .* or text"),
        (lambda: MemorySpec(levels=(Level(period=10), Level(period=15))), "period 15 is not a larger multiple of 10"),
        (lambda: Recipe.model_validate({"seeding": {"completion_tokens": 511}}), "leaves no room for a cue"),
        (lambda: MemorySpec(layers=(2, 1)), "not ascending"),
        (lambda: Recipe.model_validate({"seeding": {"stepz": 3}}), "Extra inputs are not permitted"),
    ],
)
def test_bad_settings_name_the_field_and_the_remedy(build: object, remedy: str) -> None:
    with pytest.raises(ValidationError, match=remedy):
        build()  # type: ignore[operator]


def said(text: str) -> Message:
    return Message(role="user", content=text)


@pytest.mark.parametrize(
    ("experience", "learned"),
    [
        (Experience(id="1", text="Oslo is cold. Rome is warm.", source="import"), ["Oslo is cold.", "Rome is warm."]),
        (
            Experience(id="1", messages=(said("Oslo is cold. Yes. Rome is warm."),), source="human"),
            ["Oslo is cold.", "Rome is warm."],
        ),
        (
            Experience(id="1", messages=(said("Oslo is cold."), said("Rome is warm.")), source="human"),
            ["Oslo is cold.", "Rome is warm."],
        ),
        (Experience(id="1", messages=(said("Yes. No."),), source="human"), ["Yes. No."]),
    ],
)
def test_what_is_told_at_once_can_be_learned_piece_by_piece(experience: Experience, learned: list[str]) -> None:
    cut = parts(experience, "sentences")
    assert [one.text or one.messages[0].content for one in cut] == learned
    assert {one.id for one in cut} == {"1"}
    assert parts(experience, "whole") == [experience]


def test_an_exchange_is_learned_whole() -> None:
    asked = Experience(
        id="1",
        messages=(said("Where is it cold ? Say it ."), Message(role="assistant", content="In oslo . Oslo is cold .")),
        source="wake",
    )
    assert parts(asked, "sentences") == [asked]


def test_an_experience_of_which_one_piece_is_held_out_is_left_out_whole() -> None:
    texts = ("the city of mira is oslo . the pet of mira is cat .", "the city of tono is bern . the pet of tono is dog .")
    told = [Experience(id=str(i), messages=(said(text),), source="human") for i, text in enumerate(texts, 1)]
    rows, left_out, _ = day_rows(told, Reader(TOKENIZER, ("the pet of mira is cat",)), 64, "sentences")
    assert left_out == {"1": HELD_OUT}
    assert len(rows) == 2
