"""One online update of the fast level: equation 2 of the paper at level 0's own boundary. No Ray here: `fast_learner.py` puts it into
an actor.

    the expert after the last chunk  +  the chunk's rows, and rows of the day's earlier chunks  ->  the expert after this chunk

The paper takes one gradient step on a chunk's summed loss and leaves the optimizer free: here it is a number of Adam steps on rows drawn
from the chunk. Of each step's rows a share is drawn from the chunks since the fast level was last empty, because a chunk that is learned
alone is learned over those before it. Adam begins anew with each chunk, and rows are drawn from (seed, chunk, step): the expert after a
chunk depends on nothing but the files of its day, so a learner that was killed makes the same one.

Its files: `chunk_files.py`.
"""

from __future__ import annotations

import hashlib
import json
import math
import random
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save
from torch import Tensor

from actors.chunk_files import DELIVERY_FILE, EXPERT_FILE, RECORD_FILE, ROWS_FILE, ChunkFailed, chunk_folder, read_chunk
from circadian.experience import Reader, Row, day_rows
from circadian.files import write_whole
from circadian.memory.fast import fast_delivery
from circadian.memory.folder import version_state
from circadian.memory.state import FAST_LEVEL
from circadian.memory.tensors import checksum, expert_tensors, write_tensors
from circadian.memory.version import load_tokenizer, load_version
from circadian.objectives.fast_learning import chunks, collate, fast_learning_loss
from circadian.objectives.schedule import lr_at
from circadian.specs import ChunkJob, ChunkRecord, OnlineLearningSpec

Expert = dict[str, Tensor]
"""Named tensors, fp32."""


def read_expert(day: Path, number: int) -> Expert:
    """The expert after a committed chunk. Raises ChunkFailed where it is not the one that was committed."""
    record, path = read_chunk(day, number), chunk_folder(day, number) / EXPERT_FILE
    if record is None or not path.exists() or checksum(expert := load_file(path)) != record.checksum:
        raise ChunkFailed(f"{path} is not what was committed; sleep, which empties the fast level and begins a new day")
    return expert


class FastLevel:
    """The fast level of a version as it learns: a model in memory, in which its open expert is written again and again."""

    def __init__(self, version: Path, device: str = "cpu") -> None:
        self.version = version
        self.state, self.where = version_state(version).opened(FAST_LEVEL)
        self.model = load_version(version, torch.float32 if device == "cpu" else None)
        self.model.to(device)  # type: ignore[arg-type]  # transformers' wrapper of `to` hides its arguments
        self.model.memory_state = self.state

    def fresh(self, seed: int) -> Expert:
        """An expert that adds nothing yet."""
        generator = torch.Generator().manual_seed(_number(f"{seed}/{self.where.level}/{self.where.expert}"))
        for layer in self.model.memory_layers.values():
            layer.initialise(self.where, generator)
        return expert_tensors(self.model.memory_layers, [self.where], torch.float32)

    def learn(
        self, start: Expert, new: Sequence[Row], old: Sequence[Row], spec: OnlineLearningSpec, number: int
    ) -> tuple[Expert, float, float]:
        """The expert after a chunk of rows, and the loss of the first and of the last step. Raises ChunkFailed.

        old: rows of the day's earlier chunks.
        """
        layers = self.model.memory_layers
        write_tensors(layers, {name: tensor.to(self.model.dtype) for name, tensor in start.items()})
        parameters = [p for expert in self.model.begin_writing(self.where) for p in expert.parameters()]
        try:
            losses = self._steps(parameters, new, old, spec, number)
            expert = expert_tensors(layers, [self.where], torch.float32)
        finally:
            self.model.end_writing()
        if not all(math.isfinite(loss) for loss in losses) or not all(bool(t.isfinite().all()) for t in expert.values()):
            raise ChunkFailed(f"chunk {number}: loss or expert are not finite; lower online_learning.lr or max_grad_norm")
        return expert, losses[0], losses[-1]

    def _steps(
        self, parameters: list[torch.nn.Parameter], new: Sequence[Row], old: Sequence[Row], spec: OnlineLearningSpec, number: int
    ) -> list[float]:
        """Adam steps on fp32 copies of the parameters, whatever the model computes in. Returns their losses."""
        masters = [p.detach().float().clone() for p in parameters]
        adam, losses = torch.optim.AdamW(masters, lr=0.0, weight_decay=0.0), []
        for step in range(spec.steps):
            rng = random.Random(f"{spec.seed}/{number}/{step}")
            rows = mixed(new, old, spec, rng)
            batch = {name: t.to(self.model.device) for name, t in collate(rows).items()}
            loss = fast_learning_loss(self.model, batch, "awake", chunks([rows], spec.token_chunk))
            gradients = torch.autograd.grad(loss, parameters)
            for master, gradient in zip(masters, gradients, strict=True):
                master.grad = gradient.float()
            torch.nn.utils.clip_grad_norm_(masters, spec.max_grad_norm)
            adam.param_groups[0]["lr"] = lr_at(step, spec.steps, spec.lr)
            adam.step()
            with torch.no_grad():
                for parameter, master in zip(parameters, masters, strict=True):
                    parameter.copy_(master)
            losses.append(loss.item())
        return losses


