"""Consolidation of level l-1 into level l: the stages of a night that are the paper's section 4.

Teacher and student are views of one set of weights (circadian/memory/state.py), so a snapshot is a record of masks and checksums, not a
copy of a model: everything the teachers are made of is frozen while the student learns.
"""

from __future__ import annotations

import json
import random
from pathlib import Path

from safetensors.torch import load_file

from actors import names
from actors.learner import LearnRequest, learn
from circadian.experience import Reader
from circadian.memory.state import FIRST_SLOW_LEVEL, ExpertId, MemoryState
from circadian.memory.tensors import checksum
from circadian.memory.version import load_tokenizer, read_record, version_state
from circadian.objectives.rows import TaughtRow, write_rows
from circadian.specs import NightJob
from pipelines.rollouts import Rollouts
from pipelines.stages import Outputs
from pipelines.wake import FAST_LEVEL

SHORTEST_DOCUMENT = 3
"""Tokens; what the rested self writes from nothing and is shorter teaches nothing."""


def snapshot_teacher(job: NightJob, fast: Outputs) -> Outputs:
    """The two teachers, by what they are made of: the parent's memory and the fast level learned at dusk."""
    state = MemoryState.parse(fast["experts"])
    return {
        "experts": fast["experts"],
        "awake": state.view("awake"),
        "rested": state.view("rested"),
        "parent_memory_sha256": read_record(Path(job.parent)).memory_sha256,
        "fast_level_sha256": checksum(load_file(Path(job.home) / fast["tensors_file"])),
    }


def open_expert(job: NightJob, teachers: Outputs) -> Outputs:
    """The next free expert of the slow level. Raises LevelFull when there is none."""
    state, where = MemoryState.parse(teachers["experts"]).opened(FIRST_SLOW_LEVEL)
    return {"experts": state.names(), "writes": [where.level, where.expert], "student": state.view("student")}


def dream_corpus(job: NightJob, day: Outputs, fast: Outputs, expert: Outputs, rollouts: Rollouts) -> Outputs:
    """What the teachers write: the awake self completes the day's cues; the rested self completes old cues and writes from nothing."""
    spec, home, rng = job.recipe.seeding, Path(job.home), random.Random(f"corpus-{job.seed}")
    reader = Reader(load_tokenizer(Path(job.parent)), job.held_out)
    state = MemoryState.parse(expert["experts"])
    awake, rested = state.view("awake"), state.view("rested")
    cues = [json.loads(line) for line in (home / day["cues_file"]).read_text().splitlines()]
    rollouts.deliver((home / fast["delivery_file"]).read_bytes())

    def complete(kind: str, view: tuple[bool, ...]) -> list[TaughtRow]:
        asked = spread([tuple(cue["ids"]) for cue in cues if cue["kind"] == kind], spec.teacher_rows, rng)
        written = rollouts.sample(view, asked, spec.completion_tokens, spec.temperature, seed=rng.getrandbits(31))
        teacher = "awake" if kind == "day" else "rested"
        return [TaughtRow(cue + rest, len(cue), teacher, kind) for cue, rest in zip(asked, written, strict=True)]  # type: ignore[arg-type]

    nothing = (rollouts.beginning,)
    documents = rollouts.sample(
        rested, [nothing] * spec.free_run_rows, spec.free_run_tokens, spec.temperature, seed=rng.getrandbits(31)
    )
    free = [TaughtRow(nothing + text, 1, "rested", "free") for text in documents if len(text) >= SHORTEST_DOCUMENT]
    rows = complete("day", awake) + complete("old", rested) + free
    kept = [row for row in rows if not reader.is_held_out(row.ids)]
    write_rows(home / "corpus.jsonl", kept)
    counts = {kind: sum(row.kind == kind for row in kept) for kind in ("day", "old", "free")}
    return {"corpus_file": "corpus.jsonl", "rows": counts, "dropped_held_out": len(rows) - len(kept)}


def knowledge_seeding(job: NightJob, day: Outputs, fast: Outputs, expert: Outputs, corpus: Outputs, rollouts: Rollouts) -> Outputs:
    """Train the open expert, and it alone, on what the teachers and the student itself write."""
    home = Path(job.home)
    level, index = expert["writes"]
    result = learn(
        LearnRequest(
            task="seeding",
            run_name=names.learner_run(job.sleep, job.attempt, "seeding"),
            home=str(home),
            storage=str(home / "train"),
            version=job.parent,
            overlay=str(home / fast["tensors_file"]),
            experts=expert["experts"],
            writes=(level, index),
            rows=str(home / corpus["corpus_file"]),
            cues=str(home / day["cues_file"]),
            nights_before=day["nights_before"],
            held_out=job.held_out,
            rollouts=rollouts.names,
            seed=job.seed,
            learner=job.recipe.learner,
            fast_learning=job.recipe.fast_learning,
            seeding=job.recipe.seeding,
        )
    )
    return {
        "tensors_file": str(Path(result.tensors).relative_to(home)),
        "checksum": result.checksum,
        "steps": result.steps,
        "first_loss": result.first_loss,
        "final_loss": result.final_loss,
        "restarts": result.restarts,
        "deliveries": result.deliveries.model_dump(),
    }


def prune(job: NightJob, day: Outputs, expert: Outputs, seeded: Outputs) -> Outputs:
    """The expert is sealed, the fast level is masked and free again: the state of the candidate version."""
    state = MemoryState.parse(expert["experts"]).sealed(ExpertId(*expert["writes"])).pruned(FAST_LEVEL)
    assert_only_grown(version_state(Path(job.parent)), state)
    return {"experts": state.names(), "writes": expert["writes"]}


def assert_only_grown(parent: MemoryState, child: MemoryState) -> None:
    """Slow memory only grows: what was sealed in the parent is sealed in the child."""
    for where in parent.ids():
        if where.level >= FIRST_SLOW_LEVEL and parent[where] == "sealed" and child[where] != "sealed":
            raise AssertionError(f"expert {where} was sealed in the parent and is {child[where]} in the candidate")


def spread(cues: list[tuple[int, ...]], count: int, rng: random.Random) -> list[tuple[int, ...]]:
    """`count` cues, each as often as any other, give or take one; none of none."""
    if not cues:
        return []
    whole, rest = divmod(count, len(cues))
    return cues * whole + rng.sample(cues, rest)
