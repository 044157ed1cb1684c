"""Two small teachers and a larger student: `python -m benchmarks.seeding 0 1 2` writes benchmarks/results/seeding.json.

Each teacher knows FACTS facts that nobody else knows, and nothing else of the world; the student is the nursery model, which knows none
of them. In one night without experiences it learns from both. Asked in question forms that no cue, no prompt and no row of the night
contains:

    ratio    what the student answers rightly of a teacher's facts, against what the teacher does
    kept     the same for the 384 facts that the student knew before, against before
    nll      mean nats a token on documents that nobody has seen, before and after

Arms: `same` tokenizer (full divergence), `other` tokenizer (imitation, and the teacher's text learned as text), `other, imitation alone`
(the paper's objective without its distillation), `same, no rested self` (nothing keeps what was known: the control).
"""

from __future__ import annotations

import json
import logging
import platform
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from benchmarks.in_process import alone, seed_from_others
from benchmarks.page import DOCS, put
from benchmarks.specialists import FACTS, Speech, lessons_of, specialist
from circadian.experience import chat_ids
from circadian.memory.tokenizer_files import load_tokenizer
from circadian.memory.version import found_version, load_version
from circadian.nursery.ship import WEIGHTS
from circadian.nursery.world import Day, Probe, World
from circadian.specs import MemorySpec, NightJob, Recipe, TeacherSpec
from circadian.teachers.other import load_other, write
from services.measure import held_out_documents

log = logging.getLogger(__name__)
ROOT = Path("runs/bench-seeding")
RESULT = Path(__file__).parent / "results" / "seeding.json"
PAGE = DOCS / "decisions" / "0014-other-teachers.md"
ANSWER_TOKENS = 5
"""Longest answer, by either tokenizer, with its end."""
ARMS: dict[str, tuple[Speech, dict[str, Any]]] = {
    "same": ("same", {}),
    "other": ("other", {}),
    "other, imitation alone": ("other", {"told": 0.0}),
    "same, no rested self": ("same", {"old_share": 0.0, "free_share": 0.0}),
}
SAID = {
    "same": "same tokenizer, full divergence",
    "other": "another tokenizer, imitation and told",
    "other, imitation alone": "another tokenizer, imitation alone",
    "same, no rested self": "same tokenizer, no rested self",
}


def right(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, probes: Sequence[Probe], **forward: object) -> float:
    """Share of probes that are answered, greedily, with the right word and nothing else."""
    prompts = [chat_ids(tokenizer, [{"role": "user", "content": probe.question}], answering=True) for probe in probes]
    written = write(model, prompts, ANSWER_TOKENS, 0.0, 0, (tokenizer.eos_token_id,), **forward)
    said = [str(tokenizer.decode(list(ids), skip_special_tokens=True)).strip() for ids in written]
    return sum(answer == probe.answer for answer, probe in zip(said, probes, strict=True)) / len(probes)


@torch.no_grad()
def nll(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, world: World, **forward: object) -> float:
    """Nats a token on held-out documents."""
    nats = tokens = 0.0
    for words in held_out_documents(world):
        ids = torch.tensor([tokenizer.convert_tokens_to_ids(words)])
        logprobs = model(input_ids=ids, **forward).logits[0, :-1].log_softmax(-1)
        nats -= float(logprobs.gather(-1, ids[0, 1:, None]).sum())
        tokens += ids.shape[1] - 1
    return nats / tokens


def measure(version: Path, days: Sequence[Day], world: World) -> dict[str, Any]:
    """What a version knows: of each teacher's facts, of the base's, of text."""
    model, tokenizer = load_version(version, torch.float32), load_tokenizer(version)
    return {
        "facts": [right(model, tokenizer, day.probes(), view="rested") for day in days],
        "base": right(model, tokenizer, world.base_probes(), view="rested"),
        "nll": nll(model, tokenizer, world, view="rested"),
    }


