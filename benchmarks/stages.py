"""Where the time of a night goes: `python -m benchmarks.stages [toy] [qwen3-0.6b]` writes benchmarks/results/stages.json.

The stages of a real night up to knowledge seeding, on a local Ray: a vLLM rollout worker, a DeepSpeed learner. Knowledge seeding is done
twice from the same corpus and by the same worker, once with the student writing ahead of the learner and once with learning standing
still meanwhile (SeedingSpec.ahead).

    toy           the nursery model, one day of the toy world
    qwen3-0.6b    a base of the shape of Qwen3-0.6B with random weights, memory where the default puts it (15, 19, 23, 27)

Few steps of each, too few to learn well. Rows a step, the student's rows a block and steps a block stand to each other as in the default
recipe, on which the shares depend.

Shares are of the loop of knowledge seeding, without the start of its processes: `learner` and `workers` run at the same time, each adds up
to one, and what stands still is `wait` and `idle`. Where a machine has no more cores than learner and worker need, generation beside
learning takes from learning what it gives: look at the seconds, too.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import sys
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import ray
import torch
from rich.console import Console
from transformers import Qwen3Config, Qwen3ForCausalLM

from actors import names
from benchmarks.page import DOCS, put
from circadian.memory.version import found_version
from circadian.nursery.ship import WEIGHTS
from circadian.nursery.text import build_tokenizer
from circadian.nursery.world import World
from circadian.phases import ASKED, LOOP
from circadian.specs import Experience, MemorySpec, Message, NightJob, Recipe
from pipelines.consolidation import Memory, dream_corpus, knowledge_seeding, planned, snapshot_teacher
from pipelines.rollouts import RolloutPool
from pipelines.stages import Outputs, Stages
from pipelines.wake import collect, learn_fast_level
from services.stack import OBJECT_STORE_BYTES, RAY_ENVIRONMENT

RESULT = Path(__file__).parent / "results" / "stages.json"
PAGE = DOCS / "decisions" / "0012-writing-ahead.md"
RUNS = Path("runs/bench-stages")
QWEN3_0_6B: dict[str, Any] = {
    "vocab_size": 151936,
    "hidden_size": 1024,
    "intermediate_size": 3072,
    "num_hidden_layers": 28,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "max_position_embeddings": 2048,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1_000_000.0},
    "tie_word_embeddings": True,
}
WAYS = {True: "ahead", False: "still"}
CPUS = 4
"""Logical: what a night asks for, not what the machine has."""


@dataclass(frozen=True)
class Shape:
    """A base and a night that is about right for it."""

    base: Path
    facts: int
    memory: MemorySpec
    recipe: dict[str, Any] = field(default_factory=dict)


def shapes() -> dict[str, Shape]:
    """By name."""
    toy = {
        "fast_learning": {"steps": 40},
        "seeding": {"steps": 60, "refresh_steps": 10, "student_rows": 50, "teacher_rows": 128, "free_run_rows": 128},
    }
    few = {"steps": 20, "refresh_steps": 5, "rows": 8, "student_rows": 8, "teacher_rows": 16, "free_run_rows": 16}
    large = {
        "fast_learning": {"steps": 2, "rows": 4},
        "seeding": {**few, "free_run_tokens": 32},
        "rollouts": {"engine": {"max_model_len": 256, "max_num_seqs": 32}},
    }
    return {
        "toy": Shape(WEIGHTS, 32, MemorySpec(), toy),
        "qwen3-0.6b": Shape(RUNS / "base", 8, MemorySpec(), large),
    }


def write_qwen3(folder: Path) -> None:
    """Random weights in bfloat16 of the real shape, with the nursery's tokenizer, whose few hundred tokens begin the vocabulary."""
    tokenizer = build_tokenizer(World(0))
    special = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    try:
        model = Qwen3ForCausalLM(Qwen3Config(**QWEN3_0_6B, **special, dtype="bfloat16"))
    finally:
        torch.set_default_dtype(torch.float32)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def make_job(name: str, shape: Shape) -> NightJob:
    """A night in a folder of its own, over one day of the toy world."""
    home = (RUNS / name).resolve()
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True)
    found_version(str(shape.base), None, shape.memory, home / "v0")
    day = next(World(0).days(shape.facts, 0))
    chats: list[tuple[Message, ...]] = [(Message(role="user", content=text),) for text in day.statements()]
    chats += [(Message(role="user", content=p.question), Message(role="assistant", content=p.answer)) for p in day.exchanges()]
    lines = [Experience(id=str(i), messages=chat, source="human").model_dump_json() for i, chat in enumerate(chats)]
    (home / "experiences.jsonl").write_text("\n".join(lines) + "\n")
    return NightJob(
        sleep=f"slp_{name.replace('.', '')}",
        deployment=name,
        parent=str(home / "v0"),
        child=str(home / "v1"),
        home=str(home),
        experiences=str(home / "experiences.jsonl"),
        recipe=Recipe.model_validate(shape.recipe),
    )


