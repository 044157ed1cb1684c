"""How ARC's dreams become work: a self-edit names what an instance learns of its puzzle, and how; the instance is asked in many ways.

Rows are what is learned: an item's question and answer as the model is asked, every token of it or the answer alone. Instances of equal
learning rate and epochs learn together.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from typing import Any

from benchmarks.seal.data import Puzzle
from benchmarks.seal.edits import BATCH, STEPS, UNTAUGHT, SelfEdit, edit_in
from benchmarks.seal.grids import text_of
from benchmarks.seal.items import Item, cells, items_of, left_out
from benchmarks.seal.votes import Query, queries, right
from circadian.dreaming.tasks import Task
from circadian.experience import Row
from circadian.specs.dreaming import AdapterSpec, ProbeSpec
from pipelines.dream_tasks import Dreamer
from pipelines.dreaming import label, model_of

WEIGHED = 8
"""Of a dream's items, drawn at random, whose gradient is the dream's."""
INSTANCE: dict[str, Any] = {
    "rank": 128,
    "alpha": 16.0,
    "batch": BATCH,
    "targets": ("q_proj", "v_proj", "gate_proj", "down_proj", "up_proj"),
}


@dataclass(frozen=True)
class Bounds:
    """Of the items that an instance learns, and of the ways in which a test input is asked."""

    items: int = 250
    queries: int = 64


@dataclass(frozen=True)
class Plan:
    """What an instance learns, and how."""

    rows: tuple[Row, ...]
    adapter: AdapterSpec


@dataclass(frozen=True)
class Trial:
    """An instance that is tried on a puzzle; without a plan it is the model as it is."""

    task: Task
    plan: Plan | None


@dataclass(frozen=True)
class Puzzler(Dreamer):
    """A dreamer whose contexts are puzzles, by the names of their tasks, and whose dreams are self-edits."""

    puzzles: Mapping[str, Puzzle] = field(default_factory=dict)
    bounds: Bounds = Bounds()
    known: dict[tuple[object, ...], tuple[Row, ...]] = field(default_factory=dict, compare=False)
    """Rows that were built before: many self-edits choose the same items."""

    def context(self, task: Task) -> list[Row]:
        """Every example asked, the others shown; only the answers are learned."""
        return self._rows(left_out(cells(self.puzzles[task.name].train), 1), whole=False)

    def lesson(self, task: Task, text: str, name: str) -> list[Row]:
        """A sample of what an instance would learn of a self-edit."""
        plan = self.plan(task, edit_in(text))
        rows = list(plan.rows) if plan else []
        return rows if len(rows) <= WEIGHED else Random(f"{self.job.seed}/{name}").sample(rows, WEIGHED)

    def plan(self, task: Task, edit: SelfEdit | None) -> Plan | None:
        """What is done about a self-edit; None: nothing."""
        if edit is None:
            return None
        whole = edit.strategy == "train_using_all_tokens"
        named = (task.name, edit.chosen, whole)
        if named not in self.known:
            rng = Random(f"{self.job.seed}/{task.name}/{edit.chosen}")
            items = items_of(cells(self.puzzles[task.name].train), edit.chosen, self.bounds.items, rng)
            self.known[named] = tuple(self._rows(items, whole))
        rows = self.known[named]
        if not rows or not 0 < edit.steps(len(rows)) <= STEPS:
            return None
        adapter = self.spec.instance.model_copy(update={"lr": edit.learning_rate, "epochs": edit.num_train_epochs})
        return Plan(rows, adapter)

    def untaught(self, task: Task) -> Plan | None:
        """Of who does not dream."""
        return self.plan(task, UNTAUGHT)

    def solved(self, trials: Sequence[Trial], name: str) -> list[bool | None]:
        """Whether all test inputs of its puzzle come out right; None where an instance broke."""
        folder = self.home / "instances" / name
        lent = self._tuned([trial.plan for trial in trials], folder)
        asked = [
            (i, n, query)
            for i, (trial, adapter) in enumerate(zip(trials, lent, strict=True))
            if adapter is not None
            for n, of_input in enumerate(self._queries(trial.task))
            for query in of_input
        ]
        self.rollouts.deliver(self.memory.delivery(self.job, label(self)))
        prompts = [self.asked("ask", question=query.item.question) for _, _, query in asked]
        answers = self.answers(prompts, seed=0, adapters=[lent[i] or "" for i, _, _ in asked])
        shutil.rmtree(folder, ignore_errors=True)
        said: dict[tuple[int, int], list[Any]] = {}
        for (i, n, query), answer in zip(asked, answers, strict=True):
            said.setdefault((i, n), []).append(query.back(answer))
        return [
            None if lent[i] is None else all(right(said.get((i, n), []), test) for n, test in enumerate(self._tests(trial.task)))
            for i, trial in enumerate(trials)
        ]

    def _tests(self, task: Task) -> Sequence[Any]:
        return self.puzzles[task.name].test

    def _queries(self, task: Task) -> list[list[Query]]:
        """The ways to ask for each test input; those whose prompt leaves no room for an answer are left out."""
        puzzle, rng = self.puzzles[task.name], Random(f"{self.job.seed}/{task.name}/queries")
        room = (self.job.recipe.rollouts.engine.max_model_len or 0) - self.spec.answer_tokens
        every = [queries(puzzle, test, self.bounds.queries, rng) for test in puzzle.test]
        return [[one for one in of if len(self.asked("ask", question=one.item.question)) <= room] for of in every]

    def _tuned(self, plans: Sequence[Plan | None], folder: Path) -> list[str | None]:
        """Of each plan the folder of its adapter, "" for none, None for one that broke; those alike in all but their rows together."""
        alike: dict[AdapterSpec, list[int]] = {}
        for i, plan in enumerate(plans):
            if plan:
                alike.setdefault(plan.adapter, []).append(i)
        lent: list[str | None] = [""] * len(plans)
        for number, (adapter, members) in enumerate(alike.items()):
            own = folder / str(number)
            texts = [plan.rows for i in members if (plan := plans[i])]
            losses = self.hands.tune(model_of(self), texts, adapter, self.job.seed, own)
            for place, (i, told) in enumerate(zip(members, losses, strict=True)):
                lent[i] = str(own / str(place)) if told else None
        return lent

    def _rows(self, items: Sequence[Item], whole: bool) -> list[Row]:
        """Items that are too long to be learned are left out. whole: every token is learned, not the answer alone."""
        probes = [ProbeSpec(question=item.question, answers=(text_of(item.answer),)) for item in items]
        rows = [row for probe in probes for row in self.exchange(probe) if len(row.ids) < self.job.recipe.max_row_tokens]
        return [replace(row, weight=(0.0, *[1.0] * (len(row.ids) - 1))) for row in rows] if whole else rows
