"""One method through all its nights, in a process of its own: `python -m benchmarks.nights.life REQUEST.json RECORD.json`."""

from __future__ import annotations

import json
import logging
import os
import random
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

os.environ["OMP_NUM_THREADS"] = "1"

import torch
from torch import Tensor
from transformers import Qwen3ForCausalLM

from benchmarks.in_process import alone
from benchmarks.nights.arms import ARMS, TRIALS
from benchmarks.nights.exam import Exam
from benchmarks.nights.meter import Meter
from circadian.experience import Reader, chat_ids
from circadian.nursery.ship import WEIGHTS
from circadian.nursery.world import Day, World
from circadian.specs import Experience

Chats = list[list[dict[str, str]]]
BASELINES = ("sft", "sft_replay", "sft_cues", "lora", "ewc", "opsd")


@dataclass(frozen=True)
class Request:
    """What is to be lived; budget: token passes that a baseline may spend a night, None where it decides itself; recipe: all that an arm of
    Sleep sleeps with (arms.py), None of a baseline."""

    method: str
    seed: int
    nights: int
    facts: int
    lr: float | None
    budget: int | None
    folder: str
    recipe: dict[str, Any] | None = None


@dataclass
class Record:
    """What was measured; recall[i][j]: of night j's facts, after night i."""

    request: dict[str, Any]
    nll_before: float
    open_book_before: float
    recall: list[list[float]] = field(default_factory=list)
    base: list[float] = field(default_factory=list)
    nll: list[float] = field(default_factory=list)
    open_book: list[float] = field(default_factory=list)
    passes: list[int] = field(default_factory=list)
    """Token passes of each night."""
    seconds: list[float] = field(default_factory=list)
    told: list[dict[str, Any]] = field(default_factory=list)


class Liver(Protocol):
    """A method under way."""

    def night(self, day: Day, chats: Chats, meter: Meter) -> None: ...
    def logits(self, ids: Tensor) -> Tensor: ...


def live(request: Request) -> Record:
    """All the nights of a request."""
    torch.set_num_threads(1)
    torch.manual_seed(request.seed)
    world = World(0)
    days = [day for _, day in zip(range(request.nights), world.days(request.facts, request.seed), strict=False)]
    exam, meter = Exam(world, days), Meter()
    method = _method(request, exam, [probe.question for day in days for probe in day.probes()])
    record = Record(asdict(request), *exam.text(method.logits))
    for i, day in enumerate(days):
        started, spent = time.perf_counter(), meter.passes
        with meter.running():
            method.night(day, _chats(day, 1000 * request.seed + i), meter)
        record.seconds.append(round(time.perf_counter() - started, 1))
        record.passes.append(meter.passes - spent)
        with torch.no_grad():
            record.recall.append([exam.recall(method.logits, j) for j in range(i + 1)])
            record.base.append(exam.base_accuracy(method.logits))
            nll, open_book = exam.text(method.logits)
        record.nll.append(nll)
        record.open_book.append(open_book)
        record.told = getattr(method, "told", [])
        _say(request, record)
    return record


def _chats(day: Day, seed: int) -> Chats:
    """Every fact in every statement form, and asked in every open form and answered, in random order."""
    chats = [[{"role": "user", "content": statement}] for statement in day.statements()]
    chats += [[{"role": "user", "content": p.question}, {"role": "assistant", "content": p.answer}] for p in day.exchanges()]
    random.Random(seed).shuffle(chats)
    return chats


def _method(request: Request, exam: Exam, held_out: list[str]) -> Liver:
    if request.method in BASELINES:
        return _baseline(request, exam)
    from benchmarks.nights.sleep import Sleeper  # DeepSpeed, which the baselines need not

    sleeper = Sleeper((ARMS | TRIALS)[request.method], request.lr, request.seed, Path(request.folder), held_out)
    return _Sleeping(sleeper.night, sleeper)


@dataclass
class _Sleeping:
    sleep: Callable[[Chats], None]
    sleeper: Any

    def night(self, day: Day, chats: Chats, meter: Meter) -> None:
        del day, meter
        self.sleep(chats)

    def logits(self, ids: Tensor) -> Tensor:
        return self.sleeper.logits(ids)

    @property
    def told(self) -> list[dict[str, Any]]:
        return self.sleeper.told


def _baseline(request: Request, exam: Exam) -> Liver:
    from benchmarks.nights import baselines

    base, tokenizer = Qwen3ForCausalLM.from_pretrained(WEIGHTS), exam.tokenizer
    assert request.lr is not None, "a baseline is told its learning rate"
    assert request.budget is not None, "and what it may spend"
    lr, budget = request.lr, request.budget
    edges = {"beginning": tokenizer.bos_token_id, "end": tokenizer.eos_token_id}
    build: dict[str, Callable[[], baselines.Method]] = {
        "sft": lambda: baselines.SFT(base, lr, request.seed),
        "sft_replay": lambda: baselines.Replay(base, lr, request.seed),
        "sft_cues": lambda: baselines.Cues(base, lr, request.seed, **edges),
        "lora": lambda: baselines.LoRA(base, lr, request.seed),
        "ewc": lambda: baselines.EWC(base, lr, request.seed, **edges),
        "opsd": lambda: baselines.OPSD(base, lr, request.seed, edges["end"]),
    }
    method, reader = build[request.method](), Reader(tokenizer)

    class Baseline:
        def night(self, day: Day, chats: Chats, meter: Meter) -> None:
            read = [reader.rows(Experience.model_validate({"id": "x", "messages": chat, "source": "human"})) for chat in chats]
            rows = [row for rows in read for row in rows]
            cues = [cue for row in rows for cue in row.questions()]
            told = [
                _told(tokenizer, fact.question(form), fact.statement(i % 4))
                for fact in day.facts
                for i, form in enumerate(day.open_forms)
            ]
            method.night(baselines.Lived(rows, cues, told), budget, meter)

        def logits(self, ids: Tensor) -> Tensor:
            return method.logits(ids)

    return Baseline()


def _told(tokenizer: Any, question: str, statement: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """A question, and the same after a statement that answers it, as the nursery reads passages."""
    asked, open_book = (
        chat_ids(tokenizer, [{"role": "user", "content": text}], answering=True) for text in (question, f"{statement} {question}")
    )
    return asked, open_book


def _say(request: Request, record: Record) -> None:
    last = record.recall[-1]
    text = f"{request.method} seed {request.seed} lr {request.lr} night {len(record.recall)}: recall {sum(last) / len(last):.3f}"
    text += f" of the day {last[-1]:.2f} base {record.base[-1]:.3f} nll {record.nll[-1] - record.nll_before:+.3f}"
    sys.stderr.write(f"{text} passes {record.passes[-1]} in {record.seconds[-1]:.0f} s\n")


def main(asked: Path, told: Path) -> None:
    """Live, and say what was measured."""
    logging.disable(logging.WARNING)
    request = Request(**json.loads(asked.read_text()))
    with alone():
        record = live(request)
    told.write_text(json.dumps(asdict(record)) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
