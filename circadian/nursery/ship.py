"""The nursery model that ships in the repository, and the report that says where it comes from.

`circadian nursery train` writes `circadian/nursery/weights/`: the model (safetensors), its tokenizer and `nursery.json`. The report holds
the spec, a hash of every document that was read, the loss of the first steps and the accuracies of the end; tests train the first steps
again, hash the documents again and measure again.
"""

from __future__ import annotations

import hashlib
import json
import time
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerFast, Qwen3ForCausalLM

from circadian.nursery.curriculum import Curriculum
from circadian.nursery.text import build_tokenizer
from circadian.nursery.train import Progress, accuracy, pretrain
from circadian.nursery.world import World
from circadian.specs import NurserySpec

WEIGHTS = Path(__file__).parent / "weights"
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
        "accuracy": measure(model, tokenizer, World(spec.world_seed)),
        "parameters": sum(p.numel() for p in model.parameters()),
        "seconds": round(seconds, 1),
    }
    (folder / REPORT).write_text(json.dumps(report, indent=2) + "\n")
    return report


def documents_sha256(spec: NurserySpec, steps: int | None = None) -> str:
    """Hash of the documents of the first `steps` steps (default all), in the order they are read."""
    world = World(spec.world_seed)
    curriculum = Curriculum(world, build_tokenizer(world), spec.seed, spec.steps)
    digest = hashlib.sha256()
    for step in range(steps if steps is not None else spec.steps):
        for batch in (curriculum.closed_book(step, spec.closed_book_rows), curriculum.open_book(step, spec.open_book_rows)):
            digest.update(batch.ids.numpy().tobytes())
    return digest.hexdigest()


@torch.no_grad()
def measure(model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast, world: World) -> dict[str, float]:
    """Accuracy on the base facts and on reading, by the number of facts in a passage."""
    measured = {"base": accuracy(model, tokenizer, world.base_probes())}
    for number in (1, 2, 4):
        reader = Curriculum(world, tokenizer, seed=1_000 + number, steps=1)
        right = 0
        for _ in range(PASSAGES):
            words, answer = reader.passage(number)
            ids = torch.tensor([tokenizer.convert_tokens_to_ids(words)])
            right += int(model(input_ids=ids[:, :answer]).logits[0, -1].argmax() == ids[0, answer])
        measured[f"open_book_{number}"] = right / PASSAGES
    return measured
