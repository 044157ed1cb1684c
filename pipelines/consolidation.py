"""Consolidation of level l-1 into level l: the stages of a night that are the paper's section 4.

Teacher and student are views of one set of weights (circadian/memory/state.py), so a snapshot is a record of states and checksums, not a
copy of a model: everything the teachers are made of is frozen while the student learns, and `check_teachers` proves it.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from safetensors.torch import load_file

from actors import names
from actors.learner import LearnRequest, learn
from circadian.experience import Reader
from circadian.memory.state import FIRST_SLOW_LEVEL, ExpertId, MemoryState
from circadian.memory.tensors import checksum
from circadian.memory.version import MEMORY_FILE, load_tokenizer, version_state
from circadian.objectives.rows import Kind, TaughtRow, Teacher, write_rows
from circadian.specs import NightJob
from pipelines.rollouts import RolloutPool, Sampler, Tokens
from pipelines.stages import Outputs, StageBroken, read_lines, write_lines
from pipelines.wake import FAST_LEVEL, NothingToLearn

SHORTEST_DOCUMENT = 3
"""Tokens; what the rested self writes from nothing and is shorter teaches nothing."""
HELD_BACK = 0.1
"""Share of the old cues and of the free documents that no student learns from: on them the gate sees what was kept."""
T = TypeVar("T")


def snapshot_teacher(job: NightJob, fast: Outputs) -> Outputs:
    """The two teachers, by what they are made of: the parent's memory and the fast level learned at dusk."""
    return {
        "experts": fast["experts"],
        "parent_memory": checksum(load_file(Path(job.parent) / MEMORY_FILE)),
        "fast_level": checksum(load_file(Path(job.home) / fast["tensors_file"])),
    }


def check_teachers(job: NightJob, fast: Outputs, teachers: Outputs) -> None:
    """Raises StageBroken if a teacher is no longer what it was when the student began to learn."""
    if snapshot_teacher(job, fast) != teachers:
        raise StageBroken(f"the memory of {job.parent} or the fast level in {job.home} changed during the night; sleep again")


def open_expert(job: NightJob, teachers: Outputs) -> Outputs:
    """The next free expert of the slow level. Raises LevelFull when there is none."""
    state, where = MemoryState.parse(teachers["experts"]).opened(FIRST_SLOW_LEVEL)
    return {"experts": state.names(), "writes": [where.level, where.expert]}


def dream_corpus(job: NightJob, day: Outputs, fast: Outputs, expert: Outputs, rollouts: Sampler) -> Outputs:
    """What the teachers write: the awake self completes the day's cues; the rested self completes old cues and writes from nothing."""
    spec, home, rng = job.recipe.seeding, Path(job.home), random.Random(f"corpus-{job.seed}")
    reader = Reader(load_tokenizer(Path(job.parent)), job.held_out)
    state = MemoryState.parse(expert["experts"])
    awake, rested = state.view("awake"), state.view("rested")
    cues = read_lines(home / day["cues_file"])
    old, old_back = hold_back([tuple(cue["ids"]) for cue in cues if cue["kind"] == "old"], rng)
    rollouts.deliver((home / fast["delivery_file"]).read_bytes())

    def write(kind: Kind, teacher: Teacher, asked: list[Tokens], tokens: int) -> list[TaughtRow]:
        view = awake if teacher == "awake" else rested
        written = rollouts.sample(view, asked, tokens, spec.temperature, seed=rng.getrandbits(31))
        rows = [TaughtRow((*cue, *rest), len(cue), teacher, kind) for cue, rest in zip(asked, written, strict=True)]
        return [row for row in rows if len(row.ids) > row.start]

    asked = [tuple(cue["ids"]) for cue in cues if cue["kind"] == "day"]
    rows = write("day", "awake", spread(asked, spec.teacher_rows, rng), spec.completion_tokens)
    rows += write("old", "rested", spread(old, spec.teacher_rows, rng), spec.completion_tokens)
    documents = write("free", "rested", [(rollouts.beginning,)] * spec.free_run_rows, spec.free_run_tokens)
    rows += [row for row in documents if len(row.ids) > SHORTEST_DOCUMENT]
    held_out = reader.are_held_out([row.ids for row in rows])
    rows = [row for row, dropped in zip(rows, held_out, strict=True) if not dropped]
    free, free_back = hold_back([row for row in rows if row.kind == "free"], rng)
    kept = [row for row in rows if row.kind != "free"] + free
    counts = {kind: sum(row.kind == kind for row in kept) for kind in ("day", "old", "free")}
    if not counts["day"]:
        raise NothingToLearn(f"the awake self wrote nothing after the day's {len(asked)} cues that is not held out")
    write_rows(home / "corpus.jsonl", kept)
    write_rows(home / "held_back.jsonl", [TaughtRow(cue, len(cue), "rested", "old") for cue in old_back] + free_back)
    write_lines(
        home / "seeding_cues.jsonl", [cue for cue in cues if cue["kind"] == "day" or tuple(cue["ids"]) not in set(old_back)]
    )
    return {
        "corpus_file": "corpus.jsonl",
        "held_back_file": "held_back.jsonl",
        "cues_file": "seeding_cues.jsonl",
        "rows": counts,
        "held_back": {"old": len(old_back), "free": len(free_back)},
        "dropped_held_out": sum(held_out),
    }


