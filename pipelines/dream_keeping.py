"""What was dreamt and helps is kept: it moves into the memory as a day does.

    dream_keep    the rewarded final dreams become rows to learn and cues to sleep on; without any, nothing is kept and the report says so
    dream_learn   the fast level, empty since the day was consolidated, learns them
    then          one more transfer (consolidation.py): the awake self with its dreams teaches a fresh expert of the slowest level into
                  which anything moves tonight, the rested self keeps the rest, tonight's day included

So a version is memory only, whatever was dreamt, and what protects the past from a day protects it from a dream.
"""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

from actors import names
from actors.learner import LearnRequest, learn
from circadian.dreaming.remembered import digest_of
from circadian.dreaming.tasks import Task
from circadian.experience import Row
from circadian.memory.cues import Cue, stored
from circadian.memory.state import FAST_LEVEL, MemoryState
from circadian.specs import NightJob
from circadian.specs.experience import lowest
from pipelines.consolidation import Memory
from pipelines.dream_tasks import Dreamer, known_questions, read_tasks
from pipelines.dreaming import learned, rewarded_dreams
from pipelines.stages import Outputs, read_lines, write_lines
from pipelines.wake import Bounds, day_cues

ROWS_FILE, CUES_FILE = "dreamt.rows.jsonl", "dreamt.cues.jsonl"
NOTHING_TO_DREAM_OF = "there was nothing to dream of: no context about which there are probes"
NOTHING_HELPS = "no dream helped: none made an instance better than the undreamt one"
_OF_TASKS = ("held_out", "too_long", "without_probes", "teaching_nothing")
_OF_TRIALS = ("tried", "rewarded", "broken", "score", "undreamt")
TOLD = ("dreams", "sources", "trust", "rows", "cues", "reason", "tasks", *_OF_TASKS, *_OF_TRIALS)
"""What a night's report tells of its dreams."""


def not_kept(reason: str) -> Outputs:
    """What `keep` tells where nothing is."""
    return {"dreams": [], "sources": [], "rows": 0, "cues": 0, "reason": reason}


def dreamt_in(sleep: str) -> str:
    """What was dreamt in a sleep, as `lineage` and the cue store name it: apart from its day."""
    return f"{sleep}+dreams"


def keep(dreamer: Dreamer, day: Outputs, told: Outputs, tried: Outputs, awake: Outputs) -> Outputs:
    """Rows and cues of the dreams that are kept, each row once; with the context's own where its dream is kept and the day is not learned
    otherwise. The cues of tonight and before are among the cues, for the rested self to go on from, and so are questions about the day
    (`known_cues`). And what the version remembers of its dreams, whether any is kept or not: the dreamer, and how the recipe's contexts
    stood."""
    job, rng = dreamer.job, random.Random(f"dream-keep-{dreamer.job.seed}")
    known = read_tasks(dreamer, told)
    tasks: dict[str, Task] = {task.name: task for task, _, _ in known}
    dreams, bounds = rewarded_dreams(dreamer, [tried]), Bounds.of(job)
    apart = dreamer.spec.with_context and not job.recipe.consolidation
    rows: dict[Row, None] = {}
    for one in dreams:
        own = dreamer.context(tasks[one.context]) if apart else []
        rows |= dict.fromkeys([*own, *learned(dreamer, tasks[one.context], one)])
    met = [cue for row in rows for cue in day_cues(row, rng, bounds.cue) if len(cue["ids"]) <= bounds.cue]
    lines = [cue | {"sleep": dreamt_in(job.sleep)} for cue in met]
    dreamt = {tuple(cue["ids"]) for cue in met}  # what a dream answers anew the rested self would answer as before, against it
    write_lines(dreamer.home / ROWS_FILE, [{"ids": row.ids, "weight": row.weight} for row in rows])
    before = [*read_lines(dreamer.home / day["cues_file"]), *known_cues(dreamer, told, bounds.cue)]
    kept_before = [cue for cue in before if job.recipe.consolidation or cue["sleep"] != job.sleep]
    write_lines(dreamer.home / CUES_FILE, lines + [cue for cue in kept_before if tuple(cue["ids"]) not in dreamt])
    return {
        "rows_file": ROWS_FILE,
        "cues_file": CUES_FILE,
        "dreams": [one.id for one in dreams],
        "sources": sorted({one.source for one in dreams}),
        "trust": lowest(one.trust for one in dreams),
        "rows": len(rows) if met else 0,
        "cues": len(lines),
        "reason": None if met else NOTHING_HELPS if told["tasks"] else _why_no_task(dreamer, told),
        "tasks": told["tasks"],
        "standings": {digest_of(task.context): score for task, score, _ in known} if dreamer.spec.tasks else {},
        **{name: awake[name] for name in ("dreamer_file", "dreamer_trust", "dreamer_of") if name in awake},
        **{name: told[name] for name in _OF_TASKS},
        **{name: tried[name] for name in _OF_TRIALS},
    }


