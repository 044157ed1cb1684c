"""Wake: experiences in, the fast level learned at dusk.

(A deployment whose `wake` is `online` has learned most of the day by then, chunk by chunk: actors/learn_chunk.py, services/online.py.)

`collect` turns the day's experiences into rows to learn and cues to sleep on. `learn_fast_level` is equation 2 of the paper at the
boundary of level 0: the whole day is its chunk. `announce` hands the learned fast level to whoever serves the deployment, so that it
knows the day from dusk on; it is fragile (it has damaged older knowledge), which is what the rest of the night is for.
"""

from __future__ import annotations

import json
import math
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from safetensors.torch import load_file

from actors import names
from actors.learner import LearnRequest, learn
from circadian.events import EventLog
from circadian.experience import HELD_OUT, Reader, Row, day_rows
from circadian.files import write_whole
from circadian.memory.cues import read_cues
from circadian.memory.fast import fast_delivery, rest_delivery
from circadian.memory.folder import check_files, read_record, version_state
from circadian.memory.state import FAST_LEVEL
from circadian.memory.tensors import checksum
from circadian.memory.version import load_tokenizer
from circadian.specs import Experience, FastStart, NightJob
from pipelines.moves import moves
from pipelines.stages import Outputs, write_lines

REST_FILE = "rest.delivery"
HELD_BACK = 0.1
"""Share of the old cues and of the free documents that no student learns from: on them the gate sees what was kept."""
T = TypeVar("T")
CUES_PER_DOCUMENT = 3
"""Beginnings taken of what has no question; a chat gives one cue per answer."""


class NothingToLearn(ValueError):
    """No experience of the day can be learned."""


@dataclass(frozen=True)
class Bounds:
    """Tokens of the longest row that is learned, and of the longest cue that leaves room for its completion."""

    row: int
    cue: int

    @classmethod
    def of(cls, job: NightJob) -> Bounds:
        context = json.loads((Path(job.parent) / "config.json").read_text())["max_position_embeddings"]
        room = min(context, job.recipe.rollouts.engine.max_model_len or context)
        return cls(min(context, job.recipe.max_row_tokens), room - job.recipe.seeding.completion_tokens)


def collect(job: NightJob) -> Outputs:
    """Rows of the day, its cues, the cues of earlier nights that the parent version carries, and what is to be moved tonight; nothing
    that is held out.

    A day on which nothing was met is one that only other models teach. Raises NothingToLearn, and LevelFull now rather than after the
    work.
    """
    home, rng, bounds = Path(job.home), random.Random(f"collect-{job.seed}"), Bounds.of(job)
    check_files(Path(job.parent), read_record(Path(job.parent)).files)
    reader = Reader(load_tokenizer(Path(job.parent)), job.held_out)
    experiences = [Experience.model_validate_json(line) for line in Path(job.experiences).read_text().splitlines()]
    rows, left_out, cut = day_rows(experiences, reader, bounds.row, job.recipe.split)
    met = [cue for row in rows for cue in day_cues(row, rng, bounds.cue)]
    cues = [cue for cue in met if len(cue["ids"]) <= bounds.cue]
    if not cues:  # nothing could be asked about it in the night, so it is not learned either
        rows, left_out = [], {experience.id: left_out.get(experience.id, "nothing to learn") for experience in experiences}
    if not rows and not job.recipe.teachers and not (job.recipe.dreaming and job.recipe.dreaming.tasks):
        why = ", ".join(f"{reason} {count}" for reason, count in Counter(left_out.values()).items())
        raise NothingToLearn(
            f"none of {len(experiences)} experiences can be learned ({why or 'too short to ask about'}); "
            "send chats with something said, or documents of 4 tokens or more"
        )
    carried, today = read_cues(Path(job.parent)), {cue["ids"] for cue in cues}
    held_out = reader.are_held_out([cue.ids for cue in carried])
    # What is asked again today is answered by today: the rested self would teach the old answer against it.
    allowed = [cue for cue, secret in zip(carried, held_out, strict=True) if not secret and cue.ids not in today]
    old = [cue for cue in allowed if len(cue.ids) <= bounds.cue]
    write_lines(home / "rows.jsonl", [{"ids": row.ids, "weight": row.weight} for row in rows])
    write_whole(home / "left_out.json", json.dumps(left_out))
    old, held_back = hold_back(old, rng)
    tokens = sum(len(row.ids) for row in rows)
    write_lines(home / "cues.jsonl", [cue | {"sleep": job.sleep} for cue in cues] + [asdict(cue) for cue in old])
    write_lines(home / "held_back_cues.jsonl", [asdict(cue) for cue in held_back])
    return {
        "rows_file": "rows.jsonl",
        "cues_file": "cues.jsonl",
        "held_back_file": "held_back_cues.jsonl",
        "left_out_file": "left_out.json",
        "experiences": len(experiences),
        "rows": len(rows),
        "day_cues": len(cues),
        "old_cues": len(old),
        "held_back": len(held_back),
        "old_cues_dropped": len(carried) - len(old) - len(held_back),
        "tokens": tokens,
        **dict(zip(("moves", "dream_moves"), moves(job, tokens, met=bool(rows)), strict=True)),
        "left_out": dict(Counter(left_out.values())),
        "documents_cut": cut,
        "day_cues_dropped_long": len(met) - len(cues),
    }


