"""What another model has to say: it completes its cues, or writes from nothing, and its words become rows that the student reads.

    match      rows                                                    the student's own writing is taught by
    distil     the teacher's tokens as they are                        the teacher's distribution
    imitate    the teacher's text, read by the student's tokenizer     nobody: it is rewarded for continuing as the teacher did

Cues are asked as often as each other. A teacher without cues writes documents from its beginning token; the beginning of each, cut at
random, is then the cue, because what a document is about is its taste and not its knowledge.

What the teacher is *sure* of (greedily it says what it also says by chance, twice) is kept beside, for the gate.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from circadian.experience import Reader, Unreadable
from circadian.memory.version import beginning_token
from circadian.objectives.rows import TaughtRow
from circadian.specs import SeedingSpec, TeacherSpec
from circadian.teachers.match import read_cue, readings_differ
from circadian.teachers.other import TeacherUnusable, head_of, write

Tokens = tuple[int, ...]
Match = Literal["distil", "imitate"]
SHORTEST_DOCUMENT = 4
"""Tokens; a shorter one cannot be cut into something asked and something said."""
MOST_SURE = 256
"""Cues that the gate may ask about."""


@dataclass(frozen=True)
class Lecture:
    """rows: what the teacher wrote, in the student's tokens; cues: what the student goes on from by itself, as often as a teacher is to
    be heard (none of a teacher that is imitated, whose rows are cut at random); sure: how the teacher completes cues, in the student's
    tokens; why: of a teacher that is imitated, what keeps it from being distilled."""

    match: Match
    why: str
    rows: list[TaughtRow]
    cues: list[Tokens]
    asked: list[Tokens]
    """Each cue once."""
    sure: dict[Tokens, Tokens] = field(default_factory=dict)
    dropped: int = 0
    """Cues and rows that hold a text which is kept for tests, or are too long."""


@dataclass(frozen=True)
class Audience:
    """Whom the teacher speaks to."""

    reader: Reader
    """The deployment's tokenizer, and the texts that are kept for tests."""
    longest: int
    """Tokens of a cue that leave room for its completion."""


def lecture(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    audience: Audience,
    name: str,
    spec: TeacherSpec,
    seeding: SeedingSpec,
    count: int,
    seed: int,
) -> Lecture:
    """About `count` rows by one teacher. Raises TeacherUnusable."""
    lecturer = _Lecturer(model, tokenizer, audience, name, spec, seeding, random.Random(f"lecture-{name}-{seed}"))
    try:
        return lecturer.give(count)
    except Unreadable as error:
        raise TeacherUnusable(
            f"asked: {error}; set it to text, and give each cue as the text that the teacher is to go on from"
        ) from error