def run(arm: str, seed: int, world: World, version: Path) -> dict[str, Any]:
    """One night of one arm."""
    speech, seeding = ARMS[arm]
    days = lessons_of(world, seed)
    folders = [specialist(ROOT / "teachers", world, day, seed, i, speech) for i, day in enumerate(days)]
    home = (ROOT / "nights" / f"{arm.replace(', ', '-').replace(' ', '-')}-{seed}").resolve()
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True)
    (home / "experiences.jsonl").write_text("")
    cues = [tuple(exchange.question for exchange in day.exchanges()) for day in days]
    job = NightJob(
        sleep=f"slp_{seed}",
        deployment="nursery",
        seed=seed,
        parent=str(version.resolve()),
        child=str(home / "ver_1"),
        home=str(home),
        experiences=str(home / "experiences.jsonl"),
        held_out=tuple(probe.question for day in days for probe in day.probes()),
        recipe=Recipe.model_validate(
            {
                "teachers": [TeacherSpec(model=str(f.resolve()), cues=asked) for f, asked in zip(folders, cues, strict=True)],
                "seeding": seeding,
            }
        ),
    )
    started = time.perf_counter()
    night = seed_from_others(job)
    seconds = time.perf_counter() - started
    before, after = measure(version, days, world), measure(Path(job.child), days, world)
    teachers = [
        right(load_other(folder, torch.float32, torch.device("cpu")), load_tokenizer(folder), day.probes())
        for folder, day in zip(folders, days, strict=True)
    ]
    report = {
        "arm": arm,
        "seed": seed,
        "matches": [told["match"] for told in night["told"].values()],
        "teachers": teachers,
        "before": before,
        "after": after,
        "ratio": [own / theirs for own, theirs in zip(after["facts"], teachers, strict=True)],
        "kept": after["base"] / before["base"],
        "nll_rise": after["nll"] - before["nll"],
        "gate": night["verdict"]["measured"] | {"passed": night["verdict"]["passed"]},
        "seconds": {"night": round(seconds, 1), "learning": night["seconds"]},
    }
    log.info("%s", json.dumps(report))
    return report


def main(seeds: Sequence[int], arms: Sequence[str]) -> None:
    """Every arm of every seed; what is there already of other seeds and arms is kept."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    torch.set_num_threads(1)
    world, version = World(0), ROOT / "ver_0"
    if not version.exists():
        ROOT.mkdir(parents=True, exist_ok=True)
        found_version(str(WEIGHTS), None, MemorySpec(), version)
    with alone():
        for seed in seeds:
            for arm in arms:
                row = run(arm, seed, world, version)
                rows = json.loads(RESULT.read_text())["rows"] if RESULT.exists() else []
                rows = [old for old in rows if (old["arm"], old["seed"]) != (arm, seed)] + [row]
                rows.sort(key=lambda row: (list(ARMS).index(row["arm"]), row["seed"]))
                result = _result(rows)
                RESULT.parent.mkdir(exist_ok=True)
                RESULT.write_text(json.dumps(result, indent=2) + "\n")
                put(PAGE, "benchmarks.seeding", tables(result))


def tables(result: dict[str, Any]) -> str:
    """As Markdown, of each arm the worst of all teachers and nights."""
    lines = ["| | what a teacher knows, against the teacher | base kept | NLL, nats a token | gate |", "|---|---|---|---|---|"]
    for arm, found in result["arms"].items():
        rise = max(row["nll_rise"] for row in result["rows"] if row["arm"] == arm)
        gate = f"{found['gates_passed']} of {found['seeds']} nights pass"
        lines.append(f"| {SAID[arm]} | {found['worst_ratio']:.3f} | {found['worst_kept']:.3f} | {rise:+.3f} | {gate} |")
    return "\n".join(lines)


def _result(rows: list[dict[str, Any]]) -> dict[str, Any]:
    arms = {arm: [row for row in rows if row["arm"] == arm] for arm in ARMS}
    seeds, made = sorted({row["seed"] for row in rows}), {(row["arm"], row["seed"]) for row in rows}
    return {
        "command": "python -m benchmarks.seeding " + " ".join(map(str, seeds)),
        "missing": [f"{arm} {seed}" for arm in ARMS for seed in seeds if (arm, seed) not in made],
        "machine": {
            "cores": psutil.cpu_count(),
            "memory_gib": round(psutil.virtual_memory().total / 2**30),
            "cpu": platform.machine(),
        },
        "facts_of_each_teacher": FACTS,
        "arms": {
            arm: {
                "seeds": len(done),
                "worst_ratio": round(min(min(row["ratio"]) for row in done), 4),
                "mean_ratio": round(sum(sum(row["ratio"]) / len(row["ratio"]) for row in done) / len(done), 4),
                "worst_kept": round(min(row["kept"] for row in done), 4),
                "mean_nll_rise": round(sum(row["nll_rise"] for row in done) / len(done), 4),
                "gates_passed": sum(row["gate"]["passed"] for row in done),
            }
            for arm, done in arms.items()
            if done
        },
        "rows": rows,
    }


if __name__ == "__main__":
    given = [word for word in sys.argv[1:] if word in ARMS]
    main([int(word) for word in sys.argv[1:] if word.isdigit()] or [0, 1, 2], given or list(ARMS))