def mixed(new: Sequence[Row], old: Sequence[Row], spec: OnlineLearningSpec, rng: random.Random) -> list[Row]:
    """A step's rows: of the chunk, and of the chunks before it as many as `replay` says; each once where there are enough."""
    repeated = min(round(spec.replay * spec.rows), spec.rows - 1) if old else 0
    return _drawn(new, spec.rows - repeated, rng) + _drawn(old, repeated, rng)


def learn_chunk(job: ChunkJob, level: FastLevel) -> ChunkRecord:
    """Learn a chunk and commit it; one that is committed already is left as it is. Raises ChunkFailed."""
    started, day, spec = time.monotonic(), Path(job.day), job.learning
    if done := read_chunk(day, job.number):
        return done
    rows, left_out = chunk_rows(job)
    home, label = chunk_folder(day, job.number), f"{Path(job.version).name}+w{job.number}"
    write_whole(home / ROWS_FILE, "".join(json.dumps({"ids": row.ids, "weight": row.weight}) + "\n" for row in rows))
    expert = read_expert(day, job.number - 1) if job.number > 1 else level.fresh(spec.seed)
    first_loss = final_loss = None
    if rows:
        earlier = [row for number in range(1, job.number) for row in read_rows(chunk_folder(day, number) / ROWS_FILE)]
        expert, first_loss, final_loss = level.learn(expert, rows, earlier, spec, job.number)
    record = ChunkRecord(
        number=job.number,
        label=label,
        tokens=job.tokens,
        experiences=tuple(experience.id for experience in job.experiences),
        left_out=left_out,
        rows=len(rows),
        steps=spec.steps if rows else 0,
        first_loss=first_loss,
        final_loss=final_loss,
        checksum=checksum(expert),
        seconds=round(time.monotonic() - started, 3),
    )
    write_whole(home / EXPERT_FILE, save(expert))
    write_whole(home / DELIVERY_FILE, fast_delivery(Path(job.version), expert, level.state, label))
    write_whole(home / RECORD_FILE, record.model_dump_json(indent=2) + "\n")
    return record


def chunk_rows(job: ChunkJob) -> tuple[list[Row], dict[str, str]]:
    """The chunk's rows, read and cut as a night reads and cuts them, and why experiences add none."""
    version = Path(job.version)
    context = json.loads((version / "config.json").read_text())["max_position_embeddings"]
    rows, left_out, _ = day_rows(
        list(job.experiences), Reader(load_tokenizer(version)), min(context, job.max_row_tokens), job.split
    )
    return rows, left_out


def read_rows(path: Path) -> list[Row]:
    """The rows of a chunk."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return [Row(tuple(line["ids"]), tuple(line["weight"])) for line in lines]


def _drawn(rows: Sequence[Row], count: int, rng: random.Random) -> list[Row]:
    return rng.sample(rows, count) if count <= len(rows) else rng.choices(rows, k=count)


def _number(text: str) -> int:
    """A seed for torch, which takes 63 bits."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]) >> 1
