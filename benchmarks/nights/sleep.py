"""Sleep and what is left of it without one of its parts (arms.py): the pipeline's own stages and the learner's own loop, in one process.

Left out is what a benchmark of quality does not need: Ray, vLLM, a second process, and the gate's veto (every night is published, so that
an arm that forgets is seen to forget).
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, cast
from unittest.mock import patch

import torch
from safetensors.torch import save_file
from torch import Tensor

from actors.learn_request import LearnRequest, LearnResult
from benchmarks.in_process import learn
from benchmarks.local_engine import LocalEngine, LocalPool
from benchmarks.nights.arms import Arm
from benchmarks.nights.meter import metered
from circadian.memory.state import ExpertId, ViewName
from circadian.memory.tensors import expert_tensors
from circadian.memory.transfer import Transfer
from circadian.memory.version import found_version, load_version
from circadian.nursery.ship import WEIGHTS
from circadian.specs import Experience, NightJob
from pipelines import consolidation, wake
from pipelines.consolidation import Memory, Moved, dream_corpus, knowledge_seeding, planned, prune, snapshot_teacher
from pipelines.moves import Move
from pipelines.publish import publish
from pipelines.rollouts import RolloutPool
from pipelines.stages import Outputs
from pipelines.wake import collect

Chats = Sequence[Sequence[dict[str, str]]]


class Sleeper:
    """A deployment that lives through many nights in a folder."""

    def __init__(self, arm: Arm, lr: float | None, seed: int, root: Path, held_out: Sequence[str]) -> None:
        self.arm, self.seed, self.root, self.held_out, self.nights = arm, seed, root, tuple(held_out), 0
        shutil.rmtree(root, ignore_errors=True)
        root.mkdir(parents=True)
        self.version = root / "v0"
        found_version(str(WEIGHTS), None, arm.memory, self.version)
        self.recipe = arm.recipe(lr)
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