def seeding_job(job: NightJob, ahead: bool) -> NightJob:
    """The same night with its seeding done in one of the two ways, by a learner run of its own."""
    seeding = job.recipe.seeding.model_copy(update={"ahead": ahead})
    recipe = job.recipe.model_copy(update={"seeding": seeding})
    return job.model_copy(update={"sleep": f"{job.sleep}_{WAYS[ahead]}", "recipe": recipe})


def slept(name: str, shape: Shape, console: Console) -> dict[str, Any]:
    """The stages of one night, its seeding in both ways, and where the time went."""
    job, load = make_job(name, shape), psutil.getloadavg()[0]
    stages = Stages(job)
    day = stages.run("collect", lambda: collect(job))
    with RolloutPool(job) as rollouts:
        fast = stages.run("learn_fast_level", lambda: learn_fast_level(job, day))
        memory = Memory.at_dusk(job, fast)
        transfer = planned(memory, day["moves"][0])
        teachers = snapshot_teacher(job, memory)
        corpus = stages.run("dream_corpus", lambda: rollouts.timed(lambda: dream_corpus(job, day, memory, transfer, rollouts)))
        seeding = {}
        for ahead, way in WAYS.items():
            console.print(f"{name}: {way}")
            own = seeding_job(job, ahead)
            work = partial(knowledge_seeding, own, memory, teachers, transfer, corpus, rollouts)
            seeding[way] = told(stages.run(f"knowledge_seeding_{way}", work))
    return {
        "shape": name,
        "stages": stages.seconds(),
        "phases": stages.phases(),
        "seeding": seeding,
        "load_average": [round(load, 1), round(psutil.getloadavg()[0], 1)],
    }


def told(seeded: Outputs) -> dict[str, Any]:
    """Shares of the loop's seconds, and how old the rows were."""
    phases = seeded["phases"]
    loop = sum(phases[phase] for phase in LOOP)
    return {
        "loop_seconds": round(loop, 3),
        "learner": shares(phases, LOOP, loop),
        "workers": shares(phases, (*ASKED, "idle"), loop),
        "max_staleness_steps": seeded["max_staleness_steps"],
        "mean_staleness_steps": round(seeded["mean_staleness_steps"], 2),
        "final_loss": seeded["final_loss"],
    }


def shares(phases: dict[str, float], named: tuple[str, ...], loop: float) -> dict[str, float]:
    """Of the loop's seconds."""
    return {phase: round(phases[phase] / loop, 4) for phase in named}


def main(chosen: list[str]) -> None:
    console, known = Console(), shapes()
    os.environ.update({"RAY_worker_niceness": RAY_ENVIRONMENT["RAY_worker_niceness"]})
    ray.init(
        num_cpus=CPUS,
        include_dashboard=False,
        namespace=names.NAMESPACE,
        log_to_driver=False,
        object_store_memory=OBJECT_STORE_BYTES,
        _temp_dir=f"/tmp/cdn-bench-{os.getpid()}",  # sockets need a short path
    )
    try:
        for name in chosen:
            if name == "qwen3-0.6b" and not (known[name].base / "config.json").exists():
                write_qwen3(known[name].base)
            night = slept(name, known[name], console)
            console.print_json(json.dumps(night))
            keep(night)
    finally:
        ray.shutdown()


def keep(slept: dict[str, Any]) -> None:
    """In the results, in place of the night of that shape that was there."""
    nights = json.loads(RESULT.read_text())["nights"] if RESULT.exists() else []
    others = [night for night in nights if night["shape"] != slept["shape"]]
    result = {
        "command": "python -m benchmarks.stages",
        "machine": {
            "cores": psutil.cpu_count(),
            "memory_gib": round(psutil.virtual_memory().total / 2**30),
            "cpu": platform.machine(),
        },
        "nights": sorted([*others, slept], key=lambda night: list(shapes()).index(night["shape"])),
    }
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=2) + "\n")
    put(PAGE, "benchmarks.stages", tables(result))


def tables(result: dict[str, Any]) -> str:
    """What the page shows, as Markdown."""
    titles = [*LOOP, *ASKED, "idle"]
    lines = [f"| shape | | loop | {' | '.join(titles)} |", "|---|---|---|" + "---|" * len(titles)]
    for night in result["nights"]:
        for way, seeded in night["seeding"].items():
            cells = [f"{({**seeded['learner'], **seeded['workers']})[title]:.3f}" for title in titles]
            lines.append(f"| {night['shape']} | {way} | {seeded['loop_seconds']:.1f} s | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main(sys.argv[1:] or list(shapes()))