def known_cues(dreamer: Dreamer, told: Outputs, longest: int) -> list[dict[str, Any]]:
    """What the deployment asked itself about the day and could answer before it dreamt, as cues of the day: the rested self answers them
    while dreams are written beside the day, tonight, and in nights to come. A day that was only told things has no questions of its own."""
    asked = [dreamer.asked("ask", question=question) for question in known_questions(dreamer, told)]
    return [{"ids": ids, "question": True, "whole": len(ids), "sleep": dreamer.job.sleep} for ids in asked if len(ids) <= longest]


def _why_no_task(dreamer: Dreamer, told: Outputs) -> str:
    if not told["too_long"]:
        return NOTHING_TO_DREAM_OF
    return (
        f"{NOTHING_TO_DREAM_OF}; {told['too_long']} leave no room for dreaming.tokens ({dreamer.spec.tokens}) beside them: lower that, or "
        "raise rollouts.engine.max_model_len"
    )


def learn_dreams(job: NightJob, memory: Memory, kept: Outputs) -> Outputs:
    """Level 0 learns what was kept."""
    home = Path(job.home)
    state, where = memory.state.opened(FAST_LEVEL)
    result = learn(
        LearnRequest(
            task="fast_learning",
            run_name=names.learner_run(job.sleep, "dreams"),
            home=str(home),
            storage=str(home / "train"),
            version=job.parent,
            overlays=tuple(str(home / file) for file in memory.overlays),
            experts=state.names(),
            writes=(where.level, where.expert),
            rows=str(home / kept["rows_file"]),
            seed=job.seed,
            learner=job.recipe.learner,
            fast_learning=job.recipe.fast_learning,
        )
    )
    return {
        "tensors_file": str(Path(result.tensors).relative_to(home)),
        "experts": state.names(),
        "checksum": result.checksum,
        "first_loss": result.first_loss,
        "final_loss": result.final_loss,
        "phases": result.phases,
    }


def full_of_dreams(job: NightJob, memory: Memory, learned_: Outputs) -> Memory:
    """The memory with the dreams in its fast level."""
    state = MemoryState.parse(learned_["experts"])
    opened = {(where.level, where.expert) for where in state.ids() if where.level == FAST_LEVEL and state[where] == "open"}
    return replace(
        memory,
        state=state,
        overlays=(*memory.overlays, learned_["tensors_file"]),
        nights=memory.nights | dict.fromkeys(opened, (dreamt_in(job.sleep),)),
        touched=memory.touched | opened,
    )


def dreamt_cues(job: NightJob, kept: Outputs) -> list[Cue]:
    """The cues of the dreams, as the child's cue store may hold them."""
    cues = [cue for cue in read_lines(Path(job.home) / kept["cues_file"]) if cue["sleep"] == dreamt_in(job.sleep)]
    made = [stored(tuple(cue["ids"]), cue["whole"], cue["sleep"], cue["question"]) for cue in cues]
    return list(dict.fromkeys(cue for cue in made if cue is not None))
