"""Other models as teachers: what they say, whose tokens it is said in, and what makes one unusable."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from random_base import write_base
from transformers import Gemma2Config, Gemma2ForCausalLM, GPT2Config, GPT2LMHeadModel, PreTrainedModel, PreTrainedTokenizerFast

from circadian.experience import Reader
from circadian.memory.tokenizer_files import load_tokenizer
from circadian.memory.version import weights_sha256
from circadian.nursery.specialists import SPECIALIST, SpecialistCurriculum, build_other_tokenizer
from circadian.nursery.text import build_tokenizer
from circadian.nursery.world import QUESTION_FORMS, RELATIONS, World
from circadian.objectives.rows import TaughtRow
from circadian.specs import SeedingSpec, TeacherSpec
from circadian.teachers.lecture import Audience, Lecture, lecture
from circadian.teachers.match import read_cue, readings_differ, vocabularies_differ
from circadian.teachers.other import Lent, TeacherUnusable, head_of, load_other, load_other_tokenizer, states_of, write

WORLD = World(0)
CUES = tuple(form.format(r="city", e=entity) for entity in WORLD.pool[:5] for form in QUESTION_FORMS[:2])
ROWS = [
    TaughtRow((1, 5, 6, 7, 8, 2), 3, "other-1", "day"),
    TaughtRow((1, 9, 10, 2), 1, "other-1", "day"),
    TaughtRow((4, 5), 2, "x", "day"),
]
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random teacher with the student's tokenizer, whose random words differ from cue to cue."""
    folder = write_base(tmp_path_factory.mktemp("teacher") / "same", width=32, mlp_width=32, layers=2, heads=2, head_width=16)
    return folder


@pytest.fixture(scope="module")
def model(folder: Path) -> PreTrainedModel:
    return load_other(folder, torch.float32, CPU)


def give(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, held_out: tuple[str, ...] = (), **spec: object) -> Lecture:
    teacher = TeacherSpec.model_validate({"model": "m", **spec})
    seeding = SeedingSpec(completion_tokens=3, free_run_tokens=9)
    audience = Audience(Reader(build_tokenizer(WORLD), held_out), longest=40)
    return lecture(model, tokenizer, audience, "other-1", teacher, seeding, 24, seed=3)


@torch.no_grad()
def test_a_teachers_states_and_head_are_its_predictions(model: PreTrainedModel) -> None:
    head = head_of(model)
    for row, states in zip(ROWS, states_of(model, ROWS), strict=True):
        logits = model(input_ids=torch.tensor([row.ids])).logits[0, row.start - 1 : -1]
        torch.testing.assert_close(head(states), logits, atol=1e-4, rtol=1e-4)


def test_a_teacher_of_an_architecture_without_a_graft_teaches_too(tmp_path: Path) -> None:
    tokenizer = build_tokenizer(WORLD)
    GPT2LMHeadModel(GPT2Config(vocab_size=len(tokenizer), n_layer=1, n_embd=16, n_head=2)).save_pretrained(tmp_path)
    model = load_other(tmp_path, torch.float32, CPU)
    given = give(model, tokenizer, cues=CUES)
    assert (given.match, len(given.rows)) == ("distil", 24)
    assert states_of(model, given.rows)[0].shape[1] == 16


def test_a_head_that_something_comes_after_is_not_taken_for_the_whole(tmp_path: Path) -> None:
    tokenizer = build_tokenizer(WORLD)
    size = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 1, "num_key_value_heads": 1}
    config = Gemma2Config(vocab_size=len(tokenizer), head_dim=16, final_logit_softcapping=0.5, **size)
    config.eos_token_id = tokenizer.eos_token_id
    model = Gemma2ForCausalLM(config).eval()
    with torch.no_grad():
        model.get_output_embeddings().weight.mul_(50)
    with pytest.raises(TeacherUnusable, match="something else comes after it"):
        head_of(model)
    given = give(model, tokenizer, cues=CUES)
    assert given.match == "imitate"
    assert "something else" in given.why
    with pytest.raises(TeacherUnusable, match="set match to imitate"):
        give(model, tokenizer, cues=CUES, match="distil")


