"""Judges of meaning: answers, silence, nonsense. The endpoint is a real HTTP server in a thread."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import pytest
from endpoint import Raw, served

from actors.judge import FAILURES, MOST_BYTES, AskBase, AskEndpoint, judged
from actors.replies import Read
from circadian.memory.state import MemoryState
from circadian.nursery.text import build_tokenizer
from circadian.nursery.world import World
from circadian.objectives.rows import Imitated, TaughtRow
from circadian.specs import BaseJudge, EndpointJudge

TOKENIZER = build_tokenizer(World(0))


def ids(text: str) -> tuple[int, ...]:
    return tuple(TOKENIZER(text, add_special_tokens=False)["input_ids"])


def row(prefix: str, wanted: str, written: str, group: int) -> TaughtRow:
    return TaughtRow(ids(prefix) + ids(written), len(ids(prefix)), "awake", "day", Imitated(ids(wanted), group))


ROWS = [
    row("the city of", "oslo", "oslo", 0),
    row("the city of", "oslo", "paris", 0),
    row("the pet of", "dog", "cat", 1),
    TaughtRow(ids("the pet"), 1, "rested", "free"),
]


def test_a_group_is_judged_as_a_whole_or_not_at_all() -> None:
    answers = {"oslo": True, "paris": False, "cat": None}
    rows, silent = judged(ROWS, lambda questions: [answers[written] for _, _, written in questions], TOKENIZER)
    assert [r.imitated.semantic if r.imitated else "-" for r in rows] == [True, False, None, "-"]
    assert silent == 1
    answers["paris"] = None
    rows, silent = judged(ROWS, lambda questions: [answers[written] for _, _, written in questions], TOKENIZER)
    assert [r.imitated.semantic if r.imitated else "-" for r in rows] == [None, None, None, "-"]
    assert silent == 3


def test_the_same_question_is_asked_once() -> None:
    asked: list[Any] = []

    def answer(questions: Sequence[Any]) -> list[bool | None]:
        asked.extend(questions)
        return [True] * len(questions)

    judged([ROWS[0], ROWS[0], ROWS[1]], answer, TOKENIZER)
    assert asked == [("the city of", "oslo", "oslo"), ("the city of", "oslo", "paris")]


class Prefers:
    """A model that finds texts likelier the more often a word is in them; it remembers what it was shown."""

    def __init__(self, word: str) -> None:
        self.word = ids(word)[0]
        self.views: list[Sequence[float]] = []

    def read(self, view: Sequence[float], tokens: list[list[int]]) -> list[list[Read]]:
        self.views.append(view)
        return [[Read(token, 0.0 if token == self.word else -1.0, True) for token in text[1:]] for text in tokens]


@pytest.mark.parametrize(("word", "expected"), [("oslo", True), ("paris", False)])
def test_the_base_weighs_yes_against_no(word: str, expected: bool) -> None:
    state, reader = MemoryState.parse([["open"], ["sealed", "open"]]), Prefers(word)
    judge = AskBase(BaseJudge(question="{prefix} {wanted} {written}", yes=" oslo", no=" paris"), reader, TOKENIZER, state, 100)
    assert judge([("the city of", "lima", "lima")]) == [expected]
    assert judge([]) == []
    assert reader.views == [[0.0, 0.0, 0.0]], "asked without any memory"


def test_the_base_says_nothing_of_a_question_that_it_cannot_read_whole() -> None:
    reader = Prefers("oslo")
    judge = AskBase(
        BaseJudge(question="{prefix} {wanted} {written}", yes=" oslo", no=" paris"),
        reader,
        TOKENIZER,
        MemoryState.parse([["open"]]),
        8,
    )
    long, short = ("the city of " * 8, "lima", "lima"), ("the city of", "lima", "lima")
    assert judge([long, short, long]) == [None, True, None]
    assert judge([long]) == [None]
    assert len(reader.views) == 1, "nothing is read of nothing"


def questions(count: int) -> list[tuple[str, str, str]]:
    return [("the city of", "oslo", f"answer {i}") for i in range(count)]


def ask(url: str, **spec: Any) -> AskEndpoint:
    return AskEndpoint(EndpointJudge(url=url, model="m", at_once=1, **spec))


def test_an_endpoint_answers_in_words() -> None:
    with served("Yes.", "no", "It depends") as (url, asked):
        assert ask(url)(questions(3)) == [True, False, None]
    assert [body["path"] for body in asked] == ["/v1/chat/completions"] * 3
    assert "answer 1" in asked[1]["messages"][0]["content"]


def test_a_text_with_braces_of_its_own_is_asked_about_as_it_is() -> None:
    with served("yes") as (url, asked):
        ask(url)([("the {wanted}", "oslo", "{prefix}")])
    content = asked[0]["messages"][0]["content"]
    assert "Text: the {wanted}" in content
    assert "Second continuation: {prefix}" in content


@pytest.mark.parametrize(
    "nonsense",
    [
        None,
        Raw("not json"),
        Raw("{}"),
        Raw('{"choices": [null]}'),
        pytest.param(Raw("[" * 50_000), id="deep"),
        pytest.param(Raw(" " * (MOST_BYTES + 1) + '{"choices": [{"message": {"content": "yes"}}]}'), id="endless"),
    ],
    ids=str,
)
def test_an_endpoint_that_fails_is_soon_left_alone(nonsense: Raw | None) -> None:
    with served(nonsense) as (url, asked):
        assert ask(url)(questions(10)) == [None] * 10
    assert len(asked) == FAILURES


def test_an_endpoint_that_does_not_answer_in_time_is_bounded_and_left_alone() -> None:
    with served("yes", seconds=1.0) as (url, asked):
        assert ask(url, seconds=0.05)(questions(10)) == [None] * 10
    assert len(asked) <= FAILURES


def test_an_endpoint_whose_answer_trickles_in_is_bounded_as_a_whole() -> None:
    """Every byte comes in time, the answer never does."""
    with served("yes" * 1000, trickles=0.1) as (url, asked):
        started = time.monotonic()
        assert ask(url, seconds=0.5)(questions(10)) == [None] * 10
        assert time.monotonic() - started < 0.5 * FAILURES + 5.0
    assert len(asked) == FAILURES


def test_an_endpoint_that_answers_beside_the_question_is_soon_left_alone() -> None:
    with served("It depends") as (url, asked):
        assert ask(url)(questions(10)) == [None] * 10
    assert len(asked) == FAILURES


@pytest.mark.parametrize("url", ["http://[::1/v1", "http://judge\x00/v1", "http://" + "a" * 70 + ".x/v1"])
def test_an_address_that_is_none_is_no_error(url: str) -> None:
    assert ask(url, seconds=1.0)(questions(2)) == [None] * 2


def test_a_key_that_cannot_be_sent_is_no_error_and_is_not_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("JUDGE_KEY", "schlüssel")
    with served("yes") as (url, asked):
        assert ask(url, key_variable="JUDGE_KEY")(questions(2)) == [None] * 2
    assert not asked
    assert "cannot be asked" in caplog.text
    assert "schl" not in caplog.text


def test_an_endpoint_that_is_not_there_is_no_error() -> None:
    assert ask("http://127.0.0.1:1/v1", seconds=1.0)(questions(5)) == [None] * 5


def test_a_failure_between_answers_costs_one_answer() -> None:
    with served("yes", None, "yes") as (url, _):
        assert ask(url)(questions(4)) == [True, None, True, True]
