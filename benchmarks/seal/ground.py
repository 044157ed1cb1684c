"""What the arms of a run share, and the sealed stages of one dreamer.

    RESULT.work/
      v0/                 the model with an empty memory
      <arm>/tests, night  each a night's home: experiences (none), stages/*.json, dreaming/...

A stage that is sealed is not done again (pipelines/stages.py), so a run that is broken off goes on within its round.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.progress import Progress, TaskID

from benchmarks.seal.engines import Engine
from benchmarks.seal.requests import Request
from circadian.experience import Reader
from circadian.files import write_whole
from circadian.memory.folder import read_record
from circadian.memory.version import found_version, load_tokenizer
from circadian.specs import MemorySpec, NightJob, Recipe
from pipelines.consolidation import Memory
from pipelines.dream_tasks import Dreamer, tasks
from pipelines.dreaming import label
from pipelines.stages import Outputs, Stages
from pipelines.wake import collect

EVENLY = {"width": 1e9}
"""A curriculum by which every context has the same chance; as many are drawn as there are."""


class Unfit(ValueError):
    """This model, data and options do not go together."""


@dataclass
class Bar:
    """How far an arm is."""

    progress: Progress
    title: str
    total: int
    id: TaskID = field(init=False)

    def __post_init__(self) -> None:
        self.id = self.progress.add_task(self.title, total=self.total)

    def begins(self, stage: str) -> None:
        self.progress.update(self.id, description=f"{self.title}: {stage}")

    def ends(self) -> None:
        self.progress.update(self.id, description=self.title, advance=1)


@dataclass
class Phase:
    """A dreamer with a home of its own, its stages sealed, and what they have spent."""

    dreamer: Dreamer
    stages: Stages
    engine: Engine
    bar: Bar
    passes: int = 0
    """Token passes of all its stages; 0 where nothing is metered."""
    seconds_each: dict[str, float | None] = field(default_factory=dict)
    """Of the latest round: of one dream written, scored, applied and evaluated."""

    def run(self, name: str, work: Callable[[], Outputs]) -> Outputs:
        self.bar.begins(name)
        outputs = self.stages.run(name, lambda: self._metered(work))
        self.passes += outputs["passes"]
        self.seconds_each |= outputs.get("seconds_each", {})
        self.bar.ends()
        return outputs

    def told(self) -> Outputs:
        """Its tasks, and where each stands. Raises Unfit where the model cannot read a single one."""
        day = self.run("collect", lambda: collect(self.dreamer.job))
        told = self.run("tasks", lambda: tasks(self.dreamer, day, label(self.dreamer)))
        if not told["tasks"]:
            raise Unfit("no context leaves room for an answer; raise --length, or choose a model that reads longer texts")
        return told

    def _metered(self, work: Callable[[], Outputs]) -> Outputs:
        meter = self.engine.meter
        if meter is None:
            return work() | {"passes": 0}
        before = meter.passes
        with meter.running():
            outputs = work()
        return outputs | {"passes": meter.passes - before}


@dataclass(frozen=True)
class Ground:
    """The model, and where it is worked with. length: tokens of a prompt and what follows it."""

    root: Path
    request: Request
    length: int
    places: dict[str, Any]

    @property
    def version(self) -> Path:
        return self.root / "v0"

    def job(self, name: str, dreaming: dict[str, Any], **recipe: Any) -> NightJob:
        """A night that only dreams."""
        home = self.root / name
        home.mkdir(parents=True, exist_ok=True)
        (home / "experiences.jsonl").touch()
        common = {"consolidation": False, "dreaming": {"curriculum": EVENLY, "pack_tokens": self.request.pack_tokens} | dreaming}
        return NightJob(
            sleep=f"slp_{name.replace('/', '_')}",
            deployment="seal",
            seed=self.request.seed,
            parent=str(self.version),
            child=str(home / "v1"),
            home=str(home),
            experiences=str(home / "experiences.jsonl"),
            recipe=Recipe.model_validate(self.places | common | recipe),
        )

    def dreamer(self, job: NightJob, engine: Engine) -> Dreamer:
        reader = Reader(load_tokenizer(self.version), job.held_out)
        return Dreamer(job, Memory.undisturbed(job), engine.rollouts, engine.hands, reader)


def founded(root: Path, model: str, revision: str | None) -> Path:
    """The folder of the model's version, which is made unless it is there. Raises Unfit where it is another model's."""
    version = root.resolve() / "v0"
    if not version.exists():
        root.mkdir(parents=True, exist_ok=True)
        found_version(model, revision, MemorySpec(), version)
    base = read_record(version).base
    named = str(Path(model).resolve()) if Path(model).is_dir() else model
    if (base.model, base.revision) != (named, revision):
        raise Unfit(f"{root} was begun with {base.model}; give this run another --out, or remove that folder")
    return version


def length_of(version: Path, wanted: int) -> int:
    """Tokens that the model can hold, up to those that are wanted."""
    return min(wanted, int(json.loads((version / "config.json").read_text()).get("max_position_embeddings", math.inf)))


def hand_over(awake: Outputs, night: Phase, tests: Phase) -> None:
    """The dreamer's adapter, to where it is tested."""
    if "dreamer_file" in awake:
        folder = Path(awake["dreamer_file"]).parent
        shutil.copytree(night.dreamer.home / folder, tests.dreamer.home / folder, dirs_exist_ok=True)


def write_result(path: Path, result: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, json.dumps(result, indent=1) + "\n")
