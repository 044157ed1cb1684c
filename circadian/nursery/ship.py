"""The nursery models that ship in the repository, and the reports that say where they come from.

    weights    lives in the toy world: learns facts by day (demo, tests, most benchmarks)
    school     lives in the school: writes about what it reads (dreaming)

`circadian nursery train` writes such a folder: the model (safetensors), its tokenizer and `nursery.json`. The report holds
the spec, a hash of every document that was read, the loss of the first steps and the accuracies of the end; tests train the first steps
again, hash the documents again and measure again.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerFast, Qwen3ForCausalLM

from circadian.nursery.curriculum import Curriculum
from circadian.nursery.school import School
from circadian.nursery.school_curriculum import FACTS_PER_PASSAGE, SchoolCurriculum
from circadian.nursery.train import Progress, accuracy, documents_of, pretrain
from circadian.nursery.world import World
from circadian.specs import NurserySpec

WEIGHTS, SCHOOL = Path(__file__).parent / "weights", Path(__file__).parent / "school_weights"
SHIPPED = {WEIGHTS: NurserySpec(), SCHOOL: NurserySpec(world="school", closed_book_rows=64, open_book_rows=48)}
REPORT = "nursery.json"
TRACED_STEPS = 10
"""Steps whose losses the report keeps, for a test to walk again."""
PASSAGES = 200
"""Open-book passages of each size that accuracy is measured on."""


def train_and_ship(spec: NurserySpec, folder: Path = WEIGHTS, progress: Progress | None = None) -> dict[str, Any]:
    """Train the nursery model and write it with its report."""
    trace: list[float] = []

    def follow(step: int, steps: int, loss: float) -> None:
        if step <= TRACED_STEPS:
            trace.append(round(loss, 5))
        if progress:
            progress(step, steps, loss)

    started = time.perf_counter()
    model, tokenizer = pretrain(spec, follow)
    seconds = time.perf_counter() - started
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    report = {
        "spec": spec.model_dump(),
        "documents_sha256": documents_sha256(spec),
        "first_losses": trace,
        "accuracy": measure(model, tokenizer, spec),
        "parameters": sum(p.numel() for p in model.parameters()),
        "seconds": round(seconds, 1),
    }
    (folder / REPORT).write_text(json.dumps(report, indent=2) + "\n")
    return report


def documents_sha256(spec: NurserySpec, steps: int | None = None) -> str:
    """Hash of the documents of the first `steps` steps (default all), in the order they are read."""
    curriculum, digest = documents_of(spec), hashlib.sha256()
    for step in range(steps if steps is not None else spec.steps):
        for batch in (curriculum.closed_book(step, spec.closed_book_rows), curriculum.open_book(step, spec.open_book_rows)):
            digest.update(batch.ids.numpy().tobytes())
    return digest.hexdigest()


def measure(model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast, spec: NurserySpec) -> dict[str, float]:
    """Accuracy on the base facts and on reading: by the number of facts in a passage, in the school also where the answer follows."""
    if spec.world == "school":
        school = School(spec.world_seed)
        measured = {"base": accuracy(model, tokenizer, school.base_probes())}
        reader = SchoolCurriculum(school, tokenizer, seed=1_000, steps=1)
        for kind in ("direct", "implied"):
            documents = [reader.document(FACTS_PER_PASSAGE[-1], kind) for _ in range(PASSAGES)]
            measured[f"open_book_{kind}"] = _read_rightly(model, tokenizer, [(words, min(heavy)) for words, heavy in documents])
        return measured
    world = World(spec.world_seed)
    measured = {"base": accuracy(model, tokenizer, world.base_probes())}
    for number in (1, 2, 4):
        passages = Curriculum(world, tokenizer, seed=1_000 + number, steps=1)
        measured[f"open_book_{number}"] = _read_rightly(model, tokenizer, [passages.passage(number) for _ in range(PASSAGES)])
    return measured


@torch.no_grad()
def _read_rightly(model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast, documents: Sequence[tuple[list[str], int]]) -> float:
    """Share of documents whose word at the given place is the likeliest there."""
    right = 0
    for words, answer in documents:
        ids = torch.tensor([tokenizer.convert_tokens_to_ids(words)])
        right += int(model(input_ids=ids[:, :answer]).logits[0, -1].argmax() == ids[0, answer])
    return right / len(documents)
