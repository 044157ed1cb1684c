"""Probes of the operator, asked of the parent, of the candidate, and those of kinds `general` and `safety` of the base too. Answers are
greedy, as the deployment gives them at temperature 0. What they are worth: circadian/probing.py."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from circadian.experience import Unreadable, chat_ids
from circadian.memory.state import Mask
from circadian.probing import Scored, item_score, mean
from circadian.specs import NightJob, ProbeItem, UserProbe
from circadian.specs.probes import AGAINST_BASE
from pipelines.rollouts import Sampler, Tokens

Scores = dict[str, list[Scored]]
"""Of each probe's items."""


class Unaskable(ValueError):
    """The deployment would refuse the question."""


@dataclass(frozen=True)
class Probed:
    """How a probe went; base is None where it was not asked."""

    probe: UserProbe
    candidate: list[Scored]
    parent: list[Scored]
    base: list[Scored] | None

    @property
    def score(self) -> float:
        return mean(self.candidate)

    @property
    def regression(self) -> float:
        """By which the candidate is worse than the better of those that it is held against."""
        return max(mean(self.parent), mean(self.base) if self.base else 0.0) - self.score


def prompt_ids(item: ProbeItem, tokenizer: PreTrainedTokenizerBase, room: int) -> Tokens:
    """An item as the deployment would read it; room: tokens of prompt and answer. Raises Unaskable."""
    try:
        said = [message.model_dump() for message in item.messages]
        ids = chat_ids(tokenizer, said, answering=True) if said else tuple(tokenizer(item.prompt)["input_ids"])
    except Unreadable as error:
        raise Unaskable(str(error)) from error
    if not 0 < len(ids) < room:
        raise Unaskable(f"the prompt has {len(ids)} tokens, and there is room for {room} with its answer")
    return ids


class Exam:
    """All probes of a night that are answered in words; canaries are not (secrets.py)."""

    def __init__(self, job: NightJob, tokenizer: PreTrainedTokenizerBase, room: int) -> None:
        self.probes = [probe for probe in job.probes if probe.kind != "canary"]
        self._tokenizer, self._room = tokenizer, room

    def scores(self, rollouts: Sampler, view: Mask, probes: Sequence[UserProbe] | None = None) -> Scores:
        """What a view's answers are worth, in one batch; probes: some of them."""
        wanted = self.probes if probes is None else probes
        asked: list[Tokens] = []
        places: dict[tuple[str, int], int | str] = {}
        for probe in wanted:
            for i, item in enumerate(probe.items):
                try:
                    asked.append(prompt_ids(item, self._tokenizer, self._room))
                    places[probe.id, i] = len(asked) - 1
                except Unaskable as why:
                    places[probe.id, i] = str(why)
        most = max((probe.max_tokens for probe in wanted), default=1)
        answers = rollouts.sample(view, asked, most, temperature=0.0, seed=0) if asked else []

        def scored(probe: UserProbe, i: int, item: ProbeItem) -> Scored:
            place = places[probe.id, i]
            if isinstance(place, str):
                return Scored(None, 0.0, place)
            return item_score(probe, item, self._text(answers[place][: probe.max_tokens]))

        return {probe.id: [scored(probe, i, item) for i, item in enumerate(probe.items)] for probe in wanted}

    def against_base(self) -> list[UserProbe]:
        return [probe for probe in self.probes if probe.kind in AGAINST_BASE]

    def _text(self, ids: Tokens) -> str:
        end = self._tokenizer.eos_token_id
        said = ids[: ids.index(end)] if end in ids else ids
        return str(self._tokenizer.decode(list(said), skip_special_tokens=True)).strip()
