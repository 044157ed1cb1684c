"""A night in one process: the pipeline's own stages, the learner's own loop, and Hugging Face's generation in the rollout workers' place.

What is left out is what a benchmark of quality does not need: Ray, vLLM, and a second process.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.distributed as dist

from actors.learn_request import LearnRequest, LearnResult
from actors.replies import Read
from actors.teaching import LectureRequest, give
from circadian.memory.delivery import Receipt, receive
from circadian.memory.version import beginning_token, load_tokenizer, load_version
from circadian.specs import LearnerSpec, NightJob
from circadian.teachers.lecture import Lecture
from circadian.teachers.other import write
from pipelines.consolidation import Memory, Moved, dream_corpus, planned, prune, seeding_request, snapshot_teacher
from pipelines.gate import gate
from pipelines.other_teachers import lectures, taught_in
from pipelines.publish import publish
from pipelines.stages import Outputs
from pipelines.wake import collect

os.environ |= {"DS_ACCELERATOR": "cpu", "LOCAL_RANK": "0", "TORCH_FORCE_WEIGHTS_ONLY_LOAD": "1"}


class Writer:
    """A version in this process that takes deliveries and writes in any view: the night's sampler, and the learner's rollout worker."""

    def __init__(self, version: Path) -> None:
        self.model = load_version(version, torch.float32)
        tokenizer = load_tokenizer(version)
        self.end, self.beginning = tokenizer.eos_token_id, beginning_token(tokenizer)

    def deliver(self, payload: bytes) -> Receipt:
        receipt, self.model.memory_state = receive(self.model.memory_layers, payload)
        return receipt

    def complete(
        self, view: Sequence[float], prompts: Sequence[Sequence[int]], tokens: int, temperature: float, seed: int
    ) -> list[tuple[int, ...]]:
        mask = torch.tensor([float(heard) for heard in view])
        return write(self.model, [tuple(p) for p in prompts], tokens, temperature, seed, (self.end,), view=mask) if prompts else []

    @torch.no_grad()
    def read(self, view: Sequence[float], texts: Sequence[Sequence[int]]) -> list[list[Read]]:
        rows = []
        for text in texts:
            logits = self.model(input_ids=torch.tensor([list(text)]), view=torch.tensor([float(heard) for heard in view])).logits
            places = zip(text[1:], logits[0, :-1].log_softmax(-1), strict=True)
            rows.append([Read(token, float(place[token]), int(place.argmax()) == token) for token, place in places])
        return rows


class Sampler(Writer):
    """As a night asks (pipelines.rollouts.Sampler)."""

    def sample(
        self, view: Sequence[bool], prompts: Sequence[tuple[int, ...]], max_tokens: int, temperature: float, seed: int
    ) -> list[tuple[int, ...]]:
        return self.complete(view, prompts, max_tokens, temperature, seed)


class Student(Writer):
    """As the learner asks (actors.learn_student.Rollouts)."""

    def sample(
        self,
        view: Sequence[float],
        prompts: list[list[int]],
        *,
        samples: int,
        max_tokens: int,
        temperature: float,
        seed: int,
        stop: Sequence[int],
    ) -> list[list[int]]:
        del stop  # the end of a text, which is where `complete` stops
        repeated = [prompt for prompt in prompts for _ in range(samples)]
        return [list(tokens) for tokens in self.complete(view, repeated, max_tokens, temperature, seed)]


class NoCheckpoints:
    """A run that is broken off is begun again."""

    @contextmanager
    def latest(self) -> Iterator[Path | None]:
        yield None

    def keep(self, part: Path, step: int, loss: float | None) -> None:
        del part, step, loss


@contextmanager
def alone() -> Iterator[None]:
    """A process group of one."""
    with tempfile.TemporaryDirectory() as folder:
        dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=0, world_size=1)
        try:
            yield
        finally:
            dist.destroy_process_group()


def learn(request: LearnRequest, version: Path) -> LearnResult:
    """The learner's loop, in this process."""
    from actors.learn_loop import learn_loop  # DeepSpeed reads the environment when it is imported

    result = learn_loop(request, NoCheckpoints(), [Student(version)])
    assert result is not None, "this process is the first"
    return result


def seed_from_others(job: NightJob) -> Outputs:
    """A night without experiences, of other teachers alone: published if the gate passes. Returns the outcome, and what was said."""
    day = collect(job)
    sampler, said = Sampler(Path(job.parent)), lectures(job, _here)
    memory = Memory.undisturbed(job)
    (move,) = day["moves"]
    transfer, teachers = planned(memory, move), snapshot_teacher(job, memory)
    corpus = dream_corpus(job, day, memory, transfer, sampler, said)
    result = learn(seeding_request(job, memory, transfer, corpus, ("here",), said), Path(job.parent))
    seeded: Outputs = {"tensors_file": str(Path(result.tensors).relative_to(Path(job.home).resolve())), "seconds": result.seconds}
    prune(job, memory, transfer)
    after = memory.moved(transfer, seeded["tensors_file"], (taught_in(job.sleep),))
    asleep = [Moved(memory), Moved(after, transfer, corpus, seeded, teachers, said)]
    verdict = gate(job, day, asleep, sampler)
    publish(job, day, verdict, asleep)  # also where the gate says no: a benchmark shows the losing rows
    loss = {"first": result.first_loss, "final": result.final_loss}
    return {"told": said["told"], "verdict": verdict, "rows": corpus["rows"], "loss": loss, "seconds": round(result.seconds, 1)}


def _here(request: LectureRequest, learner: LearnerSpec) -> tuple[Lecture, str]:
    del learner
    return give(request)
