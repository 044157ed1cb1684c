"""Wake: experiences in, the fast level learned at dusk.

`collect` turns the day's experiences into rows to learn and cues to sleep on. `learn_fast_level` is equation 2 of the paper at the
boundary of level 0: the whole day is its chunk. `announce` hands the learned fast level to whoever serves the deployment, so that it
knows the day from dusk on; it is fragile (it has damaged older knowledge), which is what the rest of the night is for.
"""

from __future__ import annotations

import json
import random
from pathlib import Path

import torch
from safetensors.torch import load_file

from actors import names
from actors.learner import LearnRequest, learn
from circadian.events import EventLog
from circadian.experience import Reader
from circadian.memory.cues import Cue, read_cues
from circadian.memory.delivery import pack_tensors
from circadian.memory.version import load_tokenizer, version_state
from circadian.specs import Experience, NightJob
from pipelines.stages import Outputs

FAST_LEVEL = 0
CUES_PER_DOCUMENT = 3
"""Beginnings taken of what has no question; a chat gives one cue per answer."""


class NothingToLearn(ValueError):
    """No experience of the day can be learned."""


def collect(job: NightJob) -> Outputs:
    """Rows of the day, its cues, and the cues of earlier nights that the parent version carries; nothing that is held out."""
    home, rng = Path(job.home), random.Random(f"collect-{job.seed}")
    reader = Reader(load_tokenizer(Path(job.parent)), job.held_out)
    experiences = [Experience.model_validate_json(line) for line in Path(job.experiences).read_text().splitlines()]
    rows: list[dict[str, object]] = []
    cues: list[dict[str, object]] = []
    for experience in experiences:
        row = reader.row(experience)
        if any(row.weight) and not reader.is_held_out(row.ids):
            rows.append({"ids": row.ids, "weight": row.weight})
            questions = reader.questions(experience)
            cuts = [] if questions else reader.cuts(experience, rng, CUES_PER_DOCUMENT)
            cues += [{"ids": cue, "kind": "day", "question": bool(questions)} for cue in questions or cuts]
    if not rows or not cues:
        raise NothingToLearn(
            f"none of {len(experiences)} experiences can be learned; send chats with something said, or documents of 4 tokens or more"
        )
    old = read_cues(Path(job.parent))
    write_lines(home / "rows.jsonl", rows)
    write_lines(home / "cues.jsonl", cues + [old_cue(cue) for cue in old if not reader.is_held_out(cue.ids)])
    return {
        "rows_file": "rows.jsonl",
        "cues_file": "cues.jsonl",
        "experiences": len(experiences),
        "rows": len(rows),
        "day_cues": len(cues),
        "old_cues": len(old),
        "nights_before": len({cue.sleep for cue in old}),
    }


def learn_fast_level(job: NightJob, day: Outputs) -> Outputs:
    """Level 0 learns the day; the learned expert and the deliveries that put it into, and take it out of, the serving replicas."""
    home, before = Path(job.home), version_state(Path(job.parent))
    state, where = before.opened(FAST_LEVEL)
    result = learn(
        LearnRequest(
            task="fast_learning",
            run_name=names.learner_run(job.sleep, job.attempt, "fast-learning"),
            home=str(home),
            storage=str(home / "train"),
            version=job.parent,
            overlay=None,
            experts=state.names(),
            writes=(where.level, where.expert),
            rows=str(home / day["rows_file"]),
            cues=None,
            nights_before=0,
            held_out=job.held_out,
            rollouts=(),
            seed=job.seed,
            learner=job.recipe.learner,
            fast_learning=job.recipe.fast_learning,
            seeding=job.recipe.seeding,
        )
    )
    tensors = load_file(result.tensors)
    dtype = getattr(torch, json.loads((Path(job.parent) / "config.json").read_text())["dtype"])
    serving = {name: tensor.to(dtype) for name, tensor in tensors.items()}
    (home / "dusk.delivery").write_bytes(pack_tensors(serving, state, f"{Path(job.parent).name}+{job.sleep}"))
    (home / "rest.delivery").write_bytes(pack_tensors({}, before, Path(job.parent).name))
    return {
        "tensors_file": str(Path(result.tensors).relative_to(home)),
        "delivery_file": "dusk.delivery",
        "rest_file": "rest.delivery",
        "experts": state.names(),
        "checksum": result.checksum,
        "first_loss": result.first_loss,
        "final_loss": result.final_loss,
    }


def announce(job: NightJob, fast: Outputs) -> None:
    """Tell the controller that the fast level can be served, and how to take it out again. Repeating it is harmless."""
    home = Path(job.home)
    EventLog(home).emit(
        "sleep.fast_memory",
        "the deployment can serve with its fast memory",
        delivery=str(home / fast["delivery_file"]),
        rest=str(home / fast["rest_file"]),
        version=f"{Path(job.parent).name}+{job.sleep}",
    )


def old_cue(cue: Cue) -> dict[str, object]:
    """A cue of an earlier night as a line of the cues file."""
    return {"ids": cue.ids, "kind": "old", "question": cue.question}


def write_lines(path: Path, objects: list[dict[str, object]]) -> None:
    """One JSON object a line."""
    path.write_text("".join(json.dumps(o) + "\n" for o in objects))
