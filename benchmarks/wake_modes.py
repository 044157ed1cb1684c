"""At dusk or online: `python -m benchmarks.wake_modes 0 1 2` writes benchmarks/results/wake_modes.json.

The fast level of the nursery model learns a day of 32 facts, in one process, with the objective and the steps that the service uses; no
vLLM, no Ray, nothing of the night behind it. A quality table, not a speed claim.

    at_dusk             the whole day at once, fast_learning.steps, as `learn_fast_level` does
    online              a chunk whenever level 0's period is full, with replay as by default; then what dusk makes of it
    online, replay r    the same with another share of earlier rows

The day is told in two orders: as in the demo (all statements, then all corrected answers), and fact by fact, where what a chunk tells is
not told again by a later one.

after each chunk, and after dusk:
recall     share of the whole day's facts, asked in forms that the day did not have, answered with the right word
told       the same of facts that were told in chunks so far
first      the same of facts that were told in the first chunk: are they overwritten?
base       share of the facts known from pretraining that are answered rightly
nll        nats a token on documents that the model has never seen
"""

from __future__ import annotations

import json
import platform
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import psutil
import torch
from rich.console import Console

from actors.learn_chunk import FastLevel
from benchmarks.page import DOCS, put
from circadian.experience import Reader, Row, experience_ids
from circadian.memory.tensors import write_tensors
from circadian.memory.tokenizer_files import load_tokenizer
from circadian.memory.version import found_version
from circadian.nursery.ship import WEIGHTS
from circadian.nursery.train import accuracy
from circadian.nursery.world import Day, Probe, World
from circadian.objectives.rows import pad
from circadian.specs import Experience, FastLearningSpec, MemorySpec, Message, OnlineLearningSpec
from services.measure import held_out_documents
from services.online_plan import Met, next_chunk

RESULT = Path(__file__).parent / "results" / "wake_modes.json"
PAGE = DOCS / "decisions" / "0013-online-wake.md"
FACTS = 32
ORDERS = ("as in the demo", "fact by fact")
REPLAYS = (0.0,)
"""Beside the default."""
MEASURED = ("recall", "told", "first", "base", "nll")
Numbers = dict[str, Any]


class School:
    """One day, and how what was learned of it is measured."""

    def __init__(self, folder: Path, seed: int, order: str) -> None:
        self.world = World(0)
        self.day: Day = next(self.world.days(FACTS, seed))
        self.level = FastLevel(folder)
        self.tokenizer = load_tokenizer(folder)
        reader = Reader(self.tokenizer)
        self.told = experiences(self.day, order)
        self.rows = {experience.id: reader.rows(experience) for experience in self.told}
        self.met = [Met(e.id, len(experience_ids(self.tokenizer, e))) for e in self.told]
        self.documents = held_out_documents(self.world)

    def rows_of(self, ids: Sequence[str]) -> list[Row]:
        return [row for id in ids for row in self.rows[id]]

    def probes(self, ids: Sequence[str]) -> list[Probe]:
        """The test of the facts that these experiences tell."""
        said = " ".join(message.content for e in self.told if e.id in set(ids) for message in e.messages).split()
        facts = [fact for fact in self.day.facts if fact.entity in said and fact.value in said]
        return Day(tuple(facts), self.day.open_forms, self.day.held_out_forms).probes()

    def measure(self, expert: dict[str, torch.Tensor], told: Sequence[str], first: Sequence[str]) -> Numbers:
        model = self.level.model
        write_tensors(model.memory_layers, expert)
        heard = model.memory_state.view("awake")
        for layer in model.memory_layers.values():
            layer.narrow(heard, heard)  # experts that nobody hears take most of the time
        asked = {
            "recall": self.day.probes(),
            "told": self.probes(told),
            "first": self.probes(first),
            "base": self.world.base_probes(),
        }
        numbers = {name: round(accuracy(model, self.tokenizer, probes, view="awake"), 4) for name, probes in asked.items()}
        return numbers | {"nll": round(self.nll(), 4)}

    @torch.no_grad()
    def nll(self) -> float:
        nats = tokens = 0.0
        for start in range(0, len(self.documents), 16):
            documents = [self.tokenizer.convert_tokens_to_ids(words) for words in self.documents[start : start + 16]]
            ids, learned = pad(documents), pad([[1.0] * len(document) for document in documents])[:, 1:]
            logprobs = self.level.model(input_ids=ids, view="awake").logits[:, :-1].log_softmax(-1)
            nats -= float((logprobs.gather(-1, ids[:, 1:, None])[..., 0] * learned).sum())
            tokens += float(learned.sum())
        return nats / tokens


def experiences(day: Day, order: str) -> list[Experience]:
    """What the demo's users say: statements, and questions with corrected answers."""
    statements, exchanges = len(day.statements()) // FACTS, len(day.exchanges()) // FACTS
    told, asked = [(statement,) for statement in day.statements()], [(p.question, p.answer) for p in day.exchanges()]
    chats: list[tuple[str, ...]] = [*told, *asked]
    if order == "fact by fact":
        chats = [
            chat
            for i in range(FACTS)
            for chat in (*told[i * statements : (i + 1) * statements], *asked[i * exchanges : (i + 1) * exchanges])
        ]
    roles: tuple[Literal["user", "assistant"], ...] = ("user", "assistant")
    return [
        Experience(id=f"{i}", source="human", messages=tuple(Message(role=r, content=c) for r, c in zip(roles, chat, strict=False)))
        for i, chat in enumerate(chats)
    ]