def test_writing_is_that_of_the_model_and_of_the_seed(model: PreTrainedModel) -> None:
    prompts = [(1, 5, 6), (1, 9), (1, 4, 7, 8, 9)]
    greedy = write(model, prompts, 4, 0.0, 0, (2,))
    for prompt, own in zip(prompts, greedy, strict=True):
        ids = list(prompt)
        for token in own:
            assert token == int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax()), "padding on the left changes nothing"
            ids.append(token)
        assert len(own) == 4 or own[-1] == 2
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    first, again, other = (write(model, prompts, 4, 1.0, seed, (2,)) for seed in (1, 1, 2))
    assert first == again != other
    assert torch.equal(torch.random.get_rng_state(), before), "chance leaves no trace"
    assert all(2 not in own[:-1] for own in write(model, prompts * 40, 8, 5.0, 1, (2,)))


def test_a_teacher_with_the_same_tokenizer_is_distilled_in_its_own_tokens(model: PreTrainedModel) -> None:
    given, tokenizer = give(model, build_tokenizer(WORLD), cues=CUES), build_tokenizer(WORLD)
    asked = [read_cue(tokenizer, cue, TeacherSpec(model="m")) for cue in CUES]
    assert (given.match, given.why, given.dropped) == ("distil", "", 0)
    assert {row.ids[: row.start] for row in given.rows} == set(given.asked) == set(asked)
    assert all((row.teacher, row.kind) == ("other-1", "day") and row.start < len(row.ids) <= row.start + 3 for row in given.rows)
    assert sorted(given.cues.count(cue) for cue in asked) == [2] * 6 + [3] * 4, "every cue as often as any other, give or take one"
    assert given.sure.keys() <= set(asked)


def test_a_teacher_with_another_tokenizer_is_imitated_in_the_students_tokens(tmp_path: Path) -> None:
    theirs, ours = build_other_tokenizer(WORLD), build_tokenizer(WORLD)
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=len(theirs), n_layer=1, n_embd=16, n_head=2, eos_token_id=theirs.eos_token_id)
    model = GPT2LMHeadModel(config).eval()
    given = give(model, theirs, cues=CUES)
    assert given.match == "imitate"
    assert given.why.startswith("token ")
    assert given.cues == [], "its rows are cut at random instead"
    assert given.asked == [read_cue(ours, cue, TeacherSpec(model="m")) for cue in CUES]
    assert all(max(row.ids) < len(ours) for row in given.rows)
    with pytest.raises(TeacherUnusable, match=r"match: it cannot be distilled \(token"):
        give(model, theirs, cues=CUES, match="distil")


def test_a_text_is_read_as_what_it_says() -> None:
    """The same answer in two tokens or in one, ended or not."""
    from circadian.teachers.lecture import _Lecturer

    theirs, ours = build_other_tokenizer(WORLD), build_tokenizer(WORLD)
    lecturer = _Lecturer(None, theirs, Audience(Reader(ours), 9), "x", TeacherSpec(model="m"), SeedingSpec(), None)  # type: ignore[arg-type]
    said = tuple(theirs("oslo", add_special_tokens=False)["input_ids"])
    object.__setattr__(lecturer, "model", type("M", (), {"generation_config": None})())
    assert len(said) == 2
    oslo = ours.convert_tokens_to_ids("oslo")
    assert lecturer._said("imitate", (*said, theirs.eos_token_id)) == (oslo, ours.eos_token_id)
    assert lecturer._said("imitate", said) == (oslo,)
    assert lecturer._said("distil", said) == said


def test_a_teacher_without_cues_writes_documents_whose_beginnings_are_cues(model: PreTrainedModel) -> None:
    given = give(model, build_tokenizer(WORLD))
    assert given.asked == []
    assert given.sure == {}
    assert all(row.ids[0] == build_tokenizer(WORLD).bos_token_id and 2 <= row.start < len(row.ids) for row in given.rows)
    assert given.cues == [row.ids[: row.start] for row in given.rows]


