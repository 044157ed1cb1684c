"""The gate: a candidate is published only if it knows the day and kept the rest.

Measured by the rollout workers, which hold the candidate as it will serve (student view: fast level off, new expert on):

    agreement   share of the day's questions (documents' beginnings if the day asked none) that it completes as the awake teacher does
    forgotten   share of earlier cues that it completes otherwise than the rested parent does
    nll_rise    nats a token on documents the rested self wrote from nothing, candidate minus parent

Completions are greedy, and only cues count of which the teacher is sure: its greedy completion is what it also says by chance, twice.

Tests are never used: held-out texts were dropped before any of this.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file

from circadian.events import EventLog
from circadian.memory.delivery import pack_tensors
from circadian.memory.state import Mask, MemoryState
from circadian.objectives.rows import read_rows
from circadian.specs import NightJob
from pipelines.rollouts import Rollouts, Tokens
from pipelines.stages import Outputs

MOST_CUES = 256
"""Cues of each kind that are measured."""
MOST_DOCUMENTS = 48


def gate(
    job: NightJob, day: Outputs, fast: Outputs, expert: Outputs, seeded: Outputs, corpus: Outputs, rollouts: Rollouts
) -> Outputs:
    """The verdict, with everything it rests on."""
    home, rng, spec = Path(job.home), random.Random(f"gate-{job.seed}"), job.recipe.gate
    state = MemoryState.parse(expert["experts"])
    awake, rested, student = state.view("awake"), state.view("rested"), state.view("student")
    rollouts.deliver((home / fast["delivery_file"]).read_bytes())
    rollouts.deliver(candidate_delivery(job, seeded, state))
    rows = read_rows(home / corpus["corpus_file"])
    documents = [row.ids for row in rows if row.kind == "free"]
    kept = [row.ids[: max(2, len(row.ids) // 2)] for row in rows if row.kind == "free"]
    cues = [json.loads(line) for line in (home / day["cues_file"]).read_text().splitlines()]
    questions = [tuple(cue["ids"]) for cue in cues if cue["kind"] == "day" and cue["question"]]
    asked = some(questions or [tuple(cue["ids"]) for cue in cues if cue["kind"] == "day"], rng)
    old = some([tuple(cue["ids"]) for cue in cues if cue["kind"] == "old" and cue["question"]] or kept, rng)
    texts = documents[:MOST_DOCUMENTS]
    measured = {
        "agreement": same(job, rollouts, asked, awake, student),
        "forgotten": 1.0 - same(job, rollouts, old, rested, student),
        "nll_rise": rollouts.nll(student, texts) - rollouts.nll(rested, texts),
    }
    failed = [
        f"agreement {measured['agreement']:.3f} < {spec.min_agreement}" if measured["agreement"] < spec.min_agreement else "",
        f"forgotten {measured['forgotten']:.3f} > {spec.max_forgotten}" if measured["forgotten"] > spec.max_forgotten else "",
        f"nll_rise {measured['nll_rise']:.3f} > {spec.max_nll_rise}" if measured["nll_rise"] > spec.max_nll_rise else "",
    ]
    reasons = [reason for reason in failed if reason]
    EventLog(home).emit("sleep.gate_failed" if reasons else "sleep.gate_passed", "; ".join(reasons) or "gate passed", **measured)
    return {"passed": not reasons, "reasons": reasons, "measured": measured, "cues": {"day": len(asked), "old": len(old)}}


def candidate_delivery(job: NightJob, seeded: Outputs, state: MemoryState) -> bytes:
    """The written expert on top of what the workers hold."""
    dtype = getattr(torch, json.loads((Path(job.parent) / "config.json").read_text())["dtype"])
    tensors = load_file(Path(job.home) / seeded["tensors_file"])
    return pack_tensors({name: tensor.to(dtype) for name, tensor in tensors.items()}, state, Path(job.child).name)


def same(job: NightJob, rollouts: Rollouts, cues: Sequence[Tokens], teacher: Mask, student: Mask) -> float:
    """Share of the cues the teacher is sure of that the student completes alike; 0 if it is sure of none."""
    tokens, temperature = job.recipe.seeding.completion_tokens, job.recipe.seeding.temperature
    greedy = rollouts.sample(teacher, cues, tokens, temperature=0.0, seed=0)
    chance = [rollouts.sample(teacher, cues, tokens, temperature, seed=seed) for seed in (1, 2)]
    sure = [i for i, completion in enumerate(greedy) if all(said[i] == completion for said in chance)]
    answers = rollouts.sample(student, [cues[i] for i in sure], tokens, temperature=0.0, seed=0)
    return sum(answer == greedy[i] for i, answer in zip(sure, answers, strict=True)) / max(1, len(sure))


def some(cues: list[Tokens], rng: random.Random) -> list[Tokens]:
    return cues if len(cues) <= MOST_CUES else rng.sample(cues, MOST_CUES)
