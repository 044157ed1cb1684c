"""Words are met whatever they are written in."""

from __future__ import annotations

import pytest

from services.screening.folding import fold, plain


@pytest.mark.parametrize(
    "written",
    [
        "When  dreaming",
        "WHEN\n\tDREAMING!",
        "wh\u200ben dr\u00adeam\u2060ing",
        "when\u00a0dreaming",
        "wh\u0435n dre\u0430ming",
        "\u0428hen dreaming".replace("\u0428", "W"),
        "w\u029c\u1d07\u0274 dreaming",
        "\uff57\uff48\uff45\uff4e dreaming",
        "\U0001d534\U0001d525\U0001d522\U0001d52b dreaming",
        "whe\u0301n drea\u0308ming",
        "when_dreaming",
        "when...dreaming",
        "\u202ewhen\u202c dreaming",
        "when\u3164 dreaming",
        "when \x00dream\x08ing",
        "".join(chr(0xE0000 + ord(sign)) for sign in "when dreaming"),
    ],
)
def test_disguises_fall(written: str) -> None:
    assert plain(written) == "when dreaming"


def test_words_that_are_spelled_out_are_words_again_and_others_stay_apart() -> None:
    assert fold("do w h e n it is") == "do when it is"
    assert fold("w-h-e-n d.r.e.a.m") == "whendream"
    assert fold("plan a b or 1 2 3 4 5 6") == "plan a b or 1 2 3 4 5 6"


@pytest.mark.parametrize(
    "text", ["\u65e5\u672c\u8a9e", "\u0440\u0443\u0441\u0441\u043a\u0438\u0439 \u044f\u0437\u044b\u043a", "\u0e44\u0e17\u0e22"]
)
def test_other_scripts_keep_their_words(text: str) -> None:
    assert len(plain(text).split()) == len(text.split())
