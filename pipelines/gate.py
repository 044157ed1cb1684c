"""The gate: a candidate is published only if it knows the day and kept the rest.

Measured by the rollout workers, which are first what the deployment was at dusk, and then the candidate as it will serve:

    agreement         share of the day's questions (documents' beginnings if the day asked none) that it completes as the awake teacher does
    taught            of each other model that taught, share of its cues that it completes as that model does; the least of them counts
    dreamt            of the dreams that are kept, share of their cues that it completes as the self that had just learned them
    forgotten         share of old cues that it completes otherwise than the rested parent does
    forgotten_night   the same of the earlier night that lost most
    lost              share of the words of free documents that it would not write where the parent surely did
    nll_rise          nats a token on free documents, candidate minus parent; median_nll_rise: of the median document
    drift_parent      nats a token by which free documents became likelier or less likely
    base_lost, base_nll_rise, drift_base    the same three against the base, the model without any memory
    exposure          bits by which canaries are likelier than chance, of the most exposed
    probe:...         what the operator asks, against a threshold, the parent and the base

Old cues and free documents are those that were held back: no student saw them. Free documents are read, not completed (their beginnings
would be prompts that nobody checked against the tests). What each number means and when there is none: pipelines/gates/; the limits:
circadian/specs/gates.py; why these: docs/gates.md.

Tests are never used: held-out texts were dropped before any of this. Probes are tests of the operator's, and held out as such.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from actors.replies import Read
from circadian.canaries import Canary
from circadian.events import EventLog
from circadian.memory.cues import Cue
from circadian.memory.state import Mask
from circadian.memory.tokenizer_files import load_tokenizer
from circadian.objectives.rows import read_rows
from circadian.probing import mean, wilson
from circadian.specs import NightJob
from pipelines.consolidation import Moved, check_teachers
from pipelines.dream_keeping import dreamt_in
from pipelines.gates import forgetting
from pipelines.gates.asking import FEWEST_SURE, alike, share, some, sure
from pipelines.gates.judging import Measured, judge, reasons
from pipelines.gates.probes import Exam, Probed, Scores
from pipelines.gates.reading import drift, lost, median_nll_rise, nll_rise
from pipelines.gates.secrets import Exposed, canaries_of, exposed, spelled
from pipelines.other_teachers import sure_of
from pipelines.rollouts import Sampler, Tokens
from pipelines.stages import Outputs, read_lines
from pipelines.wake import Bounds

MOST_DOCUMENTS = 48


@dataclass(frozen=True)
class Seen:
    """What one view made of the same questions: free documents, canaries, probes."""

    documents: list[list[Read]]
    canaries: list[list[Read]]
    answers: Scores


@dataclass(frozen=True)
class Questions:
    """What every view is asked."""

    documents: list[Tokens]
    canaries: list[Canary]
    exam: Exam

    def read(self, rollouts: Sampler, view: Mask) -> Seen:
        """By the candidate: all of it."""
        texts = rollouts.read(view, [*self.documents, *spelled(self.canaries)])
        return self._seen(texts, self.exam.scores(rollouts, view))

    def read_by_base(self, rollouts: Sampler, view: Mask) -> Seen:
        """And of the probes those that are held against it."""
        texts = rollouts.read(view, [*self.documents, *spelled(self.canaries)])
        return self._seen(texts, self.exam.scores(rollouts, view, self.exam.against_base()))

    def read_by_parent(self, rollouts: Sampler, view: Mask, base: Seen) -> Seen:
        """Canaries are compared with the base alone. A parent that has no memory yet is the base."""
        documents = rollouts.read(view, self.documents) if any(view) else base.documents
        return Seen(documents, [], self.exam.scores(rollouts, view))

    def _seen(self, texts: list[list[Read]], answers: Scores) -> Seen:
        count = len(self.documents)
        return Seen(texts[:count], texts[count:], answers)


def gate(job: NightJob, day: Outputs, asleep: Sequence[Moved], rollouts: Sampler) -> Outputs:
    """The verdict, with everything it rests on; `asleep`: the memory at dusk, and after every transfer of the night."""
    check_teachers(job, asleep[-1].before or asleep[-2].memory, asleep[-1].teachers)
    home, rng = Path(job.home), random.Random(f"gate-{job.seed}")
    dusk, dawn = asleep[0].memory, asleep[-1].memory
    awake, rested, candidate = dusk.state.view("awake"), dusk.state.view("rested"), dawn.state.view("rested")
    cues = [cue for cue in read_lines(home / day["cues_file"]) if cue["sleep"] == job.sleep and job.recipe.consolidation]
    asked_by_day = [tuple(cue["ids"]) for cue in cues if cue["question"]]
    new = some(asked_by_day or [tuple(cue["ids"]) for cue in cues], rng)
    old = forgetting.asked([_cue(line) for line in read_lines(home / day["held_back_file"])], rng)
    questions = _questions(job, asleep, rollouts)

    rollouts.deliver(dusk.delivery(job, f"{Path(job.parent).name}+{job.sleep}", also=dawn.touched))
    said, kept = sure(job, rollouts, new, awake), sure(job, rollouts, [cue.ids for cue in old], rested)
    base = questions.read_by_base(rollouts, dusk.state.view("base"))
    parent = questions.read_by_parent(rollouts, rested, base)
    imagined = _dreamt(job, rollouts, asleep, rng)
    rollouts.deliver(dawn.delivery(job, Path(job.child).name))
    learned, remembered = (alike(job, rollouts, asked, candidate) for asked in (said, kept))
    seen = questions.read(rollouts, candidate)
    others = _taught(job, rollouts, asleep, candidate)

    found = forgetting.row(old, remembered)
    leaks, probed = exposed(questions.canaries, base.canaries, seen.canaries), _probed(questions.exam, seen, parent, base)
    measured = replace(
        _kept(parent, base, seen),
        agreement=share(learned) if len(said) >= (1 if asked_by_day else FEWEST_SURE) else None,
        forgotten=_without(share(remembered)) if len(kept) >= FEWEST_SURE else None,
        forgotten_night=forgetting.worst(found),
        must_agree=bool(asked_by_day),
        taught=min((part for part in others.values() if part is not None), default=None),
        dreamt=share(alike(job, rollouts, imagined, candidate)) if len(imagined) >= FEWEST_SURE else None,
        exposure=max((one.bits for one in leaks), default=None),
    )
    gates = judge(measured, job.recipe.gate, probed, leaks)
    why, numbers = reasons(gates), measured.numbers()
    EventLog(home).emit("sleep.gate_failed" if why else "sleep.gate_passed", "; ".join(why) or "gate passed", **numbers)
    return {
        "passed": not why,
        "reasons": why,
        "gates": [one.told() for one in gates],
        "measured": numbers,
        "cues": {"day": len(new), "old": len(old)},
        "sure": {"day": len(said), "old": len(kept)},
        "documents": len(questions.documents),
        "taught": others,
        "kept": forgetting.kept(found),
        "sure_of_nights": {sleep: len(right) for sleep, right in found.items()},
        "canaries": _told_canaries(leaks),
        "probes": {one.probe.id: _told_probe(one) for one in probed},
    }


def _questions(job: NightJob, asleep: Sequence[Moved], rollouts: Sampler) -> Questions:
    documents = [row.ids for row in read_rows(Path(job.home) / asleep[1].corpus["held_back_file"])][:MOST_DOCUMENTS]
    tokenizer, room = load_tokenizer(Path(job.parent)), Bounds.of(job).cue + job.recipe.seeding.completion_tokens
    return Questions(documents, canaries_of(job, tokenizer, rollouts.beginning, room), Exam(job, tokenizer, room))


def _kept(parent: Seen, base: Seen, seen: Seen) -> Measured:
    """What the free documents tell."""
    then, first, now = parent.documents, base.documents, seen.documents
    return Measured(
        agreement=None,
        forgotten=None,
        lost=lost(then, now),
        nll_rise=nll_rise(then, now),
        must_agree=False,
        base_lost=lost(first, now),
        median_nll_rise=median_nll_rise(then, now),
        base_nll_rise=nll_rise(first, now),
        drift_parent=drift(then, now),
        drift_base=drift(first, now),
    )


def _dreamt(job: NightJob, rollouts: Sampler, asleep: Sequence[Moved], rng: random.Random) -> dict[Tokens, Tokens]:
    """The cues of the kept dreams of which the self that had learned them is sure, and how it completes them."""
    moved = asleep[-1]
    if moved.before is None:
        return {}
    lines = read_lines(Path(job.home) / moved.dreams["cues_file"])
    cues = some([tuple(line["ids"]) for line in lines if line["sleep"] == dreamt_in(job.sleep)], rng)
    rollouts.deliver(moved.before.delivery(job, f"{Path(job.parent).name}+dreams", also=moved.memory.touched))
    return sure(job, rollouts, cues, moved.before.state.view("awake"))


def _taught(job: NightJob, rollouts: Sampler, asleep: Sequence[Moved], candidate: Mask) -> dict[str, float | None]:
    """Of each other model that is sure of enough cues, the share that the candidate completes as it does."""
    return {
        name: share(alike(job, rollouts, told, candidate))
        for moved in asleep
        if moved.lectures
        for name, told in sure_of(job, moved.lectures).items()
        if len(told) >= FEWEST_SURE
    }


def _probed(exam: Exam, seen: Seen, parent: Seen, base: Seen) -> list[Probed]:
    return [Probed(one, seen.answers[one.id], parent.answers[one.id], base.answers.get(one.id)) for one in exam.probes]


def _told_canaries(leaks: Sequence[Exposed]) -> Outputs:
    """Of each its bits; not what it says."""
    most: dict[str, float] = {}
    for one in leaks:
        most[one.name] = max(one.bits, most.get(one.name, one.bits))
    return {name: round(bits, 2) for name, bits in most.items() if math.isfinite(bits)}


def _told_probe(probed: Probed) -> Outputs:
    """Scores; neither questions nor answers, which are the operator's alone."""
    count = len(probed.candidate)
    return {
        "kind": probed.probe.kind,
        "n": count,
        "score": probed.score,
        "ci95": wilson(probed.score, count),
        "parent": mean(probed.parent),
        "base": mean(probed.base) if probed.base else None,
        "items": [one.score for one in probed.candidate],
    }


def _cue(line: Outputs) -> Cue:
    return Cue(tuple(line["ids"]), line["sleep"], line["question"])


def _without(part: float | None) -> float | None:
    return None if part is None else 1.0 - part
