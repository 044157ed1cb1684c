"""What tests of the learner's loop share: a place for checkpoints, and a student that writes on Hugging Face's model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from shutil import copytree

import torch

from actors.learn_engine import learning_model
from actors.learn_request import LearnRequest, LearnResult
from actors.replies import Read
from circadian.memory.delivery import receive
from circadian.memory.envelope import Receipt
from circadian.memory.graft import Grafted
from circadian.memory.state import ExpertId
from circadian.memory.tensors import expert_tensors
from circadian.memory.version import load_version


class Killed(Exception):
    """Stands for the end of the process."""


@dataclass
class Folders:
    """Checkpoints as folders; the process may end right after one was kept."""

    root: Path
    die_after: int | None = None
    kept: list[Path] = field(default_factory=list)

    @contextmanager
    def latest(self) -> Iterator[Path | None]:
        yield self.kept[-1] if self.kept else None

    def keep(self, part: Path, step: int, loss: float) -> None:
        self.kept.append(Path(copytree(part, self.root / f"step-{step}")))
        if len(self.kept) == self.die_after:
            raise Killed


class Student:
    """A rollout worker in this process: a second copy of the version that takes deliveries and samples."""

    def __init__(self, version: Path) -> None:
        self.model: Grafted = load_version(version, torch.float32)
        self.receipts: list[Receipt] = []
        self.views: set[tuple[float, ...]] = set()

    def deliver(self, payload: bytes) -> Receipt:
        receipt, self.model.memory_state = receive(self.model.memory_layers, payload)
        self.receipts.append(receipt)
        return receipt

    @torch.no_grad()
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
        self.views.add(tuple(view))
        mask, completions = torch.tensor([float(entry) for entry in view]), []
        for i, prompt in enumerate(prompt for prompt in prompts for _ in range(samples)):
            generator, ids = torch.Generator().manual_seed(seed + i), list(prompt)
            while len(ids) < len(prompt) + max_tokens and ids[-1] not in stop:
                logits = self.model(input_ids=torch.tensor([ids]), view=mask).logits[0, -1] / temperature
                ids.append(int(torch.multinomial(logits.softmax(-1), 1, generator=generator)))
            completions.append(ids[len(prompt) :])
        return completions

    @torch.no_grad()
    def read(self, view: Sequence[float], tokens: list[list[int]]) -> list[list[Read]]:
        rows = []
        for text in tokens:
            logprobs = self.model(input_ids=torch.tensor([text]), view=torch.tensor(view)).logits[0, :-1].log_softmax(-1)
            places = zip(text[1:], logprobs, strict=True)
            rows.append([Read(token, float(place[token]), int(place.argmax()) == token) for token, place in places])
        return rows


def with_student(request: LearnRequest, ahead: bool = True) -> LearnRequest:
    seeding = request.seeding.model_copy(update={"ahead": ahead})
    return request.model_copy(update={"rollouts": ("here",), "seeding": seeding})


def finished(result: LearnResult | None) -> LearnResult:
    assert result is not None
    return result


def start_tensors(request: LearnRequest) -> dict[str, torch.Tensor]:
    return expert_tensors(learning_model(request, torch.float32).memory_layers, [ExpertId(*request.writes)])
