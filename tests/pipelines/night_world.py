"""Versions that have slept, and nights to come, for the tests of nights."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from random_base import write_base
from safetensors.torch import save_file

from circadian.memory.folder import version_state
from circadian.memory.graft import Grafted
from circadian.memory.state import ExpertId, MemoryState
from circadian.memory.tensors import expert_tensors
from circadian.memory.transfer import Transfer
from circadian.memory.version import found_version, load_version, save_version
from circadian.specs import Experience, ExpertRecord, Level, MemorySpec, Message, NightJob, Recipe
from pipelines.stages import Outputs

SAID = "the city of jehas is oslo ."
OPEN_GATE: dict[str, float] = {
    "min_agreement": 0.0,
    "min_taught": 0.0,
    "max_forgotten": 1.0,
    "max_forgotten_night": 1.0,
    "max_lost": 1.0,
    "max_base_lost": 1.0,
    **dict.fromkeys(("max_nll_rise", "max_median_nll_rise", "max_base_nll_rise", "max_drift_parent", "max_drift_base"), 1e9),
    "max_exposure": 1e9,
}
"""An untrained model agrees with nobody: for nights that are looked at for what they publish, whatever it is worth."""
TINY = {
    "completion_tokens": 2,
    "free_run_tokens": 4,
    "free_run_rows": 40,
    "teacher_rows": 6,
    "temperature": 1e-3,
}
"""Seeding that writes next to nothing."""
ASKED, SECRET = "what is the city of jehas ?", "which city is jehas in ?"


def chat(id: str, *said: str) -> Experience:
    roles = ("user", "assistant")
    messages = tuple(Message(role=roles[i % 2], content=text) for i, text in enumerate(said))
    return Experience(id=id, messages=messages, source="human")


def draw(model: Grafted, where: ExpertId, seed: int) -> dict[str, torch.Tensor]:
    """An expert of which no tensor is zero."""
    generator = torch.Generator().manual_seed(seed)
    for layer in model.memory_layers.values():
        for tensor in layer.bank(where.level).slices(where.expert).values():
            tensor.copy_(torch.randn(tensor.shape, generator=generator) * 0.3)
    return expert_tensors(model.memory_layers, [where])


def make_job(parent: Path, home: Path, experiences: Sequence[Experience], **recipe: object) -> NightJob:
    home.mkdir(exist_ok=True)
    (home / "experiences.jsonl").write_text("".join(e.model_dump_json() + "\n" for e in experiences))
    return NightJob(
        sleep="slp_1",
        deployment="dep",
        parent=str(parent),
        child=str(home / "versions" / "v2"),
        home=str(home),
        experiences=str(home / "experiences.jsonl"),
        held_out=(SECRET,),
        recipe=Recipe.model_validate(recipe),
    )


def dusk_of(job: NightJob, model: Grafted, loudness: float = 1e-3) -> Outputs:
    """A fast level that learned next to nothing."""
    home, state = Path(job.home), version_state(Path(job.parent)).opened(0)[0]
    save_file({name: tensor * loudness for name, tensor in draw(model, ExpertId(0, 0), 5).items()}, home / "dusk.safetensors")
    return {"experts": state.names(), "tensors_file": "dusk.safetensors"}


def seeded(job: NightJob, model: Grafted, transfer: Transfer, scale: float, name: str) -> Outputs:
    """What a learner would have left: noise in the written expert, or silence."""
    tensors = {name: tensor * scale for name, tensor in draw(model, transfer.where, 6).items()}
    save_file(tensors, Path(job.home) / f"{name}.safetensors")
    return {"tensors_file": f"{name}.safetensors"}


def grown(
    root: Path,
    levels: Sequence[Level],
    states: list[list[str]],
    nights: Sequence[tuple[int, int, str]],
    tokens: int,
    remembers: bool = True,
) -> Path:
    """A version that has slept: `nights` are level, expert and the sleep whose day it knows; remembers: it has a cue of each."""
    base = write_base(root / "base", width=32, mlp_width=64, layers=2, heads=2, head_width=16)
    record = found_version(str(base), None, MemorySpec(levels=tuple(levels), layers=(1,)), root / "v0")
    model = load_version(root / "v0")
    made = [
        ExpertRecord(level=level, expert=expert, sleep=sleep, nights=(sleep,), data_sha256="") for level, expert, sleep in nights
    ]
    for record_of in made:
        draw(model, ExpertId(record_of.level, record_of.expert), record_of.expert)
    model.memory_state = MemoryState.parse(states)
    cues = [{"ids": [1, 4, 9 + i, 8], "sleep": sleep, "question": True} for i, (_, _, sleep) in enumerate(nights) if remembers]
    update = {"id": "v1", "parent": "v0", "lineage": tuple(made), "tokens": tokens}
    save_version(
        root / "v1", model, record.model_copy(update=update), root / "v0", {"cues.json": json.dumps({"met": 9, "cues": cues})}
    )
    return root / "v1"