def day_cues(row: Row, rng: random.Random, longest: int) -> list[dict[str, Any]]:
    """The row's questions, or beginnings of it, as lines; `whole` is the length of what they begin."""
    questions = row.questions()
    cues = questions or row.cuts(rng, CUES_PER_DOCUMENT, longest)
    return [{"ids": ids, "question": bool(questions), "whole": len(row.ids)} for ids in cues]


def learn_fast_level(job: NightJob, day: Outputs) -> Outputs:
    """Level 0 learns the day; the learned expert and the deliveries that put it into, and take it out of, the serving replicas.

    What was learned online is where it begins, and then fewer steps do: on the whole day, the rows that were learned already too, or
    the others would be learned over them.
    """
    home, before = Path(job.home), version_state(Path(job.parent))
    state, where = before.opened(FAST_LEVEL)
    begins, told = fast_start(job, day)
    recipe = job.recipe.fast_learning
    result = learn(
        LearnRequest(
            task="fast_learning",
            run_name=names.learner_run(job.sleep, "fast-learning"),
            home=str(home),
            storage=str(home / "train"),
            version=job.parent,
            overlays=(begins.expert,) if begins else (),
            goes_on=begins is not None,
            experts=state.names(),
            writes=(where.level, where.expert),
            rows=str(home / day["rows_file"]),
            seed=job.seed,
            learner=job.recipe.learner,
            fast_learning=recipe.model_copy(update={"steps": job.recipe.online_learning.dusk_steps}) if begins else recipe,
        )
    )
    dusk = fast_delivery(Path(job.parent), load_file(result.tensors), state, f"{Path(job.parent).name}+{job.sleep}")
    write_whole(home / "dusk.delivery", dusk)
    return {
        "tensors_file": str(Path(result.tensors).relative_to(home)),
        "delivery_file": "dusk.delivery",
        "rest_file": way_back(job),
        "experts": state.names(),
        "checksum": result.checksum,
        "begins": told,
        "first_loss": result.first_loss,
        "final_loss": result.final_loss,
        "phases": result.phases,
    }


def way_back(job: NightJob) -> str:
    """Write the delivery that makes a replica the parent again, whatever of this night it holds; returns the file's name."""
    write_whole(Path(job.home) / REST_FILE, rest_delivery(Path(job.parent)))
    return REST_FILE


def fast_start(job: NightJob, day: Outputs) -> tuple[FastStart | None, str]:
    """What the fast level begins from, and in words: what was learned online, unless that is lost, or holds what is held out of this
    night; else nothing."""
    if job.fast is None:
        return None, "fresh"
    left_out, path = json.loads((Path(job.home) / day["left_out_file"]).read_text()), Path(job.fast.expert)
    if any(left_out.get(id) == HELD_OUT for id in job.fast.experiences):
        return None, "fresh: what was learned online holds texts that are held out of this night"
    if not path.exists() or checksum(load_file(path)) != job.fast.checksum:
        return None, f"fresh: {path} is not what was learned online"
    return job.fast, f"online, {job.fast.chunks} chunks"


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


def hold_back(items: Sequence[T], rng: random.Random) -> tuple[list[T], list[T]]:
    """The items without, and then, a random share of them, which holds each once; an only one stays."""
    unique = list(dict.fromkeys(items))
    back = set(rng.sample(unique, math.ceil(HELD_BACK * len(unique)))) if len(unique) > 1 else set()
    return [item for item in items if item not in back], [item for item in unique if item in back]