def at_dusk(school: School, spec: FastLearningSpec) -> Numbers:
    """The whole day as one chunk."""
    everything = [met.id for met in school.met]
    whole = OnlineLearningSpec(steps=spec.steps, rows=spec.rows, lr=spec.lr, max_grad_norm=spec.max_grad_norm)
    started = time.perf_counter()
    expert, _, _ = school.level.learn(school.level.fresh(0), school.rows_of(everything), [], whole, 1)
    return {"dusk": school.measure(expert, everything, everything), "seconds": round(time.perf_counter() - started, 1)}


def online(school: School, period: int, spec: OnlineLearningSpec) -> Numbers:
    """Chunk by chunk, then dusk over the whole day."""
    expert, waiting = school.level.fresh(spec.seed), list(school.met)
    told: list[str] = []
    first: list[str] = []
    chunks: list[Numbers] = []
    while ids := next_chunk(waiting, period):
        started = time.perf_counter()
        expert, _, _ = school.level.learn(expert, school.rows_of(ids), school.rows_of(told), spec, len(chunks) + 1)
        seconds = round(time.perf_counter() - started, 1)
        waiting, told, first = waiting[len(ids) :], [*told, *ids], first or list(ids)
        chunks.append(school.measure(expert, told, first) | {"experiences": len(ids), "seconds": seconds})
    everything = [met.id for met in school.met]
    dusk = spec.model_copy(update={"steps": spec.dusk_steps, "replay": 0.0})
    expert, _, _ = school.level.learn(expert, school.rows_of(everything), [], dusk, 0)
    return {"chunks": chunks, "not_learned_online": len(waiting), "dusk": school.measure(expert, everything, first)}


def arms(folder: Path, seed: int, order: str, console: Console) -> Numbers:
    school, period, usual = School(folder, seed, order), MemorySpec().levels[0].period, OnlineLearningSpec()
    found: Numbers = {"before": school.measure(school.level.fresh(0), [m.id for m in school.met], [m.id for m in school.met])}
    found["at_dusk"] = at_dusk(school, FastLearningSpec())
    found["online"] = online(school, period, usual)
    for replay in REPLAYS:
        found[f"online, replay {replay:g}"] = online(school, period, usual.model_copy(update={"replay": replay}))
    for name, numbers in found.items():
        console.print(
            f"seed {seed}, {order}: {name}", *numbers.get("chunks", []), numbers.get("dusk", numbers), sep="\n  ", highlight=False
        )
    return found


def means(runs: Sequence[Numbers]) -> Numbers:
    """Over seeds, of each arm: after the last chunk before dusk, and after dusk."""
    ends = {name: [("dusk", [run[name]["dusk"] for run in runs])] for name in runs[0] if name != "before"}
    for name, moments in ends.items():
        if "chunks" in runs[0][name]:
            moments.insert(0, ("awake", [run[name]["chunks"][-1] for run in runs]))
    return {
        name: {moment: {m: round(sum(run[m] for run in found) / len(found), 4) for m in MEASURED} for moment, found in moments}
        for name, moments in ends.items()
    }


def result(seeds: dict[str, Numbers]) -> Numbers:
    """What the file holds after these seeds."""
    return {
        "command": f"python -m benchmarks.wake_modes {' '.join(seeds)}",
        "machine": {"cores": psutil.cpu_count(), "cpu": platform.machine()},
        "period": MemorySpec().levels[0].period,
        "online_learning": OnlineLearningSpec().model_dump(),
        "fast_learning": FastLearningSpec().model_dump(),
        "mean": {order: means([orders[order] for orders in seeds.values()]) for order in ORDERS},
        "seeds": seeds,
    }


def main(seeds: list[int]) -> None:
    torch.set_num_threads(1)
    console, found = Console(soft_wrap=True), {}
    with tempfile.TemporaryDirectory() as home:
        folder = Path(home) / "v0"
        found_version(str(WEIGHTS), None, MemorySpec(), folder)
        for seed in seeds:
            found[str(seed)] = {order: arms(folder, seed, order, console) for order in ORDERS}
            RESULT.parent.mkdir(exist_ok=True)
            told = result(found)
            RESULT.write_text(json.dumps(told, indent=2) + "\n")
            put(PAGE, "benchmarks.wake_modes", tables(told))


def tables(told: Numbers) -> str:
    """As Markdown: awake after the day's last full chunk, and at dusk."""
    titles = ("day told", "wake", "recall awake: of the day", "of what was learned", "of the first chunk", "base", "nats")
    lines = [f"| {' | '.join((*titles, 'recall / base / nats at dusk'))} |", "|---" * (len(titles) + 1) + "|"]
    for order, arms_ in told["mean"].items():
        for name, moments in arms_.items():
            awake, dusk = moments.get("awake"), moments["dusk"]
            cells = [f"{awake[m]:.3f}" for m in MEASURED] if awake else ["as before the day", "", "", "", ""]
            cells.append(f"{dusk['recall']:.3f} / {dusk['base']:.3f} / {dusk['nll']:.3f}")
            lines.append(f"| {order} | {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main([int(seed) for seed in sys.argv[1:]] or [0, 1, 2])