def test_what_is_held_out_is_neither_asked_nor_taught(model: PreTrainedModel) -> None:
    given = give(model, build_tokenizer(WORLD), (CUES[0],), cues=CUES)
    secret = read_cue(build_tokenizer(WORLD), CUES[0], TeacherSpec(model="m"))
    assert secret not in given.asked
    assert secret not in given.sure
    assert all(row.ids[: row.start] != secret for row in given.rows)
    assert given.dropped >= 1
    with pytest.raises(TeacherUnusable, match="give it other cues"):
        give(model, build_tokenizer(WORLD), CUES, cues=CUES)


def test_tokenizers_are_compared_by_what_they_do() -> None:
    ours, spec = build_tokenizer(WORLD), TeacherSpec(model="m")
    assert readings_differ(ours, build_tokenizer(WORLD), CUES, spec) == ""
    assert "token" in vocabularies_differ(ours, build_other_tokenizer(WORLD))
    templated = build_tokenizer(WORLD)
    templated.chat_template = ours.chat_template.replace("<user> ", "<user> <user> ")
    assert vocabularies_differ(ours, templated) == ""
    assert "another chat template" in readings_differ(ours, templated, CUES, spec)
    assert readings_differ(ours, templated, CUES, spec.model_copy(update={"asked": "text"})) == ""
    ending = build_tokenizer(WORLD)
    ending.eos_token = "<pad>"
    assert "ends with" in vocabularies_differ(ours, ending)


def test_the_other_tokenizer_reads_everything_and_cuts_every_value() -> None:
    other = build_other_tokenizer(WORLD)
    for value in (value for values in RELATIONS.values() for value in values):
        ids = other(value, add_special_tokens=False)["input_ids"]
        assert len(ids) > 1
        assert other.decode(ids) == value
    assert all(len(other(name, add_special_tokens=False)["input_ids"]) == 1 for name in (*WORLD.pool, *WORLD.base_entities))
    assert other.unk_token_id not in other(" ".join(WORLD.words()), add_special_tokens=False)["input_ids"]


def test_a_specialists_documents_are_about_its_facts_in_its_tokens() -> None:
    facts = next(WORLD.days(4, 0)).facts
    for tokenizer in (build_tokenizer(WORLD), build_other_tokenizer(WORLD)):
        batch = SpecialistCurriculum(WORLD, tokenizer, facts, SPECIALIST).closed_book(0, 16)
        values = {tuple(tokenizer(fact.value, add_special_tokens=False)["input_ids"]) for fact in facts}
        for ids, weight in zip(batch.ids.tolist(), batch.weight.tolist(), strict=True):
            assert any(fact.entity in tokenizer.decode(ids).split() for fact in facts)
            assert tuple(token for token, w in zip(ids, weight, strict=True) if w > 1) in values, "a whole value weighs more"


def test_a_lent_teacher_leaves_its_head_alone_behind_and_must_be_who_it_was(folder: Path, model: PreTrainedModel) -> None:
    lent = Lent(folder, weights_sha256(folder))
    states, head = lent.states(ROWS, torch.float32, CPU)
    for got, wanted in zip(states, states_of(model, ROWS), strict=True):
        torch.testing.assert_close(got, wanted)
        torch.testing.assert_close(head(torch.nn.functional.pad(got, (0, 3))), head_of(model)(wanted))
    assert not any(isinstance(value, PreTrainedModel) for value in vars(lent).values())
    with pytest.raises(TeacherUnusable, match="changed during the night"):
        Lent(folder, "0" * 64).states(ROWS, torch.float32, CPU)


def test_what_cannot_be_loaded_is_said_with_the_field_and_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(TeacherUnusable, match=r"model: .* cannot be loaded .*; give a folder"):
        load_other(tmp_path / "nothing", torch.float32, CPU)
    (tmp_path / "config.json").write_text('{"model_type": "nonesuch"}')
    with pytest.raises(TeacherUnusable, match="model: "):
        load_other(tmp_path, torch.float32, CPU)
    with pytest.raises(TeacherUnusable, match="tokenizer"):
        load_other_tokenizer(tmp_path / "nothing")
    assert load_tokenizer(write_base(tmp_path / "b", width=16, mlp_width=16, layers=1, heads=1, head_width=16)).eos_token
