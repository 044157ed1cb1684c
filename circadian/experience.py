"""Experiences as token rows: what the fast level learns from at dusk, and the cues that sleep starts from.

A *row* is a token sequence with a weight for predicting each token. A *cue* is the beginning of a row without its end: a question
without the answer, a document without its rest. Sleep is given cues only; what follows a cue is written by a teacher or the student.

T tokens.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jinja2 import TemplateError

from circadian.pieces import SHORTEST, Split, pieces, words
from circadian.specs import Experience, Message

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from circadian.tokenizer import PlainTokenizer

    Reading = PreTrainedTokenizerBase | PlainTokenizer

Tokens = tuple[int, ...]
HELD_OUT = "held out"
"""Why an experience is left out that contains a text that is kept for tests."""


class Unreadable(ValueError):
    """The tokenizer's chat template refuses a chat."""


@dataclass(frozen=True)
class Row:
    """ids [T]; weight [T], of predicting each token from those before it (0: it is only read)."""

    ids: Tokens
    weight: tuple[float, ...]

    @classmethod
    def of_text(cls, ids: Tokens, marks: Collection[int]) -> Row:
        """Every token is learned, but for the first, which nothing predicts, and `marks` that close it: where an experience was cut off
        says nothing about where such texts end, and who learns it night after night falls silent after one sentence."""
        end = len(ids)
        while end and ids[end - 1] in marks:
            end -= 1
        return cls(ids, tuple(float(0 < i < end) for i in range(len(ids))))

    def questions(self) -> list[Tokens]:
        """The beginnings up to each answer that is learned; none where everything is."""
        return [self.ids[:i] for i in range(2, len(self.ids)) if self.weight[i] and not self.weight[i - 1]]

    def cuts(self, rng: random.Random, count: int, longest: int) -> list[Tokens]:
        """Up to `count` beginnings of different lengths, at random, none longer than `longest`."""
        places = range(2, min(len(self.ids) - 1, longest + 1))
        return [self.ids[:place] for place in sorted(rng.sample(places, min(count, len(places))))]

    def cut(self, longest: int) -> Row:
        """The first `longest` tokens."""
        return Row(self.ids[:longest], self.weight[:longest])


class Reader:
    """Reads experiences with a deployment's tokenizer."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, held_out: Iterable[str] = ()) -> None:
        self.tokenizer, self.marks = tokenizer, frozenset(tokenizer.all_special_ids)
        texts = list(held_out)
        read = [self.tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
        self.held_out = {form for text in (*texts, *self._texts(read)) if (form := normalised(text))}

    def rows(self, experience: Experience) -> list[Row]:
        """What is learned of an experience: of a document every token but the mark that closes it, of a chat the assistant's answers. The
        deployment's own answers (source `wake`) are taken out before; where nothing was answered, all that was said is learned.

        One row, unless the template renders an answer in another way once more is said (Qwen3 keeps only the last one's thoughts):
        then every answer is a row of its own, rendered as it is when the deployment is asked for it. Raises Unreadable.
        """
        if experience.text:
            return [Row.of_text(experience_ids(self.tokenizer, experience), self.marks)]
        said = [message.model_dump() for message in experience.messages]
        if experience.source == "wake":
            said = [message for message in said if message["role"] != "assistant"]
        answers = [i for i, message in enumerate(said) if message["role"] == "assistant" and i]  # the first word is no answer
        if not answers:
            return [Row.of_text(self._chat(said), self.marks)] if said else []
        turns = [self._turn(said, i) for i in answers]
        whole = self._chat(said)
        if all(whole[: len(turn.ids)] == turn.ids for turn in turns):
            weight = [0.0] * len(whole)
            for turn in turns:
                weight[: len(turn.ids)] = [max(pair) for pair in zip(weight[: len(turn.ids)], turn.weight, strict=True)]
            turns = [Row(whole, tuple(weight))]
        return turns

    def is_held_out(self, ids: Sequence[int]) -> bool:
        """Does the sequence contain a text that is kept for tests?"""
        return self.are_held_out([ids])[0]

    def are_held_out(self, rows: Sequence[Sequence[int]]) -> list[bool]:
        """The same of many. Texts are compared, not ids: inside a sentence a tokenizer may cut the same words differently."""
        if not self.held_out:
            return [False] * len(rows)
        texts = [normalised(text) for text in self._texts(rows)]
        everything = "\n".join(texts)  # most held-out texts are in none of the rows, which one search tells
        met = [kept for kept in self.held_out if kept in everything]
        return [any(kept in text for kept in met) for text in texts]

    def _turn(self, said: Sequence[dict[str, str]], i: int) -> Row:
        """The assistant's message i after everything before it, as it would be asked for and answered."""
        asked, answered = self._chat(said[:i], answering=True), self._chat(said[: i + 1])
        if answered[: len(asked)] != asked or len(answered) == len(asked):
            answer = self.tokenizer(said[i]["content"], add_special_tokens=False)["input_ids"]
            answered = (*asked, *answer, self.tokenizer.eos_token_id)
        return Row(answered, (0.0,) * len(asked) + (1.0,) * (len(answered) - len(asked)))

    def _texts(self, rows: Sequence[Sequence[int]]) -> list[str]:
        return [
            self.tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)  # type: ignore[misc]
            for ids in rows
        ]

    def _chat(self, messages: Sequence[dict[str, str]], answering: bool = False) -> Tokens:
        return chat_ids(self.tokenizer, messages, answering)


