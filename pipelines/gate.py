"""The gate: a candidate is published only if it knows the day and kept the rest.

Measured by the rollout workers, which are first what the deployment was at dusk, and then the candidate as it will serve:

    agreement   share of the day's questions (documents' beginnings if the day asked none) that it completes as the awake teacher does
    taught      of each other model that taught, share of its cues that it completes as that model does; the least of them counts
    dreamt      of the dreams that are kept, share of their cues that it completes as the self that had just learned them
    forgotten   share of old cues that it completes otherwise than the rested parent does
    lost        share of the words of free documents that it would not write where the parent surely did
    nll_rise    nats a token on free documents, candidate minus parent

Old cues and free documents are those that were held back: no student saw them. Completions are greedy, and only cues count of which
the teacher is sure: its greedy completion is what it also says by chance, twice. Free documents are read, not completed (their
beginnings would be prompts that nobody checked against the tests); the parent is sure of a token it gives SURE of all probability,
and `lost` is a mean over distinct tokens: what is known hangs on rare words, and each weighs as much as "the".

With fewer than FEWEST_SURE sure cues or words (or fewer than FEWEST_DOCUMENTS) a criterion is null and not judged, except agreement
on questions, without which nothing is published; nor is it where none of the last three, which say what was kept, could be measured.

Tests are never used: held-out texts were dropped before any of this.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from operator import eq
from pathlib import Path

from actors.replies import Read
from circadian.events import EventLog
from circadian.memory.state import Mask
from circadian.objectives.rows import read_rows
from circadian.specs import GateSpec, NightJob
from pipelines.consolidation import Moved, check_teachers
from pipelines.dream_keeping import dreamt_in
from pipelines.other_teachers import sure_of
from pipelines.rollouts import Sampler, Tokens
from pipelines.stages import Outputs, read_lines

MOST_CUES = 256
"""Cues of each kind that are measured."""
MOST_DOCUMENTS = 48
FEWEST_SURE = 8
"""Cues that the teacher must be sure of: with fewer, one slip of the pen would decide over a night."""
FEWEST_DOCUMENTS = 4
SURE = 0.9
"""Probability of a token that the parent surely writes."""


@dataclass(frozen=True)
class Measured:
    """The criteria; None is not measured, and `must_agree` says whether agreement may be that."""

    agreement: float | None
    forgotten: float | None
    lost: float | None
    nll_rise: float | None
    must_agree: bool
    taught: float | None = None
    dreamt: float | None = None

    def numbers(self) -> dict[str, float | None]:
        """As JSON has them: what is not finite is null, and judged as such before."""
        numbers = {
            "agreement": self.agreement,
            "taught": self.taught,
            "dreamt": self.dreamt,
            "forgotten": self.forgotten,
            "lost": self.lost,
            "nll_rise": self.nll_rise,
        }
        return {name: value if value is not None and math.isfinite(value) else None for name, value in numbers.items()}


def judge(measured: Measured, spec: GateSpec) -> list[str]:
    """Why the candidate fails; nothing if it passes. What is not a number fails."""
    reasons = []
    if measured.agreement is None and measured.must_agree:
        reasons.append("agreement was not measured: the awake teacher is sure of none of the day's questions")
    if measured.forgotten is None and measured.lost is None and measured.nll_rise is None:
        reasons.append("what was kept was not measured: too few old cues and different free documents; raise seeding.free_run_rows")
    if measured.agreement is not None and not measured.agreement >= spec.min_agreement:
        reasons.append(f"agreement {measured.agreement:.3f} < {spec.min_agreement}")
    if measured.taught is not None and not measured.taught >= spec.min_taught:
        reasons.append(f"taught {measured.taught:.3f} < {spec.min_taught}")
    if measured.dreamt is not None and not measured.dreamt >= spec.min_dreamt:
        reasons.append(f"dreamt {measured.dreamt:.3f} < {spec.min_dreamt}")
    if measured.forgotten is not None and not measured.forgotten <= spec.max_forgotten:
        reasons.append(f"forgotten {measured.forgotten:.3f} > {spec.max_forgotten}")
    if measured.lost is not None and not measured.lost <= spec.max_lost:
        reasons.append(f"lost {measured.lost:.3f} > {spec.max_lost}")
    if measured.nll_rise is not None and not measured.nll_rise <= spec.max_nll_rise:
        reasons.append(f"nll_rise {measured.nll_rise:.3f} > {spec.max_nll_rise}")
    return reasons


def gate(job: NightJob, day: Outputs, asleep: Sequence[Moved], rollouts: Sampler) -> Outputs:
    """The verdict, with everything it rests on; `asleep`: the memory at dusk, and after every transfer of the night."""
    check_teachers(job, asleep[-1].before or asleep[-2].memory, asleep[-1].teachers)
    home, rng = Path(job.home), random.Random(f"gate-{job.seed}")
    dusk, dawn = asleep[0].memory, asleep[-1].memory
    awake, rested, candidate = dusk.state.view("awake"), dusk.state.view("rested"), dawn.state.view("rested")
    cues = [cue for cue in read_lines(home / day["cues_file"]) if cue["sleep"] == job.sleep and job.recipe.consolidation]
    questions = [tuple(cue["ids"]) for cue in cues if cue["question"]]
    new = some(questions or [tuple(cue["ids"]) for cue in cues], rng)
    old = some([tuple(cue["ids"]) for cue in read_lines(home / day["held_back_file"])], rng)
    documents = [row.ids for row in read_rows(home / asleep[1].corpus["held_back_file"])][:MOST_DOCUMENTS]

    rollouts.deliver(dusk.delivery(job, f"{Path(job.parent).name}+{job.sleep}", also=dawn.touched))
    said, kept = sure(job, rollouts, new, awake), sure(job, rollouts, old, rested)
    parent_read = rollouts.read(rested, documents)
    imagined = _dreamt(job, rollouts, asleep, rng)
    rollouts.deliver(dawn.delivery(job, Path(job.child).name))
    learned, remembered = (alike(job, rollouts, asked, candidate) for asked in (said, kept))
    candidate_read = rollouts.read(candidate, documents)
    others = {
        name: alike(job, rollouts, told, candidate)
        for moved in asleep
        if moved.lectures
        for name, told in sure_of(job, moved.lectures).items()
        if len(told) >= FEWEST_SURE
    }

    measured = Measured(
        agreement=learned if len(said) >= (1 if questions else FEWEST_SURE) else None,
        forgotten=None if remembered is None or len(kept) < FEWEST_SURE else 1.0 - remembered,
        lost=lost(parent_read, candidate_read),
        nll_rise=nll_rise(parent_read, candidate_read),
        must_agree=bool(questions),
        taught=min((share for share in others.values() if share is not None), default=None),
        dreamt=alike(job, rollouts, imagined, candidate) if len(imagined) >= FEWEST_SURE else None,
    )
    reasons = judge(measured, job.recipe.gate)
    numbers = measured.numbers()
    EventLog(home).emit("sleep.gate_failed" if reasons else "sleep.gate_passed", "; ".join(reasons) or "gate passed", **numbers)
    return {
        "passed": not reasons,
        "reasons": reasons,
        "measured": numbers,
        "cues": {"day": len(new), "old": len(old)},
        "sure": {"day": len(said), "old": len(kept)},
        "documents": len(documents),
        "taught": others,
    }


def _dreamt(job: NightJob, rollouts: Sampler, asleep: Sequence[Moved], rng: random.Random) -> dict[Tokens, Tokens]:
    """The cues of the kept dreams of which the self that had learned them is sure, and how it completes them."""
    moved = asleep[-1]
    if moved.before is None:
        return {}
    lines = read_lines(Path(job.home) / moved.dreams["cues_file"])
    cues = some([tuple(line["ids"]) for line in lines if line["sleep"] == dreamt_in(job.sleep)], rng)
    rollouts.deliver(moved.before.delivery(job, f"{Path(job.parent).name}+dreams", also=moved.memory.touched))
    return sure(job, rollouts, cues, moved.before.state.view("awake"))


def sure(job: NightJob, rollouts: Sampler, cues: Sequence[Tokens], teacher: Mask) -> dict[Tokens, Tokens]:
    """The cues of which the teacher is sure, and how it completes them."""
    tokens, temperature = job.recipe.seeding.completion_tokens, job.recipe.seeding.temperature
    greedy = rollouts.sample(teacher, cues, tokens, temperature=0.0, seed=0)
    chance = [rollouts.sample(teacher, cues, tokens, temperature, seed=i * len(cues)) for i in (1, 2)]
    return {
        cue: completion
        for i, (cue, completion) in enumerate(zip(cues, greedy, strict=True))
        if all(said[i] == completion for said in chance)
    }


def alike(job: NightJob, rollouts: Sampler, said: dict[Tokens, Tokens], candidate: Mask) -> float | None:
    """Share of the cues that the candidate completes as it was said; None of none."""
    answers = rollouts.sample(candidate, list(said), job.recipe.seeding.completion_tokens, temperature=0.0, seed=0)
    return sum(map(eq, answers, said.values())) / len(said) if said else None


def lost(parent: Sequence[Sequence[Read]], candidate: Sequence[Sequence[Read]]) -> float | None:
    """Of each distinct token the share of its places that the parent is sure of and the candidate is not first to name; the mean of
    these shares, or None of too few tokens."""
    places: dict[int, list[bool]] = {}
    for before, after in zip(parent, candidate, strict=True):
        for then, now in zip(before, after, strict=True):
            if then.first and then.logprob >= math.log(SURE):
                places.setdefault(then.token, []).append(not now.first)
    shares = [sum(missed) / len(missed) for missed in places.values()]
    return sum(shares) / len(shares) if len(shares) >= FEWEST_SURE else None


def nll_rise(parent: Sequence[Sequence[Read]], candidate: Sequence[Sequence[Read]]) -> float | None:
    """Nats a token by which the documents are less likely; None of too few."""
    then, now = ([read.logprob for text in texts for read in text] for texts in (parent, candidate))
    return (sum(then) - sum(now)) / len(then) if len(parent) >= FEWEST_DOCUMENTS and then else None


def some(cues: list[Tokens], rng: random.Random) -> list[Tokens]:
    return cues if len(cues) <= MOST_CUES else rng.sample(cues, MOST_CUES)
