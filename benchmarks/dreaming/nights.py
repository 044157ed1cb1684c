"""Whole nights at school, one after the other: what dreaming adds to a version, and what it does to what earlier nights and the base knew.

    both               every night consolidates the day and then dreams of it: the default order
    no_dreaming        consolidation alone
    no_consolidation   dreaming alone: the day is learned only as far as dreams of it are kept

A day is some passages, told once each and learned sentence by sentence. Asked is, in question forms that no night holds: what a passage
says (`said`), what follows from it (`follows`), of this night's passages and all earlier ones, and what the base knows. It is asked of the
published version, and, where a night dreams, of the memory just before it began to: so what dreaming costs the past is measured within
one night.

`python -m benchmarks.dreaming.nights REQUEST.json RECORD.json` lives one; `python -m benchmarks.dreaming` lives them all.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

import torch

from benchmarks.dreaming.rounds import PACK_TOKENS, common, weighed
from benchmarks.in_process import alone
from circadian.memory.graft import Grafted
from circadian.memory.tensors import write_tensors
from circadian.memory.tokenizer_files import load_tokenizer
from circadian.memory.version import found_version, load_version
from circadian.nursery.school import Lesson, School
from circadian.nursery.ship import SCHOOL
from circadian.nursery.train import accuracy
from circadian.nursery.world import Probe
from circadian.specs import Experience, MemorySpec, Message, NightJob, Recipe
from pipelines.consolidation import Memory
from pipelines.stages import Outputs

ROUNDS = 1
DREAMING: dict[str, Any] = weighed("validation") | {"reward": {"kind": "improved"}, "rounds": ROUNDS}
METHODS: dict[str, dict[str, Any]] = {
    "both": {"dreaming": DREAMING},
    "no_dreaming": {},
    "no_consolidation": {"dreaming": DREAMING, "consolidation": False},
}
MEMORY = MemorySpec(layers=(0, 1, 2, 3))
"""All layers: with the upper half of four, which is the default, the fast level learns much less of what it is told."""
FAST_LR = 0.03
"""Of the fast level; chosen, as the layers are, on a seed that is not reported."""
STEPS = 500
"""Of a transfer."""
GATE: dict[str, float] = {
    "min_agreement": 0.0,
    "min_dreamt": 0.0,
    **dict.fromkeys(("max_forgotten", "max_forgotten_night", "max_lost", "max_base_lost"), 1.0),
    **dict.fromkeys(("max_nll_rise", "max_median_nll_rise", "max_base_nll_rise", "max_drift_parent", "max_drift_base"), 100.0),
    "max_exposure": 1e9,
}
"""Every night is published, so that one that forgets is seen to forget."""


@dataclass(frozen=True)
class Request:
    """What is to be lived."""

    method: str
    seed: int
    nights: int
    passages: int
    """Of a day."""
    lr: float
    """Of the instances."""
    folder: str
    fast_lr: float = FAST_LR
    steps: int = STEPS


@dataclass
class Known:
    """Shares of what was asked that is answered; by night that told it."""

    said: list[float]
    follows: list[float]
    base: float


@dataclass
class Record:
    """What was measured; morning[i]: after night i, evening[i]: in night i before it dreamt."""

    request: dict[str, Any]
    founded: dict[str, Any] = field(default_factory=dict)
    morning: list[dict[str, Any]] = field(default_factory=list)
    evening: list[dict[str, Any] | None] = field(default_factory=list)
    dreams: list[dict[str, Any]] = field(default_factory=list)
    outcomes: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)


class Exam:
    """What is asked after every night."""

    def __init__(self, request: Request) -> None:
        self.school, self.tokenizer = School(0), load_tokenizer(SCHOOL)
        _, held_out = self.school.forms(request.seed)
        told = [
            lesson for lesson, _ in zip(self.school.lessons(request.seed), range(request.nights * request.passages), strict=False)
        ]
        self.days = [told[i * request.passages : (i + 1) * request.passages] for i in range(request.nights)]
        self.said = [[probe for lesson in day for probe in lesson.direct(held_out)] for day in self.days]
        self.follows = [[probe for lesson in day for probe in lesson.probes(held_out)] for day in self.days]

    @property
    def secret(self) -> tuple[str, ...]:
        return tuple(probe.question for probes in (*self.said, *self.follows) for probe in probes)

    def known(self, model: Grafted, nights: int) -> Known:
        """By a model, of the first so many nights."""

        def share(probes: list[Probe]) -> float:
            return round(accuracy(model, self.tokenizer, probes, view="rested"), 4)

        said, follows = (list(map(share, probes[:nights])) for probes in (self.said, self.follows))
        return Known(said, follows, share(self.school.base_probes()))


def live(request: Request) -> Record:
    """All the nights of a request."""
    from benchmarks.local_night import night_here  # DeepSpeed reads the environment when it is imported

    exam, root, record = Exam(request), Path(request.folder).resolve(), Record(asdict(request))
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)
    version = root / "v0"
    found_version(str(SCHOOL), None, MEMORY, version)
    record.founded = asdict(exam.known(load_version(version, torch.float32), request.nights))
    for i, day in enumerate(exam.days):
        job = _job(request, exam, root, version, i, day)
        seen: dict[str, Memory] = {}
        started = time.perf_counter()
        outcome = night_here(job, PACK_TOKENS, seen.__setitem__)
        record.seconds.append(round(time.perf_counter() - started, 1))
        record.outcomes.append(outcome["outcome"])
        version = Path(job.child) if outcome["outcome"] == "candidate" else version
        record.evening.append(asdict(exam.known(_heard(job, seen["before"]), i + 1)) if "before" in seen else None)
        record.morning.append(asdict(exam.known(load_version(version, torch.float32), i + 1)))
        record.dreams.append(_of_dreams(outcome))
        logging.getLogger("nights").warning("%s seed %s night %s: %s", request.method, request.seed, i, record.morning[-1])
    return record


def _job(request: Request, exam: Exam, root: Path, version: Path, i: int, day: list[Lesson]) -> NightJob:
    home = root / f"night-{i}"
    home.mkdir()
    told = [
        Experience(id=lesson.entity, messages=(Message(role="user", content=lesson.passage()),), source="human") for lesson in day
    ]
    (home / "experiences.jsonl").write_text("".join(one.model_dump_json() + "\n" for one in told))
    recipe = {
        "gate": GATE,
        "split": "sentences",
        "fast_learning": {"lr": request.fast_lr},
        "seeding": {"steps": request.steps},
    } | METHODS[request.method]
    if dreaming := recipe.get("dreaming"):
        recipe |= {"dreaming": common(request.lr) | dreaming | {"contexts": len(day)}}
    return NightJob(
        sleep=f"slp_{i}",
        deployment="school",
        seed=1000 * request.seed + i,
        parent=str(version),
        child=str(root / f"v{i + 1}"),
        home=str(home),
        experiences=str(home / "experiences.jsonl"),
        held_out=exam.secret,
        recipe=Recipe.model_validate(recipe),
    )


def _heard(job: NightJob, memory: Memory) -> Grafted:
    """The parent with what the night had written when it began to dream."""
    model = load_version(Path(job.parent), torch.float32)
    write_tensors(model.memory_layers, {name: tensor.float() for name, tensor in memory.tensors(job).items()})
    model.memory_state = memory.state
    return model


def _of_dreams(outcome: Outputs) -> dict[str, Any]:
    told = outcome["report"].get("dreaming", {})
    return {name: told.get(name) for name in ("tasks", "tried", "rewarded", "score", "undreamt", "reason")}


def main(asked: Path, told: Path) -> None:
    """Live, and say what was measured."""
    logging.disable(logging.INFO)
    torch.set_num_threads(1)
    with alone():
        record = live(Request(**json.loads(asked.read_text())))
    told.write_text(json.dumps(asdict(record)) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