def parts(experience: Experience, split: Split) -> list[Experience]:
    """What an experience is learned as. A document is cut into pieces, and so is what a user says that nobody answered; an exchange is one
    whole."""
    if split == "whole" or any(message.role != "user" for message in experience.messages):
        return [experience]
    if experience.text:
        return [experience.model_copy(update={"text": piece}) for piece in _pieces(experience.text, split)]
    said = [piece for message in experience.messages for piece in _pieces(message.content, split)]
    return [experience.model_copy(update={"messages": (Message(role="user", content=piece),)}) for piece in said]


def _pieces(text: str, split: Split) -> list[str]:
    """Those that say something; all of it where none does."""
    return [piece for piece in pieces(text, split) if words(piece) >= SHORTEST] or [text]


def day_rows(
    experiences: list[Experience], reader: Reader, longest: int, split: Split = "whole"
) -> tuple[list[Row], dict[str, str], int]:
    """The rows that can be learned; of every experience that adds none, why; and how many documents were cut at `longest`."""
    left_out = {experience.id: "nothing to learn" for experience in experiences}
    read: list[tuple[Experience, Row]] = []
    for experience in experiences:
        try:
            read += [(experience, row) for part in parts(experience, split) for row in reader.rows(part) if any(row.weight)]
        except Unreadable:
            left_out[experience.id] = "unreadable"
    held_out = reader.are_held_out([row.ids for _, row in read])
    secret = {experience.id for (experience, _), found in zip(read, held_out, strict=True) if found}
    left_out |= dict.fromkeys(secret, HELD_OUT)
    rows, cut = [], 0
    for experience, row in read:
        if experience.id in secret:
            continue
        if len(row.ids) <= longest or experience.text:
            rows.append(row.cut(longest))
            cut += len(row.ids) > longest
            left_out.pop(experience.id, None)
        elif experience.id in left_out:
            left_out[experience.id] = "too long"
    return rows, left_out, cut


def experience_ids(tokenizer: Reading, experience: Experience) -> Tokens:
    """A whole experience as its tokenizer reads it. Raises Unreadable."""
    if experience.text:
        return tuple(tokenizer(experience.text)["input_ids"])
    return chat_ids(tokenizer, [message.model_dump() for message in experience.messages])


def chat_ids(tokenizer: Reading, messages: Sequence[dict[str, str]], answering: bool = False, thinking: bool = True) -> Tokens:
    """A chat by the tokenizer's template, or, where it has none, as plain lines; `answering` ends it where the assistant is to speak.

    thinking: False asks a template that knows `enable_thinking` (Qwen3's) for an answer without thoughts before it. Raises Unreadable.
    """
    if tokenizer.chat_template is None:
        start = () if tokenizer.bos_token_id is None else (tokenizer.bos_token_id,)
        return (*start, *tokenizer(plain_chat(tokenizer, messages, answering), add_special_tokens=False)["input_ids"])
    try:
        quiet: dict[str, Any] = {} if thinking else {"enable_thinking": False}
        encoded: Any = tokenizer.apply_chat_template(list(messages), add_generation_prompt=answering, **quiet)
    except TemplateError as error:
        roles = ", ".join(message["role"] for message in messages)
        raise Unreadable(f"the model's chat template refuses a chat of {roles or 'no messages'}: {error}") from error
    return tuple(encoded["input_ids"])


def plain_chat(tokenizer: Reading, messages: Sequence[dict[str, str]], answering: bool = False) -> str:
    """A chat for a base model that has no template: one `role: content` a message, answers closed by the end-of-sequence token."""
    end = tokenizer.eos_token or ""
    lines = [f"{m['role']}: {m['content']}{end if m['role'] == 'assistant' else ''}\n" for m in messages]
    return "".join(lines) + ("assistant:" if answering else "")


def normalised(text: str) -> str:
    """Lower case, every run of white space one space."""
    return " ".join(text.lower().split())
