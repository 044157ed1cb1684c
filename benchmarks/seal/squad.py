"""Knowledge incorporation (protocol 1): passages of SQuAD, each learned by an instance of its own, then asked without them in view.

Everything here is a DreamingSpec; the stages are the product's. Numbers are SEAL's: of an instance rank 32, alpha 64, 1e-3, 10 epochs of
one sequence a step; of the dreamer rank 64, alpha 128, 3e-4, 2 epochs of 10 dreams a step; the best of a passage's dreams is learned.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.seal.data import Passage
from benchmarks.seal.engines import Engine
from benchmarks.seal.ground import Bar, Ground, Phase, Unfit
from benchmarks.seal.requests import Arm, SquadRequest
from benchmarks.seal.rounds import Scores, Side, World, selection
from benchmarks.seal.words import IMPLICATIONS, SQUAD, TOPIC
from circadian.dreaming.prompts import plain_ids, prompt_ids
from circadian.dreaming.tasks import Task
from circadian.memory.tokenizer_files import load_tokenizer
from circadian.specs.dreaming import TARGETS
from pipelines import dreaming as stages
from pipelines.dream_tasks import read_tasks
from pipelines.stages import Outputs, Stages, read_lines, write_lines

ROW_TOKENS = 2048
ANSWER_TOKENS = 64
INSTANCE: dict[str, Any] = {"rank": 32, "alpha": 64.0, "lr": 1e-3, "epochs": 10, "batch": 1, "targets": ("q_proj", "v_proj")}
DREAMER: dict[str, Any] = {"rank": 64, "alpha": 128.0, "lr": 3e-4, "epochs": 2, "batch": 10, "targets": TARGETS}


@dataclass(frozen=True)
class Squad(World):
    """read: the passages of each round; tested: those of the evaluation; tokens: of a dream."""

    ground: Ground
    request: SquadRequest
    engine: Engine
    read: Sequence[Sequence[Passage]]
    tested: Sequence[Passage]
    tokens: int
    bars: dict[Arm, Bar]

    @property
    def rounds(self) -> int:
        return self.request.rounds

    def phase(self, arm: Arm, side: Side) -> Phase:
        passages = self.tested if side == "tests" else [passage for round_ in self.read for passage in round_]
        count = len(self.tested) if side == "tests" else self.request.contexts
        spec = spec_of(self.request, passages, self.tokens) | selection(self.request, arm, side, self.request.dreams, 1)
        reward = spec["reward"] | ({"instances": 1} if side == "tests" else {})
        spec |= {"rounds": self.rounds, "contexts": count, "reward": reward}
        job = self.ground.job(f"{arm}/{side}", spec, max_row_tokens=min(ROW_TOKENS, self.ground.length))
        return Phase(self.ground.dreamer(job, self.engine), Stages(job), self.engine, self.bars[arm])

    def part(self, night: Phase, told: Outputs, number: int) -> Outputs:
        """No passage is in two rounds."""
        own = {f"task-{i}" for i in range(number * self.request.contexts, (number + 1) * self.request.contexts)}
        lines = [line for line in read_lines(night.dreamer.home / told["tasks_file"]) if line["task"]["name"] in own]
        file = f"tasks-{number}.jsonl"
        write_lines(night.dreamer.home / file, lines)
        return told | {"tasks_file": file, "tasks": len(lines)}

    def tried(self, phase: Phase, told: Outputs, awake: Outputs, name: str) -> Outputs:
        dreamer = phase.dreamer
        written = phase.run(f"write_{name}", lambda: stages.write(dreamer, told, awake, name))
        weighed = phase.run(f"weigh_{name}", lambda: stages.weigh(dreamer, told, written, name))
        return phase.run(f"try_{name}", lambda: stages.try_out(dreamer, told, written, weighed, name))

    def asked(self, phase: Phase, told: Outputs) -> Scores:
        return {self._id(task): [score] for task, score, _ in read_tasks(phase.dreamer, told)}

    def taught(self, phase: Phase, told: Outputs) -> Scores:
        return self._of_passages(phase, [task for task, _, _ in read_tasks(phase.dreamer, told)])

    def scored(self, phase: Phase, told: Outputs, tried: Outputs) -> Scores:
        """One dream of each passage; where nothing that can be learned was dreamt of it, what is left is the passage."""
        lines = read_lines(phase.dreamer.home / tried["tried_file"])
        found = {line["context"]: [line["score"] or 0.0] for line in lines}
        every = [task for task, _, _ in read_tasks(phase.dreamer, told)]
        silent = self._of_passages(phase, [task for task in every if task.name not in found])
        return {self._id(task): found[task.name] if task.name in found else silent[self._id(task)] for task in every}

    def _of_passages(self, phase: Phase, of: Sequence[Task]) -> Scores:
        """An instance that broke answers nothing."""
        dreamer, folder = phase.dreamer, phase.dreamer.home / "passages"
        if not of:
            return {}
        texts = [dreamer.context(task) for task in of]
        losses = dreamer.hands.tune(stages.model_of(dreamer), texts, dreamer.spec.instance, dreamer.job.seed, folder)
        whole = [i for i, own in enumerate(losses) if own]
        values = dict(zip(whole, stages.examined(dreamer, [of[i] for i in whole], folder, whole), strict=True))
        shutil.rmtree(folder, ignore_errors=True)
        return {self._id(task): [values.get(i, 0.0)] for i, task in enumerate(of)}

    def _id(self, task: Task) -> str:
        """Of a tested passage."""
        return self.tested[int(task.name.removeprefix("task-"))].id


def spec_of(request: SquadRequest, passages: Sequence[Passage], tokens: int) -> dict[str, Any]:
    """What all arms have in common, as a DreamingSpec."""
    return {
        "tasks": [task_of(passage, request.scorer) for passage in passages],
        "prompts": ("implications",),
        "words": SQUAD,
        "plain": request.plain,
        "tokens": tokens,
        "answer_tokens": ANSWER_TOKENS,
        "temperature": 1.0,
        "split": "lines",
        "lessons": "headed",
        "with_context": True,
        "instance": INSTANCE,
        "dreamer": DREAMER,
        "reward": {"kind": "highest", "against": "nothing", "instances": request.instances},
    }


def task_of(passage: Passage, scorer: str) -> dict[str, Any]:
    """As a TaskSpec."""
    return {
        "context": passage.text,
        "probes": [
            {"question": TOPIC.format(title=passage.title, question=one.question), "answers": [one.answer]}
            for one in passage.questions
        ],
        "scorer": scorer,
        "chat": False,
    }


def tokens_of(ground: Ground, request: SquadRequest, passages: Sequence[Passage]) -> int:
    """Of a dream: those that are wanted, or as many as the longest prompt leaves. Raises Unfit where it leaves none."""
    tokenizer, ids_of = load_tokenizer(ground.version), plain_ids if request.plain else prompt_ids
    longest = max(len(ids_of(tokenizer, IMPLICATIONS, context=passage.text)) for passage in passages)
    if longest >= ground.length:
        raise Unfit(f"a prompt takes {longest} tokens and --length allows {ground.length}; raise it, or choose another model")
    return min(request.tokens, ground.length - longest)
