"""A night's surroundings in this process: real stages, a real learner on real files, and Hugging Face's model where vLLM would write.

Every attempt at a night finds rollout workers that start anew as the parent version, and learner runs that go on from their last
checkpoint, as on a cluster. The night's process dies where a test says so.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from shutil import copytree
from types import SimpleNamespace

import pytest
import ray.train
import torch

from actors import learn_loop, learner
from actors.learn_engine import LearnEngine
from actors.learn_tasks import Share
from actors.learner import LearnerFailed, LearnRequest, LearnResult, Outcome
from actors.replies import Read
from actors.rollout import RolloutHandle
from circadian.events import EventLog
from circadian.memory.delivery import receive
from circadian.memory.envelope import Receipt
from circadian.memory.version import load_version
from circadian.specs import NightJob
from pipelines import consolidation, wake
from pipelines import night as nights
from pipelines.stages import Outputs

Tokens = Sequence[int]


class Killed(BaseException):
    """The end of the night's process; nothing in it can catch this."""


class Worker:
    """A rollout worker and the pool of this one worker: a second copy of the version."""

    names = ("here",)
    beginning = 1

    def __init__(self, version: Path) -> None:
        self.model = load_version(version, torch.float32)

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def timed(self, work: Callable[[], Outputs]) -> Outputs:
        return work()

    def deliver(self, payload: bytes) -> Receipt:
        receipt, self.model.memory_state = receive(self.model.memory_layers, payload)
        return receipt

    @torch.no_grad()
    def _logits(self, view: Sequence[float], ids: Tokens) -> torch.Tensor:
        return self.model(input_ids=torch.tensor([list(ids)]), view=tuple(view)).logits[0]

    def sample(
        self,
        view: Sequence[float],
        prompts: Sequence[Tokens],
        max_tokens: int,
        temperature: float,
        seed: int,
        samples: int = 1,
        stop: Sequence[int] = (),
    ) -> list[tuple[int, ...]]:
        written = []
        for i, prompt in enumerate(prompt for prompt in prompts for _ in range(samples)):
            generator, ids = torch.Generator().manual_seed(seed + i), list(prompt)
            while len(ids) < len(prompt) + max_tokens and ids[-1] not in stop:
                logits = self._logits(view, ids)[-1]
                drawn = torch.multinomial((logits / max(temperature, 1e-6)).softmax(-1), 1, generator=generator)
                ids.append(int(logits.argmax()) if temperature < 0.01 else int(drawn))
            written.append(tuple(ids[len(prompt) :]))
        return written

    def read(self, view: Sequence[float], texts: Sequence[Tokens]) -> list[list[Read]]:
        rows = []
        for text in texts:
            logprobs = self._logits(view, text)[:-1].log_softmax(-1)
            places = zip(text[1:], logprobs, strict=True)
            rows.append([Read(token, float(place[token]), int(place.argmax()) == token) for token, place in places])
        return rows


@dataclass
class Cluster:
    """The surroundings of nights."""

    die_before: tuple[str, int] | None = None
    """A learner's run, by the end of its name, and the step that the night's process does not live to take; the number of all steps
    is the moment when the run has ended and nobody knows yet. It dies once."""
    attempts: int = 0
    """Nights begun."""
    taken: int = 0
    """Steps of the run that is under way, in this attempt."""
    _run: str = ""
    _worker: Worker | None = None

    def night(self, job: NightJob) -> Outputs:
        """One attempt at a night."""
        self.attempts += 1
        return nights.night(job.model_copy(update={"attempt": self.attempts}))

    def pool(self, job: NightJob) -> Worker:
        self._worker = Worker(Path(job.parent))
        return self._worker

    def learn(self, request: LearnRequest) -> LearnResult:
        """`actors.learner.learn` without a cluster: the train loop of one process, its checkpoints where the run is stored."""
        self._run, self.taken = request.run_name, 0
        kept = Folders(Path(request.storage) / f"{request.run_name}-checkpoints")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(ray.train, "get_context", lambda: SimpleNamespace(get_world_rank=lambda: 0))
            patch.setattr(learner, "TrainCheckpoints", lambda: kept)
            patch.setattr(RolloutHandle, "attach", lambda name, engine: self._worker)
            config = {"request": request.model_dump_json(), "deadline": math.inf, "asked": time.time()}
            outcome = Outcome.model_validate_json(learner.learn_in_process(config))
        if outcome.learned is None:
            raise LearnerFailed(outcome.failed)
        self.live_or_die()
        return outcome.learned

    def live_or_die(self) -> None:
        """Before every step, and when all are taken."""
        if self.die_before is not None and self._run.endswith(self.die_before[0]) and self.taken == self.die_before[1]:
            self.die_before = None
            raise Killed(f"{self._run} at step {self.taken}")


def losses(job: NightJob) -> list[tuple[str, int, float]]:
    """Of every step of every run of a night, as its events tell: run, step, loss."""
    told = [event["data"] for event in EventLog(Path(job.home)).read() if event["type"] == "sleep.progress"]
    return [(data["run"], data["step"], data["loss"]) for data in told if isinstance(data, dict)]


@dataclass(frozen=True)
class Folders:
    """Checkpoints of one run as folders, the last of which is taken up again."""

    root: Path

    @contextmanager
    def latest(self) -> Iterator[Path | None]:
        kept = sorted(self.root.iterdir(), key=lambda path: int(path.name)) if self.root.exists() else []
        yield kept[-1] if kept else None

    def keep(self, part: Path, step: int, loss: float | None) -> None:
        copytree(part, self.root / str(step))


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch, process_group: None) -> Cluster:
    """What a night finds here instead of Ray."""
    here, take = Cluster(), LearnEngine.step

    def step(engine: LearnEngine, share: Share, lr: float) -> float:
        here.live_or_die()
        here.taken += 1
        return take(engine, share, lr)

    monkeypatch.setattr(LearnEngine, "step", step)
    monkeypatch.setattr(learn_loop, "PROGRESS_SECONDS", 0.0)  # every step is told
    monkeypatch.setattr(nights, "RolloutPool", here.pool)
    for module in (wake, consolidation):
        monkeypatch.setattr(module, "learn", here.learn)
    return here
