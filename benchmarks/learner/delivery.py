"""What it takes to bring the learned model to one that answers: `python -m benchmarks.learner.delivery REQUEST ANSWER`.

    expert      our delivery of the open expert: packed with its checksum, then checked, written in place, read back and checked again
    full        a full-weight sync: every tensor of the base as safetensors bytes, read and copied into the receiver, tensor by tensor
                as trainers send them in buckets; nothing is checked

Both in one process, without a network between: what a network adds is proportional to the bytes.
"""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save

from benchmarks.learner.child import point_of
from benchmarks.learner.measure import CLOCKS, seconds
from benchmarks.learner.models import grafted_model, transfer_of
from benchmarks.learner.points import Point
from circadian.memory.delivery import pack_tensors, receive
from circadian.memory.graft import Grafted
from circadian.memory.state import ExpertId, MemoryState
from circadian.memory.tensors import expert_tensors


def measure(point: Point, times: int, clock: str) -> dict[str, Any]:
    """Bytes, and the median milliseconds from the learner's tensors to the receiver's."""
    model, transfer = grafted_model(point), transfer_of(point)
    where, state = ExpertId(*transfer.into), MemoryState.parse(transfer.experts)
    sizes: dict[str, int] = {}

    def expert() -> None:
        sizes["expert"] = _expert(model, where, state)

    def full() -> None:
        sizes["full"] = _full(model)

    found = {}
    for name, deliver in (("expert", expert), ("full", full)):
        taken = statistics.median(seconds(deliver)[CLOCKS.index(clock)] for _ in range(times))
        found[name] = {"bytes": sizes[name], "milliseconds": round(1000 * taken, 2)}
    return found


def _expert(model: Grafted, where: ExpertId, state: MemoryState) -> int:
    """Returns the bytes."""
    payload = pack_tensors(expert_tensors(model.memory_layers, [where]), state, "bench")
    receive(model.memory_layers, payload)
    return len(payload)


@torch.no_grad()
def _full(model: Grafted) -> int:
    """Returns the bytes."""
    size = 0
    for name, parameter in model.named_parameters():
        if ".memory." in name:
            continue
        payload = save({"w": parameter})
        parameter.copy_(load(payload)["w"])
        size += len(payload)
    return size


def main(request: Path, answer: Path) -> None:
    asked = json.loads(request.read_text())
    answer.write_text(json.dumps([measure(point_of(fields), asked["steps"], asked["clock"]) for fields in asked["points"]]))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
