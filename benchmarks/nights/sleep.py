"""Sleep and what is left of it without one of its parts: the pipeline's own stages and the learner's own loop, in one process.

Left out is what a benchmark of quality does not need: Ray, vLLM, a second process, and the gate's veto (every night is published, so that
an arm that forgets is seen to forget).

    sleep          the whole objective: distillation and imitation, judged by the base's embeddings
    distillation   without imitation (alpha 1): the default recipe of the service
    lexical        without the semantic reward
    reused         without expansion: one expert for all nights, written on and on
    no_old_cues    without the cues of earlier nights
    literal        with the paper's one teacher, the awake self, for everything
    off_policy     without the student's own writing (lambda 0)
    still          nothing is written ahead: learning stands still while the student writes (like `distillation` in all else)
    one_expert     `distillation` without expansion
    more_rows      `distillation` with half as many rows more in a step: a quarter more token passes than any other method may spend

And by what the memory is made of, all with the default recipe, like `distillation`, which has two levels:

    all_layers     memory in all four layers of the nursery, at half the rank: as many weights as the default has in the upper two
    one_level      the fast level alone: it learns day after day and is never consolidated
    three_levels   the second level hands on to a third whenever its period of 8,192 tokens is over, about every fourth night
    full_level     a second level of four experts, of which two are merged every night once it is full
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast
from unittest.mock import patch

import torch
from safetensors.torch import save_file
from torch import Tensor

from actors.learn_request import LearnRequest, LearnResult
from benchmarks.in_process import learn
from benchmarks.local_engine import LocalEngine, LocalPool
from benchmarks.nights.meter import metered
from circadian.memory.state import ExpertId, ViewName
from circadian.memory.tensors import expert_tensors
from circadian.memory.transfer import Transfer
from circadian.memory.version import found_version, load_version
from circadian.nursery.ship import WEIGHTS
from circadian.specs import Experience, Level, MemorySpec, NightJob, Recipe
from pipelines import consolidation, wake
from pipelines.consolidation import Memory, Moved, dream_corpus, knowledge_seeding, planned, prune, snapshot_teacher
from pipelines.publish import publish
from pipelines.rollouts import RolloutPool
from pipelines.stages import Outputs
from pipelines.wake import Move, collect

IMITATION: dict[str, Any] = {"alpha": 0.8, "imitation": {"judge": {"kind": "embedding"}}}
Chats = Sequence[Sequence[dict[str, str]]]


TWO_LEVELS = MemorySpec()
FAST, SLOW = TWO_LEVELS.levels
THREE = (FAST, SLOW.model_copy(update={"experts": 6}), Level(period=65536, experts=6))
"""A second level that is emptied into a third."""
FOUR_PLACES = (FAST, SLOW.model_copy(update={"experts": 4}))
THIN = tuple(level.model_copy(update={"rank": level.rank // 2}) for level in (FAST, SLOW))


@dataclass(frozen=True)
class Arm:
    """One way to sleep."""

    seeding: dict[str, Any] = field(default_factory=dict)
    memory: MemorySpec = TWO_LEVELS
    when_full: str = "refuse"
    expands: bool = True
    consolidates: bool = True
    old_cues: bool = True
    literal: bool = False


ARMS: dict[str, Arm] = {
    "sleep": Arm(seeding=IMITATION),
    "distillation": Arm(),
    "lexical": Arm(seeding={"alpha": 0.8}),
    "reused": Arm(seeding=IMITATION, expands=False),
    "no_old_cues": Arm(seeding=IMITATION, old_cues=False),
    "literal": Arm(seeding=IMITATION, literal=True),
    "off_policy": Arm(seeding={"on_policy_share": 0.0}),
    "still": Arm(seeding={"ahead": False}),
    "one_expert": Arm(expands=False),
    "more_rows": Arm(seeding={"rows": 48}),
    "all_layers": Arm(memory=MemorySpec(levels=THIN, layers=(0, 1, 2, 3))),
    "one_level": Arm(consolidates=False),
    "three_levels": Arm(memory=MemorySpec(levels=THREE)),
    "full_level": Arm(memory=MemorySpec(levels=FOUR_PLACES), when_full="merge"),
}

WIDE = tuple(level.model_copy(update={"rank": 192}) for level in (FAST, SLOW))
UPPER_THREE = tuple(level.model_copy(update={"rank": 96}) for level in (FAST, SLOW))

TRIALS: dict[str, Arm] = {
    "trial_default": Arm(),
    "trial_more_old": Arm(seeding={"free_share": 0.25}),
    "trial_wide": Arm(memory=MemorySpec(levels=WIDE)),
    "trial_upper_three": Arm(memory=MemorySpec(levels=UPPER_THREE, layers=(1, 2, 3))),
    "trial_more_rows": Arm(seeding={"rows": 48}),
    "trial_larger_steps": Arm(seeding={"rows": 48, "steps": 200}),
    "trial_largest_steps": Arm(seeding={"rows": 64, "steps": 150}),
    "trial_smaller_steps": Arm(seeding={"rows": 24, "steps": 400, "refresh_steps": 67}),
    "trial_smallest_steps": Arm(seeding={"rows": 16, "steps": 600, "refresh_steps": 100}),
    "trial_less_of_its_own": Arm(seeding={"on_policy_share": 0.25}),
    "trial_imitate": Arm(seeding=IMITATION),
    "trial_imitate_lightly": Arm(seeding=IMITATION | {"alpha": 0.95}),
    "trial_imitate_in_pairs": Arm(seeding=IMITATION | {"imitation": {"judge": {"kind": "embedding"}, "group": 2}}),
    "trial_imitate_widely": Arm(seeding=IMITATION | {"student_rows": 1024}),
}
"""The default with one thing changed, then the whole objective (`sleep`) with one thing changed (benchmarks/nights/trials.py)."""


class Sleeper:
    """A deployment that lives through many nights in a folder."""

    def __init__(self, arm: Arm, lr: float | None, seed: int, root: Path, held_out: Sequence[str]) -> None:
        self.arm, self.seed, self.root, self.held_out, self.nights = arm, seed, root, tuple(held_out), 0
        shutil.rmtree(root, ignore_errors=True)
        root.mkdir(parents=True)
        self.version = root / "v0"
        found_version(str(WEIGHTS), None, arm.memory, self.version)
        seeding = arm.seeding | ({} if lr is None else {"lr": lr})
        self.recipe = Recipe.model_validate({"seeding": seeding, "when_full": arm.when_full})
        self.told: list[dict[str, Any]] = []
        self.view: ViewName = "rested" if arm.consolidates else "awake"
        self._wake()

    def logits(self, ids: Tensor) -> Tensor:
        """As it answers after the last night; ids [B, T] -> [B, T, V]."""
        return self.model(input_ids=ids, view=self.view).logits

    def night(self, chats: Chats) -> None:
        """A day of chats, and the night after it."""
        job = self._job(chats)
        day = collect(job)
        if not self.arm.old_cues:
            _forget_cues(job, day)
        engine = LocalEngine(self.version)
        metered(engine.model)
        pool = LocalPool(engine)

        with learning_here(engine, goes_on=not self.arm.expands and self.nights > 0):
            asleep = [Moved(Memory.at_dusk(job, wake.learn_fast_level(job, day)))]
            for move in day["moves"] if self.arm.consolidates else ():
                asleep.append(self._transfer(job, day, asleep[-1].memory, move, pool))
        publish(job, day, {"measured": {}}, asleep)
        self.told.append({moved.transfer.name: moved.seeded for moved in asleep if moved.transfer})
        self.version, self.nights = Path(job.child), self.nights + 1
        self._wake()

    def _transfer(self, job: NightJob, day: Outputs, memory: Memory, move: Move, pool: LocalPool) -> Moved:
        if self.arm.expands or not self.nights:
            transfer = planned(memory, move)
        else:
            transfer, memory = reuse(job, memory)
        if self.arm.literal:
            transfer = transfer.model_copy(update={"rested": transfer.awake})
        teachers = snapshot_teacher(job, memory)
        corpus = dream_corpus(job, day, memory, transfer, pool)
        seeded = knowledge_seeding(job, memory, teachers, transfer, corpus, cast(RolloutPool, pool))
        prune(job, memory, transfer)
        after = memory.moved(transfer, seeded["tensors_file"])
        if not self.arm.expands:  # what was in it before is in it still
            held = {transfer.into: memory.nights.get(transfer.into, ()) + after.nights[transfer.into]}
            after = replace(after, nights=after.nights | held)
        return Moved(after, transfer, corpus, seeded, teachers)

    def _job(self, chats: Chats) -> NightJob:
        home = (self.root / f"night-{self.nights}").resolve()
        home.mkdir()
        said = [Experience.model_validate({"id": str(i), "messages": chat, "source": "human"}) for i, chat in enumerate(chats)]
        (home / "experiences.jsonl").write_text("".join(experience.model_dump_json() + "\n" for experience in said))
        return NightJob(
            sleep=f"slp_{self.nights}",
            deployment="nursery",
            seed=1000 * self.seed + self.nights,
            parent=str(self.version),
            child=str(self.root / f"v{self.nights + 1}"),
            home=str(home),
            experiences=str(home / "experiences.jsonl"),
            held_out=self.held_out,
            recipe=self.recipe,
        )

    def _wake(self) -> None:
        self.model = load_version(self.version, torch.float32)
        heard = self.model.memory_state.view(self.view)
        for layer in self.model.memory_layers.values():
            layer.narrow(heard, heard)


@contextmanager
def learning_here(engine: LocalEngine, goes_on: bool = False) -> Iterator[None]:
    """What the pipeline asks of the cluster's learner is done in this process. goes_on: a slow expert is written on, not anew."""
    from actors import learn_loop  # DeepSpeed reads the environment when it is imported

    load = learn_loop.learning_model

    def here(request: LearnRequest) -> LearnResult:
        on = goes_on and request.task == "seeding"
        return learn(request.model_copy(update={"goes_on": True}) if on else request, engine)

    with (
        patch.object(wake, "learn", here),
        patch.object(consolidation, "learn", here),
        patch.object(learn_loop, "learning_model", lambda *asked: metered(load(*asked))),
    ):
        yield


def reuse(job: NightJob, memory: Memory) -> tuple[Transfer, Memory]:
    """The slow level's one expert learns on, from where it stands, and itself is the rested self that keeps the past."""
    where, home = ExpertId(1, 0), Path(job.home)
    held = expert_tensors(load_version(Path(job.parent)).memory_layers, [where])
    save_file(held, home / "reused.safetensors")
    state = memory.state.reopened(where)
    awake = memory.state.view("awake")
    rested = memory.state.view("rested")
    transfer = Transfer(
        name="level-1",
        experts=state.names(),
        into=(where.level, where.expert),
        awake=awake,
        rested=rested,
        student=rested,
        emptied=((0, 0),),
    )
    return transfer, Memory(memory.state, (*memory.overlays, "reused.safetensors"), memory.nights, memory.touched)


def _forget_cues(job: NightJob, day: Outputs) -> None:
    path = Path(job.home) / day["cues_file"]
    lines = [line for line in path.read_text().splitlines() if json.loads(line)["sleep"] == job.sleep]
    path.write_text("".join(line + "\n" for line in lines))
