"""A tiny world for the learner's tests: an untrained nursery base, a version of it, rows of a day, and requests."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from random_base import write_base
from safetensors.torch import load_file, save_file

from actors.learn_request import LearnRequest, OtherModel
from circadian.memory.state import ExpertId, MemoryState
from circadian.memory.tensors import expert_tensors
from circadian.memory.tokenizer_files import load_tokenizer
from circadian.memory.transfer import Transfer
from circadian.memory.version import found_version, load_version, weights_sha256
from circadian.objectives.rows import Kind, TaughtRow, read_rows, write_rows
from circadian.specs import FastLearningSpec, LearnerSpec, Level, MemorySpec, SeedingSpec

SPEC = MemorySpec(levels=(Level(period=64, experts=1, rank=8), Level(period=512, experts=3, rank=8)), layers=(1, 3))
DUSK = MemoryState.parse([["open"], ["reserved", "reserved", "reserved"]])
STEPS, REFRESHES = 12, 3
LR = 3e-3


@dataclass(frozen=True)
class LearnerWorld:
    """Files that a learner needs."""

    root: Path
    version: Path
    vocabulary: int

    def request(self, task: str, name: str, seed: int = 5, steps: int = STEPS, rows: int = 8, **learner: int) -> LearnRequest:
        """A task on this world; the fast level's expert learns, or the second level's first expert does, of an awake fast level."""
        seeding = task == "seeding"
        home = self.root / name
        home.mkdir(exist_ok=True)
        return LearnRequest.model_validate(
            {
                "task": task,
                "run_name": name,
                "home": str(home),
                "storage": str(home / "storage"),
                "version": str(self.version),
                "experts": Transfer.consolidation(DUSK, 1).experts if seeding else DUSK.names(),
                "writes": (1, 0) if seeding else (0, 0),
                "overlays": (str(self.root / "dusk.safetensors"),) if seeding else (),
                "transfer": Transfer.consolidation(DUSK, 1) if seeding else None,
                "rows": str(self.root / f"{task}.jsonl"),
                "cues": str(self.root / "cues.jsonl") if seeding else None,
                "seed": seed,
                "learner": LearnerSpec(**learner),
                "fast_learning": FastLearningSpec(steps=steps, rows=6, lr=LR, checkpoint_steps=steps // REFRESHES),
                "seeding": SeedingSpec(
                    steps=steps,
                    rows=rows,
                    lr=LR,
                    refresh_steps=steps // REFRESHES,
                    old_share=0.4,  # so that every step has rows from which there is something to learn
                    free_share=0.2,
                    student_rows=6,
                    free_run_tokens=12,
                    completion_tokens=4,
                ),
            }
        )


def broken(request: LearnRequest) -> LearnRequest:
    """The same task with a loss that is not a number: a row of infinite weight, or a fast level of infinite weights."""
    if request.task == "fast_learning":
        rows = Path(request.home) / "rows.jsonl"
        _write_jsonl(rows, [{"ids": [5, 6, 7], "weight": [0.0, math.inf, math.inf]}])
        return request.model_copy(update={"rows": str(rows)})
    overlay = Path(request.home) / "overlay.safetensors"
    save_file({name: tensor / 0 for name, tensor in load_file(request.overlays[0]).items()}, overlay)
    return request.model_copy(update={"overlays": (str(overlay),)})


def with_others(world: LearnerWorld, request: LearnRequest, teacher: Path, names: tuple[str, str]) -> LearnRequest:
    """Two other models teach instead of the awake self: one is distilled, of the other there is nothing but texts."""
    rng, home = random.Random(1), Path(request.home)
    rows = [row for row in read_rows(Path(request.rows)) if row.kind != "day"]
    others = [TaughtRow(tuple(rng.randrange(5, world.vocabulary) for _ in range(7)), 3, names[i % 2], "day") for i in range(12)]
    write_rows(home / "rows.jsonl", rows + others)
    lines = [
        f'{{"ids": {list(row.ids[:3])}, "kind": "day", "teacher": "{names[0]}"}}\n' for row in others if row.teacher == names[0]
    ]
    old = [line for line in Path(request.cues or "").read_text().splitlines(keepends=True) if '"old"' in line]
    (home / "cues.jsonl").write_text("".join(lines + old))
    models = (
        OtherModel(name=names[0], folder=str(teacher), sha256=weights_sha256(teacher), match="distil"),
        OtherModel(name=names[1], folder="/nowhere", sha256="", match="imitate"),
    )
    seeding = request.seeding.model_copy(update={"student_rows": 24})
    update = {"rows": str(home / "rows.jsonl"), "cues": str(home / "cues.jsonl"), "others": models, "seeding": seeding}
    return request.model_copy(update=update)


def make_world(root: Path, head_width: int = 16) -> LearnerWorld:
    """Write the base, its first version, and the rows of a day. A base of narrow heads is quick, but vLLM serves none below 32."""
    base = write_base(root / "base", width=32, mlp_width=64, heads=2, head_width=head_width)
    found_version(str(base), None, SPEC, root / "v0")
    tokenizer = load_tokenizer(base)
    _write_overlay(root / "v0", root / "dusk.safetensors")
    rng = random.Random(0)

    def text(length: int) -> tuple[int, ...]:
        return tuple(rng.randrange(5, len(tokenizer)) for _ in range(length))

    _write_jsonl(
        root / "fast_learning.jsonl",
        [{"ids": ids, "weight": [0.0] + [1.0] * (len(ids) - 1)} for ids in map(text, [7, 5, 9, 6] * 3)],
    )
    _write_jsonl(root / "cues.jsonl", [{"ids": text(4), "kind": kind} for kind in ("day", "old") * 6])
    kinds: list[tuple[Kind, Any]] = [("day", "awake"), ("old", "rested"), ("free", "rested")]
    rows = [TaughtRow(text(6 + i % 4), 1 if kind == "free" else 3, teacher, kind) for kind, teacher in kinds for i in range(8)]
    write_rows(root / "seeding.jsonl", rows)
    return LearnerWorld(root, root / "v0", len(tokenizer))


def _write_overlay(version: Path, path: Path) -> None:
    """A fast level that says something, so that the awake self differs from the rested one."""
    layers, where, generator = load_version(version).memory_layers, ExpertId(0, 0), torch.Generator().manual_seed(1)
    for layer in layers.values():
        layer.initialise(where, generator)
        slices = layer.levels[0].slices(0)
        slices["B"].copy_(torch.randn(slices["B"].shape, generator=generator) * 0.3)
    save_file(expert_tensors(layers, [where]), path)


def _write_jsonl(path: Path, lines: Sequence[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