def knowledge_seeding(
    job: NightJob, day: Outputs, fast: Outputs, teachers: Outputs, expert: Outputs, corpus: Outputs, rollouts: RolloutPool
) -> Outputs:
    """Train the open expert, and it alone, on what the teachers and the student itself write."""
    check_teachers(job, fast, teachers)
    home = Path(job.home)
    level, index = expert["writes"]
    result = learn(
        LearnRequest(
            task="seeding",
            run_name=names.learner_run(job.sleep, "seeding"),
            home=str(home),
            storage=str(home / "train"),
            version=job.parent,
            overlay=str(home / fast["tensors_file"]),
            experts=expert["experts"],
            writes=(level, index),
            rows=str(home / corpus["corpus_file"]),
            cues=str(home / corpus["cues_file"]),
            nights_before=day["nights_before"],
            held_out=job.held_out,
            rollouts=rollouts.names,
            engine=job.recipe.rollouts.engine,
            seed=job.seed,
            learner=job.recipe.learner,
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


def prune(job: NightJob, expert: Outputs) -> Outputs:
    """The expert is sealed, the fast level is masked and free again: the state of the candidate version."""
    state = MemoryState.parse(expert["experts"]).sealed(ExpertId(*expert["writes"])).pruned(FAST_LEVEL)
    assert_only_grown(version_state(Path(job.parent)), state)
    return {"experts": state.names(), "writes": expert["writes"]}


def assert_only_grown(parent: MemoryState, child: MemoryState) -> None:
    """Slow memory only grows: what was sealed in the parent is sealed in the child."""
    for where in parent.ids():
        if where.level >= FIRST_SLOW_LEVEL and parent[where] == "sealed" and child[where] != "sealed":
            raise AssertionError(f"expert {where} was sealed in the parent and is {child[where]} in the candidate")


def spread(cues: list[Tokens], count: int, rng: random.Random) -> list[Tokens]:
    """`count` cues, each as often as any other, give or take one; none of none."""
    if not cues:
        return []
    whole, rest = divmod(count, len(cues))
    return cues * whole + rng.sample(cues, rest)


def hold_back(items: Sequence[T], rng: random.Random) -> tuple[list[T], list[T]]:
    """The items without, and then, a random share of them, which holds each once; an only one stays."""
    unique = list(dict.fromkeys(items))
    back = set(rng.sample(unique, math.ceil(HELD_BACK * len(unique)))) if len(unique) > 1 else set()
    return [item for item in items if item not in back], [item for item in unique if item in back]
