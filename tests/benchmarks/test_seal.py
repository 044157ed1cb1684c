"""SEAL's protocol: every rule against examples made by hand, and both commands end to end, small and in this process."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from random_base import write_base
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from benchmarks.local_engine import LocalPool
from benchmarks.seal import arc, puzzling, squad, words
from benchmarks.seal.command import main
from benchmarks.seal.data import DataMissing, Pair, Puzzle, read_puzzles, read_rounds, read_tested
from benchmarks.seal.edits import STEPS, SelfEdit, edit_in, object_in
from benchmarks.seal.engines import Engine
from benchmarks.seal.grids import CHANGES, IDENTITY, SYMMETRIES, Cells, read_grid, recoloured, text_of, turned
from benchmarks.seal.ground import Ground, founded
from benchmarks.seal.items import Item, items_of, left_out, permuted
from benchmarks.seal.puzzling import Bounds, Puzzler
from benchmarks.seal.requests import SquadRequest
from benchmarks.seal.rounds import selection
from benchmarks.seal.votes import attempts, queries, right
from circadian.dreaming.lessons import headed, headed_pieces
from circadian.dreaming.prompts import plain_ids
from circadian.dreaming.tasks import Task
from circadian.memory.tokenizer_files import load_tokenizer
from circadian.nursery.school import School
from circadian.nursery.ship import SCHOOL
from circadian.specs.dreaming import DreamingSpec, ProbeSpec, RewardSpec
from pipelines import dreaming
from pipelines.dream_tasks import Dreamer
from pipelines.stages import write_lines

SHARED = Path(__file__).parents[3] / "shared" / "data"
GRID: Cells = ((1, 2, 3), (4, 5, 6))
GRIDS = st.integers(1, 5).flatmap(
    lambda width: st.lists(st.lists(st.integers(0, 9), min_size=width, max_size=width).map(tuple), min_size=1, max_size=5).map(
        tuple
    )
)


# What the model is asked, and what it learns of what it says.


def test_the_words_are_seals() -> None:
    asked = words.IMPLICATIONS.replace("{context}", "Oslo\nOslo is a city.")
    assert asked == (
        "Let's read the following passage and produce a list of implications derived directly or indirectly from the content.\n\n"
        "Passage:\nOslo\nOslo is a city.\n\nImplications:\n"
    )
    question = words.TOPIC.format(title="Oslo", question="What is Oslo?")
    assert words.ASK.replace("{question}", question) == (
        "Let's answer a question directly and concisely.\nQuestion: Topic: Oslo\nWhat is Oslo?\nAnswer:\n"
    )


@pytest.mark.parametrize(
    ("dream", "split", "wanted"),
    [
        ("1. One.\n\n  2. Two.  \n", "lines", ["1. One.", "2. Two."]),
        ("Here is a list:\n1. One.\n2. Two.", "lines", ["1. One.", "2. Two."]),
        ("Here is a list:\n\n 1. One.", "lines", ["1. One."]),
        ("One.\n2. Two.\n1. Three.", "lines", ["One.", "2. Two.", "1. Three."]),
        ("1. One.", "lines", ["1. One."]),
        ("One.\n---\nTwo.\n-----\n\nThree - four.", "lines", ["One.", "Two.", "Three - four."]),
        ("Here:\n1. One.\n---\nTwo.\n", "whole", ["Here:\n1. One.", "Two."]),
        ("", "lines", []),
        ("---", "whole", []),
    ],
)
def test_a_dream_is_cut_into_seals_sequences(dream: str, split: Any, wanted: list[str]) -> None:
    assert headed_pieces(dream, split) == wanted


def test_every_sequence_stands_below_the_title() -> None:
    found = headed("List:\n1. It is cold.\n2. Why?", "lines", "drm_0", "Oslo\nOslo is a city.\nIt is big.")
    assert [one.text for one in found] == ["Oslo\n1. It is cold.", "Oslo\n2. Why?"]
    assert [(one.id, one.source) for one in found] == [("drm_0/0", "tool"), ("drm_0/1", "tool")]


def test_an_instance_learns_the_sequences_and_last_the_passage(school: Ground) -> None:
    dreamer = dreamer_of(school, {"lessons": "headed", "split": "lines", "plain": True})
    task = Task("task-0", "rakos\nthe city of rakos is oslo .", False, (), (), "contains", "here")
    dream = dreaming.Dream(
        "drm_0_0", "task-0", "here", "trusted", "implications", "the job :\n1. for rakos the city is oslo .", (), ()
    )
    rows = dreaming.learned(dreamer, task, dream, instance=True)
    texts = [dreamer.reader.tokenizer.decode(row.ids) for row in rows]
    assert texts == ["rakos <unk> . for rakos the city is oslo .", "rakos the city of rakos is oslo ."]
    assert all(row.weight == (0.0, *[1.0] * (len(row.ids) - 1)) for row in rows)
    assert dreaming.learned(dreamer, task, dream) == rows[:1], "a dream is weighed without its passage"


def test_plain_prompts_are_text_and_their_answers_are_learned_to_the_end(school: Ground) -> None:
    asked = "what is {question} ?"
    dreamer = dreamer_of(school, {"plain": True, "words": {"ask": asked}})
    tokenizer = dreamer.reader.tokenizer
    assert dreamer.asked("ask", question="the city") == tuple(tokenizer("what is the city ?")["input_ids"])
    (row,) = dreamer.exchange(ProbeSpec(question="the city", answers=("oslo",)))
    assert tokenizer.decode(row.ids) == "what is the city ? oslo <eos>"
    assert row.weight == (0.0,) * 5 + (1.0, 1.0)
    chat = dreamer_of(school, {"words": {"ask": asked}})
    (turn,) = chat.exchange(ProbeSpec(question="the city", answers=("oslo",)))
    assert turn.ids[: sum(not weight for weight in turn.weight)] == chat.asked("ask", question="the city")


def test_a_plain_prompt_is_left_open() -> None:
    class Closing:
        all_special_tokens, added_tokens_decoder, eos_token_id = ["</s>"], {0: "</s>"}, 0

        def __call__(self, text: str) -> dict[str, list[int]]:
            return {"input_ids": [1, *(ord(letter) for letter in text), 0]}

    assert plain_ids(Closing(), "{context}!", context="a") == (1, ord("a"), ord("!"))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ({"words": {"ask": "what?"}}, r"words.ask.*no \{question\}"),
        ({"words": {"judge": "{wanted}?"}}, r"words.judge.*no \{said\}"),
        ({"words": {"answer": "{question}?"}}, r"words.answer.*no \{context\}"),
        ({"lessons": "headed", "split": "sentences"}, "set split to lines or whole"),
        ({"prompts": ["ask"]}, "prompts"),
    ],
)
def test_a_spec_that_cannot_be_meant_is_refused(spec: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        DreamingSpec.model_validate(spec)


def test_the_numbers_are_seals(school: Ground) -> None:
    spec = DreamingSpec.model_validate(squad.spec_of(request_of(school), [], 8192))
    instance, dreamer = spec.instance, spec.dreamer
    assert (instance.rank, instance.alpha, instance.lr, instance.epochs, instance.batch) == (32, 64.0, 1e-3, 10, 1)
    assert instance.targets == ("q_proj", "v_proj")
    assert (dreamer.rank, dreamer.alpha, dreamer.lr, dreamer.epochs, dreamer.batch, len(dreamer.targets)) == (
        64,
        128,
        3e-4,
        2,
        10,
        7,
    )
    assert (spec.temperature, spec.answer_tokens, spec.with_context, spec.plain) == (1.0, 64, True, True)
    assert (spec.reward.kind, spec.reward.against, spec.reward.instances) == ("highest", "nothing", 3)
    request = SquadRequest(data=Path(), model="m", out=Path("r"))
    assert (request.contexts, request.rounds, request.dreams, request.tokens, request.scorer) == (50, 2, 5, 8192, "contains")
    puzzle = puzzling.INSTANCE
    assert (puzzle["rank"], puzzle["alpha"], puzzle["batch"]) == (128, 16.0, 2)
    assert (arc.DREAMER["rank"], arc.DREAMER["alpha"], arc.DREAMER["lr"], arc.DREAMER["epochs"], arc.DREAMER["batch"]) == (
        16,
        16,
        5e-5,
        8,
        5,
    )
    assert set(puzzle["targets"]) == set(arc.DREAMER["targets"]) == {"q_proj", "v_proj", "gate_proj", "down_proj", "up_proj"}


@pytest.mark.parametrize(
    ("arm", "side", "one_for_all", "written", "tried", "random_expert"),
    [
        ("seal", "night", False, 5, 5, False),
        ("seal", "tests", False, 1, 1, False),
        ("sleep", "night", False, 12, 4, True),
        ("sleep", "tests", False, 12, 1, True),
        ("sleep", "tests", True, 1, 1, True),
    ],
)
def test_arms_spend_as_those_of_the_dreaming_benchmark(
    school: Ground, arm: Any, side: Any, one_for_all: bool, written: int, tried: int, random_expert: bool
) -> None:
    request = request_of(school).model_copy(update={"one_for_all": one_for_all})
    spec = DreamingSpec.model_validate(selection(request, arm, side, 5, 1))
    assert (spec.dreams, spec.selection.top + spec.selection.chance) == (written, tried)
    assert (spec.novelty.strength > 0) == random_expert
    assert (spec.selection.score != "none") == (written > tried)


# What is rewarded.


@pytest.mark.parametrize(("kind", "wanted"), [("improved", {"b", "c"}), ("best", {"c"}), ("highest", {"c", "e"})])
def test_the_highest_of_a_context_is_rewarded_whether_it_improved_or_not(kind: Any, wanted: set[str]) -> None:
    told = [
        ("a", "x", 0.1, 0.2),
        ("b", "x", 0.3, 0.2),
        ("c", "x", 0.4, 0.2),
        ("d", "y", None, 0.9),
        ("e", "y", 0.0, 0.9),
        ("f", "y", 0.0, 0.9),
    ]
    lines = [dict(zip(("dream", "context", "score", "undreamt"), line, strict=True)) for line in told]
    dreamer: Any = SimpleNamespace(spec=SimpleNamespace(reward=RewardSpec(kind=kind)))
    assert dreaming._rewarded(dreamer, lines) == wanted


def test_of_several_instances_of_a_dream_the_mean_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reward = RewardSpec(kind="highest", against="nothing", instances=3)
    tuned: list[Sequence[str]] = []

    def tune(model: object, texts: Sequence[str], *_: object, **__: object) -> list[list[float]]:
        tuned.append(list(texts))
        return [[2.0, float(i)] if i != 4 else [] for i in range(len(texts))]

    def examined(of: object, tasks: Sequence[Task], folder: object, numbers: Sequence[int]) -> list[float]:
        return [number / 10 for number in numbers]

    monkeypatch.setattr(dreaming, "model_of", lambda _: None)
    monkeypatch.setattr(dreaming, "learned", lambda dreamer, task, one, instance: one.text)
    monkeypatch.setattr(dreaming, "examined", examined)
    job = SimpleNamespace(seed=0)
    spec = DreamingSpec(reward=reward)
    dreamer: Any = SimpleNamespace(spec=spec, home=tmp_path, job=job, hands=SimpleNamespace(tune=tune))
    task = {"name": "t", "context": "c", "chat": False, "probes": [], "validation": [], "scorer": "f1", "source": "s"}
    write_lines(tmp_path / "tasks", [{"task": task, "score": 0.0, "nats": 0.0}])
    one = {"context": "t", "source": "s", "trust": "trusted", "kind": "free", "prompt": [], "ids": []}
    write_lines(tmp_path / "dreams", [one | {"id": name, "text": name} for name in "ab"])
    write_lines(tmp_path / "weighed", [{"dream": name, "fate": "top"} for name in "ab"])
    tried = dreaming.try_out(dreamer, {"tasks_file": "tasks"}, {"dreams_file": "dreams"}, {"weighed_file": "weighed"}, "0")
    assert tuned == [["a", "a", "a", "b", "b", "b"]]
    lines = dreaming.read_lines(tmp_path / tried["tried_file"])
    assert [line["score"] for line in lines] == pytest.approx([0.1, 0.4]), "the one that broke does not count"
    assert [line["rewarded"] for line in lines] == [False, True]
    assert tried["broken"] == 0


# Grids, and what is made of them.


@given(GRIDS)
def test_what_is_done_to_a_grid_can_be_taken_back(grid: Cells) -> None:
    for change in (*SYMMETRIES, *(change for changes in CHANGES.values() for change in changes), recoloured(random.Random(0))):
        assert change.back(change.forth(grid)) == grid


def test_what_is_done_to_a_grid() -> None:
    assert turned(GRID, 1) == ((4, 1), (5, 2), (6, 3))
    assert len({change.forth(GRID) for change in SYMMETRIES}) == 8
    assert {name: len(changes) for name, changes in CHANGES.items()} == {"basic": 7, "size": 3, "chain": 3, "repeat": 3}
    assert GRID not in {change.forth(GRID) for changes in CHANGES.values() for change in changes}
    small: Cells = ((1, 2),)
    assert [change.forth(small) for change in CHANGES["size"]] == [((1, 2), (1, 2)), ((1, 1, 2, 2),), ((1, 1, 2, 2), (1, 1, 2, 2))]
    assert [change.forth(small) for change in CHANGES["repeat"]] == [
        ((1, 2), (1, 2)),
        ((1, 2, 1, 2),),
        ((1, 2, 1, 2), (1, 2, 1, 2)),
    ]
    assert CHANGES["chain"][1].forth(small) == ((2, 2, 1, 1), (2, 2, 1, 1))


def test_colours_change_places_but_not_the_background() -> None:
    every: Cells = (tuple(range(10)),)
    painted = recoloured(random.Random(3)).forth(every)[0]
    assert painted[0] == 0
    assert sorted(painted) == list(range(10))
    assert painted != every[0]


def test_grids_as_text() -> None:
    assert text_of(GRID) == "1 2 3\n4 5 6"
    assert read_grid("Output:\n1 2 3\n4 5 6\n") == read_grid("[[1, 2, 3], [4, 5, 6]]") == GRID
    assert read_grid("1 2\n3") is None, "rows are of one length"
    assert read_grid("1 12") is None
    assert read_grid("no grid") is None


PAIRS = [(((n,),), ((n, n),)) for n in range(1, 5)]


@pytest.mark.parametrize(("examples", "one", "two"), [(2, 2, 0), (3, 3, 6), (4, 4, 12)])
def test_examples_are_left_out_in_turn(examples: int, one: int, two: int) -> None:
    pairs = PAIRS[:examples]
    assert (len(left_out(pairs, 1)), len(left_out(pairs, 2))) == (one, two)
    for count in (1, 2):
        for item in left_out(pairs, count):
            assert (item.asked, item.answer) in pairs
            assert (item.asked, item.answer) not in item.shown
            assert len(item.shown) == examples - count
    assert len(set(left_out(pairs, 2))) == two


@pytest.mark.parametrize(
    ("chosen", "changes"), [((), 0), (("basic",), 7), (("size", "repeat"), 6), (("basic", "size", "chain", "repeat"), 16)]
)
def test_every_item_is_made_under_every_change_and_permuted(chosen: Any, changes: int) -> None:
    whole = items_of(PAIRS[:3], chosen, 10_000, random.Random(0))
    assert len(whole) == 2 * (1 + changes) * (3 + 6)
    assert whole[:9] == [*left_out(PAIRS[:3], 1), *left_out(PAIRS[:3], 2)], "first as they stand"
    assert len(items_of(PAIRS[:3], chosen, 10, random.Random(0))) == 10


def test_an_item_that_outgrows_arc_is_left_out() -> None:
    wide = [((tuple([n] * 20),), ((n,),)) for n in (1, 2)]
    assert len(items_of(wide, ["size"], 1000, random.Random(0))) == 2 * 2 * 2, "as it stands and twice as high"


def test_a_permuted_item_is_the_same_puzzle() -> None:
    item = Item(tuple(PAIRS[:3]), *PAIRS[3])
    other, colours = permuted(item, random.Random(1))
    assert sorted(other.changed(replace(colours, forth=colours.back)).shown) == sorted(item.shown)
    assert (other.asked, other.answer) == (colours.forth(item.asked), colours.forth(item.answer))


def test_an_item_as_text() -> None:
    item = Item(((((1, 2),), ((2,),)),), ((3, 4),), ((4,),))
    assert item.question == f"{words.PUZZLE}Input:\n1 2\nOutput:\n2\n\nInput:\n3 4\nOutput:\n"


# Self-edits.


def edit(**other: Any) -> dict[str, Any]:
    kinds = ("basic", "size", "chain", "repeat")
    told = {f"{kind}_augmentations": False for kind in kinds} | {"strategy": "train_using_output_tokens"}
    return told | {"learning_rate": 1e-4, "num_train_epochs": 2} | other


@pytest.mark.parametrize(
    ("text", "readable", "valid"),
    [
        (json.dumps(edit()), True, True),
        (f"Here:\n```json\n{json.dumps(edit(), indent=1)}\n```\nThat {{is}} it.", True, True),
        (json.dumps(edit(num_train_epochs="2")), True, False),
        (json.dumps(edit(basic_augmentations=1)), True, False),
        (json.dumps(edit(strategy="other")), True, False),
        (json.dumps(edit(learning_rate=0)), True, False),
        (json.dumps(edit(learning_rate=float("nan"))), True, False),
        (json.dumps(edit(num_train_epochs=0)), True, False),
        (json.dumps(edit(more=1)), True, False),
        (json.dumps({name: value for name, value in edit().items() if name != "strategy"}), True, False),
        (json.dumps(edit())[:-1], False, False),
        ("no", False, False),
        ("", False, False),
    ],
)
def test_a_self_edit_is_read_strictly(text: str, readable: bool, valid: bool) -> None:
    assert (object_in(text) is not None, edit_in(text) is not None) == (readable, valid)


def test_the_steps_of_a_self_edit() -> None:
    assert SelfEdit.model_validate(edit(num_train_epochs=3)).steps(5) == 7, "epochs * items // 2"
    assert SelfEdit.model_validate(edit(basic_augmentations=True, repeat_augmentations=True)).chosen == ("basic", "repeat")


def test_trials_are_those_that_were_chosen_and_then_others() -> None:
    dreams = [dreaming.Dream(f"{task}{i}", task, "", "trusted", "free", "", (), ()) for task in "xy" for i in range(3)]
    fates = {"x2": "top", "x0": "dropped", "y1": "chance", "y2": "top"}
    assert [one.id for one in arc.trials_of(dreams, fates, 2)] == ["x2", "y1", "y2", "x0"]


# Votes.


PUZZLE = Puzzle(
    id="p",
    train=tuple(Pair(input=((n, 0, 2),), output=((n,), (7,))) for n in (3, 4)),
    test=(Pair(input=((5, 0, 2),), output=((5,), (7,))),),
)


def test_a_test_input_is_asked_in_many_ways_and_every_answer_is_turned_back() -> None:
    made = queries(PUZZLE, PUZZLE.test[0], 1000, random.Random(0))
    assert len(made) == 2 * len(SYMMETRIES) * 2
    assert [query.change for query in made[:2]] == [IDENTITY, IDENTITY]
    assert [query.item.shown for query in made[:2]] == [((((4, 0, 2),), ((4,), (7,))),), ((((3, 0, 2),), ((3,), (7,))),)]
    assert len({query.item for query in made}) == len(made)
    for query in made:
        assert query.back(f"Sure:\n{text_of(query.item.answer)}") == PUZZLE.test[0].output
        assert query.back("I do not know") is None
    assert queries(PUZZLE, PUZZLE.test[0], 5, random.Random(0)) == made[:5]


def test_two_attempts_are_what_most_say() -> None:
    a, b, c = ((1,),), ((2,),), ((3,),)
    assert attempts([None, c, a, b, a, None, b, a]) == [a, b]
    assert attempts([b, a, c]) == [b, a], "of equally many the first"
    assert attempts([None, None]) == []
    test = Pair(input=a, output=b)
    assert right([c, c, b], test)
    assert not right([c, c, a, a, b], test)


# Data.


def test_what_is_missing_is_said_with_where_it_comes_from(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"rl_train_passages.jsonl.gz is missing.*Continual-Intelligence/SEAL"):
        main(["squad", "--data", str(tmp_path), "--model", str(SCHOOL), "--out", str(tmp_path / "r.json")])
    with pytest.raises(SystemExit, match=r"seal_subset.json is missing.*lists of the tasks"):
        main(["arc", "--data", str(tmp_path), "--model", str(SCHOOL), "--out", str(tmp_path / "r.json")])


def test_rounds_are_of_their_own_sets_in_seals_order(tmp_path: Path) -> None:
    write_squad(tmp_path)
    rounds = read_rounds(tmp_path, 2, 2)
    assert [[passage.round for passage in passages] for passages in rounds] == [["iter0"] * 2, ["iter1"] * 2]
    assert [passage.order for passage in read_tested(tmp_path, None)] == [0, 1]
    with pytest.raises(DataMissing, match="ask for no more --contexts"):
        read_rounds(tmp_path, 1, 3)


def test_seals_own_passages_can_be_read() -> None:
    folder = shared("squad_seal")
    rounds = read_rounds(folder, 2, 50)
    assert [sum(len(passage.questions) for passage in passages) for passages in rounds] == [225, 243]
    assert len({passage.id for passages in rounds for passage in passages}) == 100
    tested = read_tested(folder, None)
    assert len(tested) >= 150
    assert tested == sorted(tested, key=lambda passage: passage.order)


def test_seals_own_puzzles_can_be_read() -> None:
    train, tested, lost = read_puzzles(shared("arc"))
    assert [puzzle.id for puzzle in train][:3] == ["6150a2bd", "8d5021e8", "5614dbcf"]
    assert (len(train), len(tested) + len(lost)) == (10, 8)
    assert {puzzle.id: len(puzzle.test) for puzzle in (*train, *tested) if len(puzzle.test) > 1} == {"44f52bb0": 2, "b1fc8b8e": 2}


# The commands.


def test_squad_is_lived_and_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An instance learns more than SEAL's, for the model is small."""
    write_squad(tmp_path)
    monkeypatch.setattr(squad, "INSTANCE", {"rank": 16, "alpha": 32.0, "lr": 1e-2, "epochs": 20, "batch": 1})
    asked = ["squad", "--data", str(tmp_path), "--model", str(SCHOOL), "--out", str(tmp_path / "r.json"), "--contexts", "2"]
    asked += ["--rounds", "2", "--dreams", "2", "--ratio", "2", "--instances", "1", "--tokens", "24"]

    class Killed(Exception):
        pass

    def killed(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(dreaming, "reinforce", killed)
        patched.setattr("benchmarks.seal.rounds.reinforce", killed)
        with pytest.raises(Killed):
            main([*asked, "--only", "base", "passage", "seal"])
    assert json.loads((tmp_path / "r.json").read_text())["missing"] == ["seal"]
    main(asked)
    result = json.loads((tmp_path / "r.json").read_text())
    methods = result["methods"]
    assert (result["missing"], list(methods)) == ([], ["base", "passage", "seal", "sleep"])
    assert result["command"].startswith("python -m benchmarks.seal squad --data")
    assert {len(methods[arm]["rounds"]) for arm in ("base", "passage")} == {1}
    assert methods["passage"]["rounds"][0]["accuracy"] > methods["base"]["rounds"][0]["accuracy"]
    for arm in ("seal", "sleep"):
        assert [len(told["scores"]) for told in methods[arm]["rounds"]] == [2, 2, 2]
        assert [told["rewarded"] for told in methods[arm]["learned"]] == [2, 2], "the best of each passage"
        assert [told["rows"] for told in methods[arm]["learned"]] == [2, 4], "every rewarded dream so far"
        assert 0 < methods[arm]["learned"][0]["passes"] < methods[arm]["learned"][1]["passes"]
    finished = [json.loads(line) for line in (tmp_path / "r.work" / "seal" / "night" / "events.jsonl").read_text().splitlines()]
    resumed = {event["data"]["stage"] for event in finished if event["type"] == "sleep.stage_resumed"}
    assert resumed == {"collect", "tasks", "write_0", "weigh_0", "try_0"}
    read = [json.loads((tmp_path / "r.work" / "seal" / "night" / f"tasks-{n}.jsonl").read_text().splitlines()[0]) for n in (0, 1)]
    assert [line["task"]["name"] for line in read] == ["task-0", "task-2"], "no passage is in two rounds"


@pytest.mark.engine
@pytest.mark.timeout(1800)
def test_a_cluster_that_is_started_for_the_run_finds_the_same(tmp_path: Path) -> None:
    """What is drawn is drawn otherwise by vLLM; what is read, answered greedily and learned without dreams is the same."""
    write_squad(tmp_path)
    asked = ["squad", "--data", str(tmp_path), "--model", str(SCHOOL), "--contexts", "2", "--rounds", "1", "--dreams", "2"]
    asked += ["--instances", "1", "--tokens", "24", "--only", "base", "passage", "sleep"]
    here, there = tmp_path / "here.json", tmp_path / "there.json"
    command = [sys.executable, "-m", "benchmarks.seal", *asked, "--engine", "cluster", "--out", str(there)]
    subprocess.run(command, check=True, cwd=Path(__file__).parents[2], timeout=1500)
    main([*asked, "--only", "base", "passage", "--out", str(here)])
    methods, wanted = (json.loads(path.read_text())["methods"] for path in (there, here))
    assert {arm: methods[arm] for arm in wanted} == wanted
    nats = [
        [json.loads(line)["nats"] for line in (tmp_path / work / "base" / "tests" / "tasks.jsonl").read_text().splitlines()]
        for work in ("there.work", "here.work")
    ]
    assert nats[0] == pytest.approx(nats[1], abs=1e-3)
    (learned,) = methods["sleep"]["learned"]
    assert (learned["tried"], learned["rewarded"], learned["rows"], learned["passes"]) == (2, 2, 2, None)
    assert [len(told["scores"]) for told in methods["sleep"]["rounds"]] == [2, 2]


def test_arc_is_lived_by_a_model_that_writes_no_json(tmp_path: Path) -> None:
    write_arc(tmp_path)
    asked = ["arc", "--data", str(tmp_path), "--model", str(SCHOOL), "--out", str(tmp_path / "r.json"), "--rounds", "1"]
    asked += ["--dreams", "2", "--ratio", "2", "--trials", "2", "--attempts", "2", "--queries", "4", "--tokens", "12"]
    main([*asked, "--answer-tokens", "8"])
    methods = json.loads((tmp_path / "r.json").read_text())["methods"]
    for arm in ("seal", "sleep"):
        assert [len(trials) for trials in methods[arm]["rounds"][0]["scores"].values()] == [2]
        (learned,) = methods[arm]["learned"]
        assert (learned["rewarded"], learned["unchanged"], learned["rows"]) == (0, learned["tried"], 0)


def test_arc_is_lived_by_a_model_whose_dreams_are_put_into_its_mouth(
    words_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has never learned anything; one of the self-edits teaches it enough for these puzzles, the others do not."""
    write_arc(tmp_path)
    speak(words_base, monkeypatch)
    asked = ["arc", "--data", str(tmp_path), "--model", str(words_base), "--out", str(tmp_path / "r.json"), "--rounds", "1"]
    asked += ["--dreams", "5", "--trials", "5", "--attempts", "2", "--queries", "8", "--answer-tokens", "6", "--plain"]
    main(asked)
    methods = json.loads((tmp_path / "r.json").read_text())["methods"]
    assert methods["base"]["rounds"][0]["scores"] == {"b": [0.0]}
    found = {arm: (methods[arm]["rounds"][0]["scores"], methods[arm]["learned"][0]) for arm in ("seal", "sleep")}
    wanted = {"b": [1.0, 0.0, 0.0, 1.0, 0.0]}
    assert [scores for scores, _ in found.values()] == [wanted, wanted], (
        "those that teach come first; what is said twice counts twice"
    )
    names = ("tried", "rewarded", "unchanged", "rows")
    assert [tuple(learned[name] for name in names) for _, learned in found.values()] == [(5, 2, 2, 2), (4, 2, 1, 2)]


def test_a_self_edit_of_more_steps_than_are_allowed_changes_nothing(words_base: Path, tmp_path: Path) -> None:
    write_arc(tmp_path)
    train, _, _ = read_puzzles(tmp_path)
    dreamer = dreamer_of(ground_of(tmp_path / "r", words_base), arc.spec_of(arc_request(), train))
    puzzler = Puzzler(**vars(dreamer), puzzles={"task-0": train[0]}, bounds=Bounds(items=25))
    task = Task("task-0", "", True, (), (), "grid", "here")
    plans = {epochs: puzzler.plan(task, SelfEdit.model_validate(edit(num_train_epochs=epochs))) for epochs in (30, 31)}
    assert (len(plans[30].rows) if plans[30] else 0) == 2 * (3 + 6)
    assert 41 * 18 // 2 <= STEPS < 42 * 18 // 2
    assert puzzler.plan(task, SelfEdit.model_validate(edit(num_train_epochs=41))) is not None
    assert puzzler.plan(task, SelfEdit.model_validate(edit(num_train_epochs=42))) is None
    rows = {
        strategy: puzzler.plan(task, SelfEdit.model_validate(edit(strategy=f"train_using_{strategy}_tokens")))
        for strategy in ("all", "output")
    }
    tokens = {strategy: [sum(row.weight) for row in plan.rows] for strategy, plan in rows.items() if plan}
    assert set(tokens["output"]) == {2.0}, "the answer and its end"
    assert tokens["all"] == [len(row.ids) - 1 for row in rows["all"].rows]  # type: ignore[union-attr]


# Made for these tests.


@pytest.fixture(scope="module")
def school(tmp_path_factory: pytest.TempPathFactory) -> Ground:
    return ground_of(tmp_path_factory.mktemp("school"), SCHOOL)


@pytest.fixture(scope="module")
def words_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with random weights whose tokens are digits, lines and whole self-edits."""
    folder = tmp_path_factory.mktemp("words")
    write_base(folder, layers=2)
    known = ["<pad>", "<bos>", "<eos>", "<unk>", *map(str, range(10)), "\n", "Input:", "Output:", *SPOKEN]
    inner = Tokenizer(models.WordLevel({word: i for i, word in enumerate(known)}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(" "), "removed"), pre_tokenizers.Split(Regex("\n"), "isolated")]
    )
    inner.decoder = decoders.WordPiece(prefix="##", cleanup=False)
    special = {"pad_token": "<pad>", "bos_token": "<bos>", "eos_token": "<eos>", "unk_token": "<unk>"}
    PreTrainedTokenizerFast(tokenizer_object=inner, **special).save_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    with torch.no_grad():
        model.lm_head.weight.mul_(10)
    model.config.max_position_embeddings = 2048
    model.save_pretrained(folder)
    return folder


SPOKEN = [
    json.dumps(told, separators=(",", ":"))
    for told in (
        edit(learning_rate=0.02, num_train_epochs=10),
        edit(learning_rate=1e-6, basic_augmentations=True),
        edit(num_train_epochs=100),
        edit(size_augmentations="no"),
    )
]
"""One that teaches, one that teaches next to nothing, one of too many steps, and one that is no self-edit."""


def speak(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of each puzzle, in a first attempt three of SPOKEN and two that cannot be read, in a second one the first and the last."""
    tokenizer, sample = load_tokenizer(base), LocalPool.sample
    said = [tuple(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in ("7", *SPOKEN)]
    spoken = [said[n] for n in (1, 2, 3, 0, 0)], [said[n] for n in (1, 4, 1, 1, 1)]
    attempt = iter(range(1000))

    def own(pool: LocalPool, view: Any, prompts: Any, max_tokens: int, *rest: Any, **more: Any) -> Any:
        if max_tokens == 128:
            return (spoken[next(attempt) % 2] * len(prompts))[: len(prompts)]
        return sample(pool, view, prompts, max_tokens, *rest, **more)

    monkeypatch.setattr(LocalPool, "sample", own)


def ground_of(root: Path, model: Path) -> Ground:
    founded(root, str(model), None)
    return Ground(root.resolve(), request_of(None), 512, {"rollouts": {"engine": {"max_model_len": 512}}})


def request_of(ground: Ground | None) -> SquadRequest:
    del ground
    return SquadRequest(data=Path(), model=str(SCHOOL), out=Path("r.json"))


def arc_request() -> Any:
    from benchmarks.seal.requests import ArcRequest

    return ArcRequest(data=Path(), model="m", out=Path("r.json"), plain=True)


def dreamer_of(ground: Ground, spec: dict[str, Any]) -> Dreamer:
    """Without an engine: nothing is written or learned."""
    nobody: Any = None
    return ground.dreamer(ground.job("here", spec), Engine(nobody, nobody, None))


def write_squad(folder: Path) -> None:
    """Passages of the school, in the format of SEAL's data: two of each round, and two that are tested."""
    world = School(0)
    _, forms = world.forms(0)

    def line(order: int, lesson: Any, **more: str) -> dict[str, Any]:
        questions = [{"id": f"{order}-{n}", "question": p.question, "answer": p.answer} for n, p in enumerate(lesson.direct(forms))]
        return {
            "id": lesson.entity,
            "order": order,
            "title": lesson.entity,
            "context": lesson.passage(),
            "questions": questions,
        } | more

    lessons = list(islice(world.lessons(0), 6))
    write_lines(folder / "rl_train_passages.jsonl", [line(n, one, set=f"iter{n // 2}") for n, one in enumerate(lessons[:4])])
    write_lines(folder / "eval_passages.jsonl", [line(n, one) for n, one in enumerate(lessons[4:])])


def write_arc(folder: Path) -> None:
    """Two puzzles whose outputs are always 5, in the format of SEAL's data."""

    def puzzle(id: str, colours: Sequence[int]) -> dict[str, Any]:
        pairs = [{"input": [[colour, colour]], "output": [[5]]} for colour in colours]
        return {"id": id, "split": "training", "train": pairs[:3], "test": pairs[3:], "seal": None}

    write_lines(folder / "arc_agi1.jsonl", [puzzle("a", (1, 2, 3, 4)), puzzle("b", (6, 7, 8, 9))])
    lists = {"train_11_subtasks_seed0": ["a-0"], "eval_9_subtasks_seed0": ["b-0", "gone-0"]}
    (folder / "seal_subset.json").write_text(json.dumps(lists))


def shared(name: str) -> Path:
    """A folder of the data beside the checkout."""
    folder = SHARED / name
    if not folder.exists():
        pytest.skip(f"{folder} is not there: SEAL's own data are NOT read here; put them beside the checkout (docs/seal.md)")
    return folder
