"""The end of a night: a version folder that the controller may promote, or nothing."""

from __future__ import annotations

import json
import time
from pathlib import Path

from safetensors.torch import load_file

from circadian.memory.cues import Cue, cues_json, cues_met, join_cues, read_cues
from circadian.memory.delivery import pack
from circadian.memory.state import ExpertId, MemoryState
from circadian.memory.tensors import write_tensors
from circadian.memory.version import CUES_FILE, load_version, read_record, save_version
from circadian.specs import ExpertRecord, NightJob
from pipelines.stages import Outputs, sha256


def publish(job: NightJob, day: Outputs, candidate: Outputs, verdict: Outputs, seeded: Outputs) -> Outputs:
    """Write the child version: the parent's memory, the sealed expert, the joined cues. Deliveries for dawn and for going back."""
    home, parent, child = Path(job.home), Path(job.parent), Path(job.child)
    record, where = read_record(parent), ExpertId(*candidate["writes"])
    model = load_version(parent)
    tensors = load_file(home / seeded["tensors_file"])
    write_tensors(model.memory_layers, {name: tensor.to(model.dtype) for name, tensor in tensors.items()})
    model.memory_state = MemoryState.parse(candidate["experts"])
    cues = [json.loads(line) for line in (home / day["cues_file"]).read_text().splitlines()]
    new = [Cue(tuple(cue["ids"]), job.sleep, cue["question"]) for cue in cues if cue["kind"] == "day"]
    joined, met = join_cues(read_cues(parent), cues_met(parent), new, job.recipe.cue_limit, job.seed)
    made_by = ExpertRecord(
        level=where.level,
        expert=where.expert,
        sleep=job.sleep,
        data_sha256=sha256(Path(job.experiences)),
        metrics=verdict["measured"],
    )
    update = {"id": child.name, "parent": record.id, "created_at": time.time(), "lineage": (*record.lineage, made_by)}
    if not child.exists():
        save_version(child, model, record.model_copy(update=update), parent, {CUES_FILE: cues_json(joined, met)})
    payload = pack(model.memory_layers, [where], model.memory_state, child.name, model.dtype)
    (home / "dawn.delivery").write_bytes(payload)
    base = sum(p.numel() * p.element_size() for name, p in model.named_parameters() if ".memory." not in name)
    return _outcome("candidate", job, verdict, seeded) | {
        "version": child.name,
        "folder": str(child),
        "deliveries": {"dawn": str(home / "dawn.delivery"), "rest": str(home / "rest.delivery")},
        "sizes": {"expert_bytes": len(payload), "model_bytes": base},
    }


def discard(job: NightJob, day: Outputs, candidate: Outputs, verdict: Outputs, seeded: Outputs) -> Outputs:
    """Nothing is published; what was learned stays in the night's home for whoever wants to look."""
    return _outcome("rejected", job, verdict, seeded) | {
        "version": None,
        "folder": None,
        "deliveries": {"rest": str(Path(job.home) / "rest.delivery")},
    }


def _outcome(outcome: str, job: NightJob, verdict: Outputs, seeded: Outputs) -> Outputs:
    return {
        "outcome": outcome,
        "report": {
            "sleep": job.sleep,
            "seed": job.seed,
            "recipe": job.recipe.model_dump(mode="json"),
            "gate": verdict,
            "seeding": seeded,
        },
    }
