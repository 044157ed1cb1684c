"""A dream as what is learned of it."""

from __future__ import annotations

import pytest

from circadian.dreaming.lessons import lessons
from circadian.pieces import Split, pieces

LIST = "1. Mira lives in Norway.\n2. - She has an oven. It is hot.\n\n"


@pytest.mark.parametrize(
    ("split", "wanted"),
    [
        ("whole", ["Mira lives in Norway.\n2. - She has an oven. It is hot."]),
        ("lines", ["Mira lives in Norway.", "She has an oven. It is hot."]),
        ("sentences", ["Mira lives in Norway.", "She has an oven.", "It is hot."]),
    ],
)
def test_a_dream_is_cut(split: Split, wanted: list[str]) -> None:
    assert pieces(LIST, split) == wanted


def said(dream: str, split: Split = "sentences", chat: bool = True) -> list[list[tuple[str, str]]]:
    return [
        [(m.role, m.content) for m in lesson.messages] or [("text", lesson.text)] for lesson in lessons(dream, split, "d", chat)
    ]


def test_a_question_and_its_answer_are_an_exchange() -> None:
    dream = "Question 1: Where is she?\nAnswer: In Norway.\nQ: Who?\nA: Mira"
    wanted = [[("user", "Where is she?"), ("assistant", "In Norway")], [("user", "Who?"), ("assistant", "Mira")]]
    assert said(dream) == said(dream, "lines") == wanted
    assert said("what is the tool of mira ? oven . the pet is a cat .") == [
        [("user", "what is the tool of mira ?"), ("assistant", "oven")],
        [("user", "the pet is a cat .")],
    ]


def test_a_question_without_an_answer_teaches_nothing() -> None:
    assert said("where ? why ? because . so it is .") == [
        [("user", "why ?"), ("assistant", "because")],
        [("user", "so it is .")],
    ]
    assert said("where is she ?") == []


def test_what_is_no_chat_is_learned_as_documents_with_names_of_their_own() -> None:
    assert said("the one . the other .", chat=False) == [[("text", "the one .")], [("text", "the other .")]]
    assert [lesson.id for lesson in lessons("one two . three four .", "sentences", "drm_7", True)] == ["drm_7/0", "drm_7/1"]
    assert all(lesson.source == "tool" for lesson in lessons(LIST, "lines", "d", True))


def test_in_a_context_a_question_and_what_comes_next_are_no_exchange() -> None:
    text = "Where does mira live? I met sofe in oslo."
    (asked,) = lessons(text, "sentences", "x", chat=True)
    assert [message.role for message in asked.messages] == ["user", "assistant"]
    said = lessons(text, "sentences", "x", chat=True, exchanges=False)
    assert [[(m.role, m.content) for m in one.messages] for one in said] == [
        [("user", "Where does mira live?")],
        [("user", "I met sofe in oslo.")],
    ]


def test_scripts_without_spaces_and_abbreviations_are_cut_where_sentences_end() -> None:
    def said(text: str) -> list[str]:
        return [" -> ".join(message.content for message in one.messages) for one in lessons(text, "sentences", "x", chat=True)]

    assert said("東京は日本の首都です。首都はどこですか\uff1f東京です。") == [
        "東京は日本の首都です。",
        "首都はどこですか\uff1f -> 東京です",
    ]
    assert said("The U.S. Army met Dr. Smith. He won, e.g. Mrs. Jones did not.") == [
        "The U.S. Army met Dr. Smith.",
        "He won, e.g. Mrs. Jones did not.",
    ]
    assert said("Yes. It does.") == ["It does."], "a word says nothing by itself"