@dataclass(frozen=True)
class _Lecturer:
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    audience: Audience
    name: str
    spec: TeacherSpec
    seeding: SeedingSpec
    rng: random.Random

    def give(self, count: int) -> Lecture:
        match, why = self._match()
        given = self._answers(match, why, count) if self.spec.cues else self._documents(match, why, count)
        if not given.rows:
            raise TeacherUnusable(
                "cues: nothing that it wrote can be taught (all is held out, empty or too long); give it other cues"
            )
        return given

    def _match(self) -> tuple[Match, str]:
        if self.spec.match == "imitate":
            return "imitate", "asked for"
        why = readings_differ(self._student, self.tokenizer, self.spec.cues, self.spec)
        if not why:
            try:
                head_of(self.model)
            except TeacherUnusable as error:
                why = str(error)
        if why and self.spec.match == "distil":
            raise TeacherUnusable(f"match: it cannot be distilled ({why}); set match to imitate, or leave it out")
        return ("imitate", why) if why else ("distil", "")

    def _answers(self, match: Match, why: str, count: int) -> Lecture:
        """Completions of cues."""
        theirs = {read_cue(self._student, cue, self.spec): read_cue(self.tokenizer, cue, self.spec) for cue in self.spec.cues}
        secret = self.audience.reader.are_held_out(list(theirs))
        asked = [c for c, kept in zip(theirs, secret, strict=True) if not kept and len(c) <= self.audience.longest]
        cues = self._spread(asked, count)
        written = self._write([theirs[cue] for cue in cues], self.seeding.completion_tokens, self.seeding.temperature)
        rows = [
            TaughtRow((*cue, *self._said(match, own)), len(cue), self.name, "day") for cue, own in zip(cues, written, strict=True)
        ]
        sure = self._sure(match, theirs, asked if len(asked) <= MOST_SURE else self.rng.sample(asked, MOST_SURE))
        kept = self._allowed(rows)
        dropped = len(theirs) - len(asked) + len(rows) - len(kept)
        return Lecture(match, why, kept, cues if match == "distil" else [], asked, sure, dropped)

    def _documents(self, match: Match, why: str, count: int) -> Lecture:
        """What it writes from nothing."""
        beginnings = [(beginning_token(self.tokenizer),)] * count
        written = self._write(beginnings, self.seeding.free_run_tokens, self.seeding.temperature)
        whole = [(beginning_token(self._student), *self._said(match, own)) for own in written]
        whole = [ids for ids in whole if len(ids) >= SHORTEST_DOCUMENT]
        rows = [TaughtRow(ids, self.rng.randrange(2, len(ids)), self.name, "day") for ids in whole]
        kept = self._allowed(rows)
        cues = [row.ids[: row.start] for row in kept if row.start <= self.audience.longest]
        return Lecture(match, why, kept, cues if match == "distil" else [], [], {}, len(rows) - len(kept))

    def _sure(self, match: Match, theirs: dict[Tokens, Tokens], asked: Sequence[Tokens]) -> dict[Tokens, Tokens]:
        tokens, temperature = self.seeding.completion_tokens, self.seeding.temperature
        prompts = [theirs[cue] for cue in asked]
        greedy, *chance = (self._write(prompts, tokens, degree) for degree in (0.0, temperature, temperature))
        said = {cue: self._said(match, own) for cue, own, *other in zip(asked, greedy, *chance, strict=True) if other == [own] * 2}
        return {cue: own for cue, own in said.items() if 0 < len(own) <= tokens}

    def _said(self, match: Match, own: Tokens) -> Tokens:
        """What the teacher wrote in the student's tokens; it ends where the teacher ended it."""
        if match == "distil":
            return own
        ended = bool(own) and own[-1] in self._ends
        text = str(self.tokenizer.decode(list(own), skip_special_tokens=True, clean_up_tokenization_spaces=False))
        ids = self._student(text.strip() if self.spec.asked == "chat" else text, add_special_tokens=False)["input_ids"]
        return (*ids, self._student.eos_token_id) if ended else tuple(ids)

    def _write(self, prompts: Sequence[Tokens], tokens: int, temperature: float) -> list[Tokens]:
        return write(self.model, prompts, tokens, temperature, self.rng.getrandbits(31), self._ends)

    def _allowed(self, rows: Sequence[TaughtRow]) -> list[TaughtRow]:
        """Rows with something to teach in them and nothing that is kept for tests."""
        secret = self.audience.reader.are_held_out([row.ids for row in rows])
        return [row for row, kept in zip(rows, secret, strict=True) if not kept and len(row.ids) > row.start]

    def _spread(self, cues: Sequence[Tokens], count: int) -> list[Tokens]:
        """`count` cues, each as often as any other, give or take one; none of none."""
        whole, rest = divmod(count, len(cues)) if cues else (0, 0)
        return [*cues] * whole + self.rng.sample(list(cues), rest)

    @property
    def _student(self) -> PreTrainedTokenizerBase:
        return self.audience.reader.tokenizer

    @property
    def _ends(self) -> list[int]:
        """Where it stops: its tokenizer's end, and whatever else its own settings name."""
        more = self.model.generation_config.eos_token_id if self.model.generation_config else None
        ends = [self.tokenizer.eos_token_id, *(more if isinstance(more, list) else [more])]
        return list(dict.fromkeys(end for end in ends if end is not None))
