"""A text, cut into pieces that can each be learned by itself.

    whole       one piece
    lines       every line that is not empty (SEAL's split_newlines)
    sentences   every sentence; several facts in one row are copied from context and not learned

Marks that lists begin with (`1.`, `-`, `Question:`) are no part of a piece.
"""

from __future__ import annotations

import re
from typing import Literal

Split = Literal["whole", "lines", "sentences"]
_SENTENCE = re.compile(
    r"(?<=[.!?])(?<!\b[A-Z]\.)(?<!\b(?:Dr|Mr|Ms|St|vs)\.)(?<!\b(?:Mrs|etc)\.)(?<!\b(?:Prof)\.)(?<!\be\.g\.)(?<!\bi\.e\.)\s+"
    r"|(?<=[\u3002\uff01\uff1f])\s*"
)
"""Where one ends; not after initials and the commonest abbreviations."""
_MARK = re.compile(r"^\s*(?:[-*•]\s+|\d+[.):]\s+|(?:question|answer|q|a)(?:\s*\d+)?\s*:\s*)+", re.IGNORECASE)
_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|\w+")
"""A word, or a sign of a script that puts no spaces between words."""
SHORTEST = 2
"""Words; a shorter piece says nothing, unless it answers a question."""


def pieces(text: str, split: Split) -> list[str]:
    """The text in pieces, without marks; none is empty."""
    lines = [_MARK.sub("", line).strip() for line in ([text] if split == "whole" else text.splitlines())]
    cut = [part for line in lines for part in _SENTENCE.split(line)] if split == "sentences" else lines
    return [piece for piece in cut if piece]


def words(text: str) -> int:
    """How many words a text has."""
    return len(_WORD.findall(text))
