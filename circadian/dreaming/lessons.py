"""What is learned of a dream: its text, cut into pieces (circadian/pieces.py), each an experience of its own.

A question and what comes next become an exchange: the deployment is asked, and answers, without the full stop. Everything else is said to
it, as its context was: as a user's message where the context is a chat, else as a document.

`headed` is SEAL's way (arXiv 2506.10943) instead: a dream is cut where three dashes or more stand and, with `lines`, into its lines, the
first of which is left out if the second begins a list ("Here is a list:"). Each piece is a document, with its marks, below the first line
of the context, its title.
"""

from __future__ import annotations

import re
from typing import Literal

from circadian.pieces import SHORTEST, Split, pieces, words
from circadian.specs import Experience, Message

QUESTION = ("?", "\uff1f")
_DASHES = re.compile(r"-{3,}")
_FIRST_MARK = "1."


def lessons(dream: str, split: Split, name: str, chat: bool, exchanges: bool = True) -> list[Experience]:
    """The experiences that a dream is learned as; name: what their ids begin with. exchanges: whether questions in it are asked, and what
    comes next answers them; in a context a question and what its author says next are no exchange."""
    learned: list[Experience] = []
    question: str | None = None

    def add(*messages: tuple[Literal["user", "assistant"], str]) -> None:
        id = f"{name}/{len(learned)}"
        if len(messages) == 1 and not chat:
            learned.append(Experience(id=id, text=messages[0][1], source="tool"))
        else:
            said = tuple(Message(role=role, content=text) for role, text in messages)
            learned.append(Experience(id=id, messages=said, source="tool"))

    for piece in pieces(dream, split):
        if exchanges and piece.endswith(QUESTION):
            question = piece
        elif question is not None:
            if answer := piece.rstrip(" .\u3002"):
                add(("user", question), ("assistant", answer))
            question = None
        elif words(piece) >= SHORTEST:
            add(("user", piece))
    return learned


def headed_pieces(dream: str, split: Split) -> list[str]:
    """The text in SEAL's pieces, without what stands above them; none is empty."""
    parts = _DASHES.split(dream)
    lines = [line.strip() for part in parts for line in (part.splitlines() if split == "lines" else [part])]
    found = [line for line in lines if line]
    introduced = split == "lines" and len(found) > 1 and found[1].startswith(_FIRST_MARK)
    return found[1:] if introduced else found


def headed(dream: str, split: Split, name: str, context: str) -> list[Experience]:
    """The experiences that a dream of a context is learned as; name: what their ids begin with."""
    title = context.partition("\n")[0]
    return [
        Experience(id=f"{name}/{i}", text=f"{title}\n{piece}", source="tool") for i, piece in enumerate(headed_pieces(dream, split))
    ]
