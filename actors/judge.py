"""Judges of meaning that answer a question: the deployment's base, or a model behind an endpoint.

consumes     student-written rows that imitate (from the student's writer, in rank 0)
produces     for each, whether it means what the teacher wrote; None where no answer could be had
waits for    a rollout worker or the endpoint, each within its own bound
unblocked by the answer, or the bound; after FAILURES failures in a row the rest is not asked

A row without an answer is rewarded by lexical closeness, and so is its whole group: what is compared must be measured alike.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Protocol

import httpx
from transformers import PreTrainedTokenizerBase

from actors.replies import Read
from circadian.memory.state import MemoryState
from circadian.objectives.rows import TaughtRow
from circadian.specs import BaseJudge, EndpointJudge, ImitationSpec

log = logging.getLogger(__name__)
FAILURES = 3
"""In a row, after which a judge is not asked any more for these rows; what is neither yes nor no is one too."""
MOST_BYTES = 1 << 16
"""Of an endpoint's answer."""
LONGEST_ANSWER = 4
"""Tokens that an endpoint may answer with."""
Question = tuple[str, str, str]
"""Prefix, what the teacher wanted, what the student wrote."""
Answer = Callable[[Sequence[Question]], list[bool | None]]


class Reader(Protocol):
    """A model that says how likely it finds texts."""

    def read(self, view: Sequence[float], tokens: list[list[int]]) -> list[list[Read]]: ...


def judged(rows: Sequence[TaughtRow], answer: Answer, tokenizer: PreTrainedTokenizerBase) -> tuple[list[TaughtRow], int]:
    """The rows with the judge's word where their whole group got one, and how many rows got none."""

    def text(ids: Sequence[int]) -> str:
        return str(tokenizer.decode(list(ids), skip_special_tokens=True))

    imitating = [i for i, row in enumerate(rows) if row.imitated is not None]
    questions = [
        (text(rows[i].ids[: rows[i].start]), text(imitated.wanted), text(rows[i].ids[rows[i].start :]))
        for i in imitating
        if (imitated := rows[i].imitated)
    ]
    known = dict.fromkeys(questions)
    known |= dict(zip(known, answer(list(known)), strict=True))
    words = {i: known[question] for i, question in zip(imitating, questions, strict=True)}
    groups = {i: imitated.group for i in imitating if (imitated := rows[i].imitated)}
    silent = {groups[i] for i, word in words.items() if word is None}
    done = list(rows)
    for i, word in words.items():
        if groups[i] not in silent and (imitated := rows[i].imitated):
            done[i] = replace(rows[i], imitated=replace(imitated, semantic=word))
    return done, sum(group in silent for group in groups.values())


class AskBase:
    """The deployment's base weighs `yes` against `no` after the question; of one that is longer than `room` tokens it says nothing."""

    def __init__(self, spec: BaseJudge, reader: Reader, tokenizer: PreTrainedTokenizerBase, state: MemoryState, room: int) -> None:
        self.spec, self.reader, self.tokenizer, self.room = spec, reader, tokenizer, room
        self.view = [float(heard) for heard in state.view("base")]

    def __call__(self, questions: Sequence[Question]) -> list[bool | None]:
        asked = [_fill(self.spec.question, question) for question in questions]
        pairs = [(self._ids(text + self.spec.yes), self._ids(text + self.spec.no)) for text in asked]
        fits = [max(map(len, pair)) <= self.room for pair in pairs]
        texts = [text for pair, short in zip(pairs, fits, strict=True) if short for text in pair]
        read = iter(self.reader.read(self.view, texts) if texts else ())
        words: list[bool | None] = []
        for (yes, no), short in zip(pairs, fits, strict=True):
            start = _common(yes, no)  # where the two texts part the word begins; a tokenizer may cut a word off its question
            words.append(_from(next(read), start) > _from(next(read), start) if short else None)
        return words

    def _ids(self, text: str) -> list[int]:
        return list(self.tokenizer(text)["input_ids"])


class AskEndpoint:
    """A model behind an OpenAI-compatible interface answers in words; each answer is bounded as a whole, however it trickles in."""

    def __init__(self, spec: EndpointJudge) -> None:
        self.spec = spec
        self.failures = 0

    def __call__(self, questions: Sequence[Question]) -> list[bool | None]:
        return asyncio.run(self._ask_all(questions))

    async def _ask_all(self, questions: Sequence[Question]) -> list[bool | None]:
        self.failures, turn = 0, asyncio.Semaphore(self.spec.at_once)
        key = os.environ.get(self.spec.key_variable, "") if self.spec.key_variable else ""
        headers = {"Authorization": f"Bearer {key}"} if key else {}

        async def ask(question: Question) -> bool | None:
            async with turn:
                return await self._ask(client, question) if self.failures < FAILURES else None

        try:
            client = httpx.AsyncClient(base_url=self.spec.url, headers=headers, timeout=self.spec.seconds)
        except (httpx.InvalidURL, ValueError) as error:  # of the key it says no more than that it is wrong
            log.warning("the judge at %s cannot be asked: %s", self.spec.url, type(error).__name__)
            return [None] * len(questions)
        async with client:
            return list(await asyncio.gather(*map(ask, questions)))

    async def _ask(self, client: httpx.AsyncClient, question: Question) -> bool | None:
        messages = [{"role": "user", "content": _fill(self.spec.question, question)}]
        body = {"model": self.spec.model, "messages": messages, "max_tokens": LONGEST_ANSWER, "temperature": 0.0}
        try:
            async with asyncio.timeout(self.spec.seconds):  # httpx bounds each read, not their number
                answer = await _bounded(client, body)
            word = _yes_or_no(json.loads(answer)["choices"][0]["message"]["content"])
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError, ValueError, LookupError, TypeError, RecursionError) as error:
            self.failures += 1
            log.warning("the judge at %s does not answer: %r", self.spec.url, error)
            return None
        self.failures = 0 if word is not None else self.failures + 1
        return word


async def _bounded(client: httpx.AsyncClient, body: Mapping[str, object]) -> bytes:
    """The body of the answer. Raises ValueError where it is longer than any answer is."""
    found = b""
    async with client.stream("POST", "/chat/completions", json=body) as answer:
        answer.raise_for_status()
        async for part in answer.aiter_bytes():
            found += part
            if len(found) > MOST_BYTES:
                raise ValueError(f"more than {MOST_BYTES} bytes")
    return found


def judge_of(
    spec: ImitationSpec, reader: Reader, tokenizer: PreTrainedTokenizerBase, state: MemoryState, room: int
) -> Answer | None:
    """Who answers, of the judges that do; room: tokens that the reader takes."""
    if isinstance(spec.judge, BaseJudge):
        return AskBase(spec.judge, reader, tokenizer, state, room)
    return AskEndpoint(spec.judge) if isinstance(spec.judge, EndpointJudge) else None


def _fill(template: str, question: Question) -> str:
    """In one go: a text may hold braces of its own."""
    texts = dict(zip(("prefix", "wanted", "written"), question, strict=True))
    return re.sub(r"\{(prefix|wanted|written)\}", lambda found: texts[found[1]], template)


def _yes_or_no(answer: object) -> bool | None:
    """None where it is neither."""
    word = answer.strip().lower() if isinstance(answer, str) else ""
    return True if word.startswith("yes") else False if word.startswith("no") else None


def _common(a: Sequence[int], b: Sequence[int]) -> int:
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def _from(read: Sequence[Read], start: int) -> float:
    """Log-prob of a text from its token `start` on, nats; `read` begins at token 1."""
    return sum(token.logprob for token in read[start - 1 :])
