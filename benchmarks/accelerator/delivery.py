"""A delivery's way from a file to weights that answer: read, checked, written in place on the device, read back and checked again.

    expert    one sealed expert, as a night delivers it (circadian/memory/delivery.py)
    version   a whole version of 16 sealed experts and the fast one, from its folder (circadian/memory/whole.py), as a promotion does
    full      all weights of the base, safetensors straight to the device and copied into place; nothing is checked or read back

Two deliveries take turns, so that each one changes what is held. Files were just written, so they come from the system's memory and not
from a disk. `parts`: what a delivery of the expert does, each alone. What an engine does besides, its packed copy and its prefix cache, is
not here.
"""

from __future__ import annotations

import json
import math
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, load_file, save_file

from benchmarks.accelerator.forward import sealed, spec_of
from benchmarks.accelerator.models import base_model, fill, grafted
from benchmarks.accelerator.plan import Plan
from circadian.memory.delivery import pack, receive
from circadian.memory.folder import CONFIG_FILE, MEMORY_FILE, RECORD_FILE
from circadian.memory.graft import Grafted
from circadian.memory.state import ExpertId, written_experts
from circadian.memory.tensors import checksum, expert_tensors, write_tensors
from circadian.memory.whole import whole_delivery
from circadian.specs import BaseModelRef, VersionRecord

EXPERT = ExpertId(1, 0)
SEALED = 16
PARTS_ROUNDS = 11


class NotDelivered(RuntimeError):
    """What lies on the device is not what was delivered."""


def measure(plan: Plan, device: torch.device, dtype: torch.dtype) -> dict[str, Any]:
    """expert, version, full -> bytes, p50 and p99 in milliseconds"""
    base = base_model(plan.shape, device, dtype)
    experts = min(SEALED, max(plan.experts))
    model = fill(grafted(base, spec_of(plan, experts)), sealed(experts))
    with tempfile.TemporaryDirectory() as temporary:
        home = Path(temporary)
        found = {
            "expert": timed(_experts(model, home), plan.deliveries, device),
            "version": timed(_versions(model, home), plan.deliveries, device),
            "parts": parts(model, home / "expert-0", device),
        }
        if plan.full_deliveries:
            path = home / "base.safetensors"
            weights = {
                name: tensor for name, tensor in base.state_dict().items() if name != "lm_head.weight" or not plan.shape.tied
            }
            save_file(weights, path)
            found["full"] = timed([lambda: _full(base, path)], plan.full_deliveries, device)
    return found


def timed(deliveries: list[Callable[[], int]], times: int, device: torch.device) -> dict[str, float]:
    """Of so many deliveries in turns; each returns its bytes."""
    for deliver in deliveries:
        deliver()
    taken = []
    for turn in range(times):
        started = time.perf_counter()
        size = deliveries[turn % len(deliveries)]()
        _wait(device)
        taken.append(1000 * (time.perf_counter() - started))
    taken.sort()
    return {"bytes": size, "times": times, "p50_ms": round(_rank(taken, 0.5), 3), "p99_ms": round(_rank(taken, 0.99), 3)}


def _rank(ordered: list[float], share: float) -> float:
    """The smallest that so large a share is not above."""
    return ordered[math.ceil(len(ordered) * share) - 1]


def _experts(model: Grafted, home: Path) -> list[Callable[[], int]]:
    """Two deliveries of the same expert."""
    found: list[Callable[[], int]] = []
    for seed in (0, 1):
        fill(model, model.memory_state, seed)
        path = home / f"expert-{seed}"
        path.write_bytes(pack(model.memory_layers, [EXPERT], model.memory_state, f"v{seed}"))
        promised = checksum(expert_tensors(model.memory_layers, [EXPERT]))
        found.append(partial(_receive, model, path.read_bytes, promised))
    return found


def _versions(model: Grafted, home: Path) -> list[Callable[[], int]]:
    """Two versions' folders."""
    found: list[Callable[[], int]] = []
    for seed in (0, 1):
        fill(model, model.memory_state, seed)
        folder, promised = home / f"version-{seed}", _write_version(model, home / f"version-{seed}")
        found.append(partial(_receive, model, partial(whole_delivery, folder), promised))
    return found


def _write_version(model: Grafted, folder: Path) -> str:
    """The files of a version that a promotion reads. Returns the memory's checksum."""
    folder.mkdir()
    tensors = expert_tensors(model.memory_layers, written_experts(model.memory_state))
    record = VersionRecord(id=folder.name, base=BaseModelRef(model="random"), created_at=0.0, memory_sha256=checksum(tensors))
    save_file(tensors, folder / MEMORY_FILE)
    (folder / RECORD_FILE).write_text(record.model_dump_json())
    config = {"memory": {"experts": model.memory_state.names()}, "dtype": str(model.dtype).split(".")[1]}
    (folder / CONFIG_FILE).write_text(json.dumps(config))
    return record.memory_sha256


def _receive(model: Grafted, payload: Callable[[], bytes], promised: str) -> int:
    receipt, model.memory_state = receive(model.memory_layers, payload())
    if receipt.checksum != promised:
        raise NotDelivered(f"{receipt.version} was read back as {receipt.checksum[:12]}, delivered was {promised[:12]}")
    return receipt.bytes


@torch.no_grad()
def _full(base: torch.nn.Module, path: Path) -> int:
    held, size = base.state_dict(), 0
    for name, tensor in load_file(path, device=str(next(base.parameters()).device)).items():
        held[name].copy_(tensor)
        size += tensor.numel() * tensor.element_size()
    return size


def parts(model: Grafted, path: Path, device: torch.device) -> dict[str, float]:
    """Median milliseconds of what a delivery is made of; of one expert it computes two checksums and reads it back three times."""
    tensors = load(path.read_bytes())
    layers = model.memory_layers
    works: dict[str, Callable[[], int]] = {
        "read the file": lambda: len(path.read_bytes()),
        "one checksum": lambda: len(checksum(tensors)),
        "write in place": lambda: write_tensors(layers, tensors) or len(tensors),
        "read back": lambda: len(expert_tensors(layers, [EXPERT])),
    }
    return {name: timed([work], PARTS_ROUNDS, device)["p50_ms"] for name, work in works.items()}


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()
