"""Few-shot (protocol 2): puzzles of ARC, each learned by an instance as a dream says, then asked.

Dreams are written, weighed and learned from by the product's own stages; between them an instance is trained as its dream says, which no
DreamingSpec can. Numbers are SEAL's: of the dreamer rank 16, alpha 16, 5e-5, 8 epochs of 5 dreams a step.

The unit is the dream: `scores` are of each puzzle its trials, 1 where all its test inputs came out right.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks.seal.data import Puzzle
from benchmarks.seal.edits import edit_in, object_in
from benchmarks.seal.engines import Engine
from benchmarks.seal.grids import text_of
from benchmarks.seal.ground import Bar, Ground, Phase, Unfit
from benchmarks.seal.items import Item, cells, shown_text
from benchmarks.seal.puzzling import INSTANCE, Bounds, Puzzler, Trial
from benchmarks.seal.requests import ArcRequest, Arm
from benchmarks.seal.rounds import Scores, Side, World, selection
from benchmarks.seal.words import ARC, EDIT
from circadian.dreaming.prompts import plain_ids, prompt_ids
from circadian.dreaming.selection import CHANCE, TOP
from circadian.dreaming.tasks import Task
from circadian.memory.tokenizer_files import load_tokenizer
from pipelines import dreaming as stages
from pipelines.dream_tasks import read_tasks
from pipelines.dreaming import Dream
from pipelines.stages import Outputs, Stages, read_lines, write_lines

ROW_TOKENS = 8192
DREAMER: dict[str, Any] = INSTANCE | {"rank": 16, "alpha": 16.0, "lr": 5e-5, "epochs": 8, "batch": 5}
TEMPERATURE = 0.8


@dataclass(frozen=True)
class Arc(World):
    """read: the puzzles that the dreamer learns on; tested: those of the evaluation."""

    ground: Ground
    request: ArcRequest
    engine: Engine
    read: Sequence[Puzzle]
    tested: Sequence[Puzzle]
    bars: dict[Arm, Bar]

    @property
    def rounds(self) -> int:
        return self.request.rounds

    def phase(self, arm: Arm, side: Side) -> Phase:
        puzzles = self.tested if side == "tests" else self.read
        spec = spec_of(self.request, puzzles) | selection(self.request, arm, side, self.request.dreams, self.request.trials)
        spec |= {"rounds": self.rounds, "contexts": len(puzzles)}
        job = self.ground.job(f"{arm}/{side}", spec, max_row_tokens=min(ROW_TOKENS, self.ground.length))
        dreamer = Puzzler(
            **vars(self.ground.dreamer(job, self.engine)),
            puzzles={f"task-{i}": puzzle for i, puzzle in enumerate(puzzles)},
            bounds=Bounds(self.request.items, self.request.queries),
        )
        return Phase(dreamer, Stages(job), self.engine, self.bars[arm])

    def part(self, night: Phase, told: Outputs, number: int) -> Outputs:
        """Every round is about all puzzles."""
        del night, number
        return told

    def tried(self, phase: Phase, told: Outputs, awake: Outputs, name: str) -> Outputs:
        dreamer, attempts = puzzler(phase), self.request.attempts
        written = phase.run(f"write_{name}", lambda: write(dreamer, told, awake, name, attempts))
        weighed = phase.run(f"weigh_{name}", lambda: stages.weigh(dreamer, told, written, name))
        return phase.run(f"try_{name}", lambda: try_out(dreamer, told, written, weighed, name))

    def asked(self, phase: Phase, told: Outputs) -> Scores:
        """In context: all examples shown, the test input asked once."""
        return {self._id(task): [float(score == 1.0)] for task, score, _ in read_tasks(phase.dreamer, told)}

    def taught(self, phase: Phase, told: Outputs) -> Scores:
        dreamer = puzzler(phase)
        of = [task for task, _, _ in read_tasks(dreamer, told)]
        solved = dreamer.solved([Trial(task, dreamer.untaught(task)) for task in of], "passages")
        return {self._id(task): [float(bool(right))] for task, right in zip(of, solved, strict=True)}

    def scored(self, phase: Phase, told: Outputs, tried: Outputs) -> Scores:
        lines = read_lines(phase.dreamer.home / tried["tried_file"])
        return {
            self._id(task): [line["score"] or 0.0 for line in lines if line["context"] == task.name]
            for task, _, _ in read_tasks(phase.dreamer, told)
        }

    def _id(self, task: Task) -> str:
        """Of a tested puzzle."""
        return self.tested[int(task.name.removeprefix("task-"))].id


def puzzler(phase: Phase) -> Puzzler:
    assert isinstance(phase.dreamer, Puzzler), "this world makes no other"
    return phase.dreamer


def spec_of(request: ArcRequest, puzzles: Sequence[Puzzle]) -> dict[str, Any]:
    """What all arms have in common, as a DreamingSpec. An instance's rate and epochs are its dream's."""
    return {
        "tasks": [task_of(puzzle) for puzzle in puzzles],
        "prompts": ("free",),
        "words": ARC,
        "plain": request.plain,
        "tokens": request.tokens,
        "answer_tokens": request.answer_tokens,
        "temperature": TEMPERATURE,
        "instance": INSTANCE,
        "dreamer": DREAMER,
    }


def task_of(puzzle: Puzzle) -> dict[str, Any]:
    """As a TaskSpec: what is dreamt of are the examples, what is asked is each test input, all examples shown."""
    shown = tuple(cells(puzzle.train))
    items = [Item(shown, pair.input, pair.output) for pair in puzzle.test]
    probes = [{"question": item.question, "answers": [text_of(item.answer)]} for item in items]
    return {"context": shown_text(shown), "probes": probes, "scorer": "grid"}


def fitting(ground: Ground, request: ArcRequest, puzzles: Sequence[Puzzle]) -> list[Puzzle]:
    """Those of which the model can dream, and that it can be asked with all examples shown. Raises Unfit where there is none."""
    tokenizer, ids_of = load_tokenizer(ground.version), plain_ids if request.plain else prompt_ids

    def fits(puzzle: Puzzle) -> bool:
        task = task_of(puzzle)
        dreamt = len(ids_of(tokenizer, EDIT, context=task["context"])) + request.tokens
        asked = [len(ids_of(tokenizer, "{question}", question=probe["question"])) for probe in task["probes"]]
        return max(dreamt, max(asked) + request.answer_tokens) <= ground.length

    found = [puzzle for puzzle in puzzles if fits(puzzle)]
    if not found:
        raise Unfit(f"no puzzle leaves room for an answer in {ground.length} tokens; raise --length, or lower --answer-tokens")
    return found


def write(dreamer: Puzzler, told: Outputs, awake: Outputs, name: str, attempts: int) -> Outputs:
    """Dreams of every puzzle that can be read, written again for those that lack some; after the last attempt unreadable ones stand in."""
    count, seconds = dreamer.spec.dreams, Outputs()
    lines = read_lines(dreamer.home / told["tasks_file"])
    found: dict[str, list[Dream]] = {line["task"]["name"]: [] for line in lines}
    spare: dict[str, list[Dream]] = {task: [] for task in found}
    for attempt in range(attempts):
        lacking = [line for line in lines if len(found[line["task"]["name"]]) < count]
        if not lacking:
            break
        file = f"tasks-{name}-{attempt}.jsonl"
        write_lines(dreamer.home / file, lacking)
        written = stages.write(dreamer, told | {"tasks_file": file}, awake, str(int(name) * attempts + attempt))
        seconds |= written["seconds_each"]
        for one in stages.read_dreams(dreamer, written):
            (spare if object_in(one.text) is None else found)[one.context].append(one)
    dreams = [one for task in found for one in [*found[task], *spare[task]][:count]]
    file = f"dreaming/written-{name}.jsonl"
    write_lines(dreamer.home / file, map(asdict, dreams))
    return {
        "dreams_file": file,
        "dreams": len(dreams),
        "unreadable": sum(object_in(one.text) is None for one in dreams),
        "seconds_each": seconds,
    }


def try_out(dreamer: Puzzler, told: Outputs, written: Outputs, weighed: Outputs, name: str) -> Outputs:
    """The trials of every puzzle; one whose dream changes something, and comes out right, is rewarded."""
    known = {task.name: task for task, _, _ in read_tasks(dreamer, told)}
    selected = dreamer.spec.selection
    fates = {line["dream"]: line["fate"] for line in read_lines(dreamer.home / weighed["weighed_file"])}
    dreams = trials_of(stages.read_dreams(dreamer, written), fates, selected.top + selected.chance)
    alike: dict[tuple[str, str], Trial] = {}
    named: dict[str, tuple[str, str]] = {}
    for one in dreams:
        plan = dreamer.plan(known[one.context], edit_in(one.text))
        named[one.id] = (one.context, one.text if plan else "")
        alike.setdefault(named[one.id], Trial(known[one.context], plan))
    solved = dict(zip(alike, dreamer.solved(list(alike.values()), name), strict=True))
    lines: list[Outputs] = []
    for one in dreams:
        right, changes = solved[named[one.id]], alike[named[one.id]].plan is not None
        outcome = {"score": None if right is None else float(right), "changes": changes, "rewarded": bool(right) and changes}
        lines.append({"dream": one.id, "context": one.context, "kind": one.kind, "fate": fates.get(one.id), **outcome})
    file = f"dreaming/tried-{name}.jsonl"
    write_lines(dreamer.home / file, lines)
    scores = [line["score"] or 0.0 for line in lines]
    return {
        "tried_file": file,
        "dreams_file": written["dreams_file"],
        "tried": len(lines),
        "rewarded": sum(line["rewarded"] for line in lines),
        "broken": sum(line["score"] is None for line in lines),
        "unchanged": sum(not line["changes"] for line in lines),
        "score": sum(scores) / len(scores) if scores else None,
    }


def trials_of(dreams: Sequence[Dream], fates: dict[str, str], count: int) -> list[Dream]:
    """Of each puzzle `count` dreams: those that were chosen, and where these are fewer, others in their order. So one that says what
    another says, or changes nothing, is a trial too, as it is in SEAL, unless enough better ones were chosen."""
    order = sorted(dreams, key=lambda one: fates.get(one.id) not in (TOP, CHANCE))
    taken: Counter[str] = Counter()
    found = []
    for one in order:
        if taken[one.context] < count:
            taken[one.context] += 1
            found.append(one)
    return found
