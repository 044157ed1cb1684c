"""One night: what the awake self learned by day moves into a newly opened expert of a slower level, and nothing else changes.

    collect            the day's experiences become rows to learn and cues to sleep on
    lectures           where other models are to teach: what they say (other_teachers.py)
    learn_fast_level   level 0 learns the day (wake.py), if there was one; the deployment serves with it until dawn

    for every move that is due, fast to slow (level 0 into 1 always, level 1 into 2 when its period is over, a merge where a level is full,
    and last what other models teach into the slowest level):
        open_expert        one fresh expert: the only thing that learns now
        snapshot_teacher   the two teachers: the awake self (what is on its way included) and the rested self (without it)
        dream_corpus       both teachers complete their cues (other models have said theirs); the rested self also writes from nothing
        knowledge_seeding  the student, rested self plus open expert, is distilled from both, partly on its own writing
        prune              what has handed its knowledge on is reset, the expert is sealed

    dreaming           where the recipe says so: rounds of dreams; what of them helps moves as a day does (dreaming.py, dream_keeping.py)
    gate               does the candidate know the day, and has it kept the rest?
    publish            a version folder, which serves only if the gate let it pass

Run as the driver of a Ray job: `python -m pipelines.night JOB.json ID`. Every stage is sealed when it is done (stages.py), so a night that
is killed resumes at the stage it was in. The controller reads events.jsonl and outcome.json; this process never talks to it.

What would fail again in the same way is an outcome (`failed`, or `no_op` where nothing can be learned), and the job succeeds. Every
other error ends the job as failed. The controller tries again after those, and after an outcome that is not the user's to change: a disk
may come back. The outcome says which attempt left it.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import ray

from actors import names
from actors.dreamwork import RayHands
from actors.learner import LearnerFailed
from circadian.experience import Reader
from circadian.files import write_whole
from circadian.memory.folder import VersionBroken
from circadian.memory.state import LevelFull
from circadian.memory.tokenizer_files import load_tokenizer
from circadian.memory.transfer import Transfer
from circadian.night_files import OUTCOME_FILE
from circadian.specs import NightJob
from circadian.teachers.other import TeacherUnusable
from pipelines import wake
from pipelines.consolidation import Memory, Moved, dream_corpus, knowledge_seeding, planned, prune, snapshot_teacher
from pipelines.dream_keeping import full_of_dreams, keep, learn_dreams, not_kept
from pipelines.dream_tasks import Dreamer
from pipelines.dreaming import dream
from pipelines.gate import gate
from pipelines.other_teachers import lectures, taught_in
from pipelines.publish import publish, unchanged
from pipelines.rollouts import RolloutPool
from pipelines.stages import Outputs, StageBroken, Stages, Superseded
from pipelines.wake import NothingToLearn

log = logging.getLogger(__name__)
FAILURES: dict[type[Exception], tuple[str, str]] = {
    LevelFull: ("level_full", "user"),
    LearnerFailed: ("learner_failed", "user"),
    TeacherUnusable: ("teacher_unusable", "user"),
    StageBroken: ("stage_broken", "server"),
    VersionBroken: ("version_broken", "server"),
}
"""Errors that would come again, with their code and who can do something about them."""


def night(job: NightJob) -> Outputs:
    """Sleep once. Returns the outcome, which is also left in outcome.json."""
    stages = Stages(job)
    try:
        outcome = until_dawn(job, stages)
    except NothingToLearn as reason:
        outcome = unchanged(job, "no_op", reason=str(reason))
    except tuple(FAILURES) as error:
        log.exception("night %s would fail again in the same way", job.sleep)
        code, category = FAILURES[type(error)]
        outcome = unchanged(job, "failed") | {"error": {"code": code, "message": str(error), "category": category}}
    outcome["attempt"] = job.attempt
    outcome["report"] |= {"stages": stages.seconds(), "phases": stages.phases()}
    stages.check_attempt()
    write_whole(Path(job.home) / OUTCOME_FILE, json.dumps(outcome, indent=2))
    return outcome


def until_dawn(job: NightJob, stages: Stages) -> Outputs:
    """The stages of a night, in order. Returns what the last one put out."""
    day = stages.run("collect", lambda: wake.collect(job))
    with RolloutPool(job) as rollouts:
        said = stages.run("lectures", lambda: lectures(job)) if job.recipe.teachers else None
        asleep = [Moved(dusk(job, stages, day))]
        for move in day["moves"]:
            transfer = planned(asleep[-1].memory, move, asleep)
            said_of = said if move[0] == "seed" else None
            asleep.append(consolidate(job, stages, day, asleep[-1].memory, transfer, rollouts, said_of))
        undreamt = list(asleep)
        dreams = dreaming(job, stages, day, asleep, rollouts) if job.recipe.dreaming else {}
        if len(asleep) == 1:
            raise NothingToLearn(dreams["reason"])
        verdict = stages.run("gate", lambda: rollouts.timed(lambda: gate(job, day, asleep, rollouts)))
        if not verdict["passed"] and 1 < len(undreamt) < len(asleep):  # the day is not lost to its dreams
            alone = stages.run("gate_without_dreams", lambda: rollouts.timed(lambda: gate(job, day, undreamt, rollouts)))
            if alone["passed"]:
                dreams |= not_kept(f"the gate refused them: {'; '.join(verdict['reasons'])}")
                asleep, verdict = undreamt, alone
    return stages.run("publish", lambda: publish(job, day, verdict, asleep, dreams))


def dusk(job: NightJob, stages: Stages, day: Outputs) -> Memory:
    """The memory that falls asleep: the fast level has learned the day, unless nothing was met."""
    if not day["rows"] or not job.recipe.consolidation:
        wake.way_back(job)
        return Memory.undisturbed(job)
    fast = stages.run("learn_fast_level", lambda: wake.learn_fast_level(job, day))
    wake.announce(job, fast)
    return Memory.at_dusk(job, fast)


def consolidate(
    job: NightJob,
    stages: Stages,
    day: Outputs,
    memory: Memory,
    transfer: Transfer,
    rollouts: RolloutPool,
    said: Outputs | None = None,
) -> Moved:
    """One transfer, in stages of its own; `said`: what other models did, where they teach it."""

    def run(stage: str, work: Callable[[], Outputs]) -> Outputs:
        return stages.run(stage if transfer.name == "level-1" else f"{stage}_{transfer.name}", work)

    run("open_expert", lambda: transfer.model_dump(mode="json"))
    teachers = run("snapshot_teacher", lambda: snapshot_teacher(job, memory))
    corpus = run("dream_corpus", lambda: rollouts.timed(lambda: dream_corpus(job, day, memory, transfer, rollouts, said)))
    seeded = run("knowledge_seeding", lambda: knowledge_seeding(job, memory, teachers, transfer, corpus, rollouts, said))
    after = memory.moved(transfer, seeded["tensors_file"], (taught_in(job.sleep),) if said else ())
    run("prune", lambda: prune(job, memory, transfer))
    return Moved(after, transfer, corpus, seeded, teachers, said or {})


def dreaming(job: NightJob, stages: Stages, day: Outputs, asleep: list[Moved], rollouts: RolloutPool) -> Outputs:
    """Dreams, and, where any of them helps, the transfers that keep them, which are added to `asleep`. Returns what was kept."""
    assert job.recipe.dreaming is not None, "the recipe was asked"
    if not day["dream_moves"]:
        return not_kept("there is no free expert for what would be dreamt; sleep with recipe.when_full `merge`")

    def run(stage: str, work: Callable[[], Outputs]) -> Outputs:
        return stages.run(stage, lambda: rollouts.timed(work))

    hands = RayHands(job.recipe.learner, job.recipe.dreaming.pack_tokens, job.recipe.dreaming.pack_instances)
    dreamer = Dreamer(job, asleep[-1].memory, rollouts, hands, Reader(load_tokenizer(Path(job.parent)), job.held_out))
    told, tried, awake = dream(dreamer, run, day)
    kept = stages.run("dream_keep", lambda: keep(dreamer, day, told, tried, awake))
    if not kept["rows"]:
        return kept
    try:
        asleep += moved_dreams(job, stages, day, asleep, kept, rollouts)
    except (NothingToLearn, LearnerFailed) as error:  # the day is not lost to its dreams
        log.exception("the dreams of %s are not kept", job.sleep)
        return kept | not_kept(f"they could not be learned: {error}")
    return kept


def moved_dreams(
    job: NightJob, stages: Stages, day: Outputs, asleep: Sequence[Moved], kept: Outputs, rollouts: RolloutPool
) -> list[Moved]:
    """The transfers that keep what was dreamt."""
    *merges, move = day["dream_moves"]
    made = list(asleep)
    for merge in merges:
        made.append(consolidate(job, stages, day, made[-1].memory, planned(made[-1].memory, merge, made), rollouts))
    memory = made[-1].memory
    learned = stages.run("dream_learn", lambda: learn_dreams(job, memory, kept))
    full = full_of_dreams(job, memory, learned)
    moved = consolidate(job, stages, kept, full, planned(full, move, made), rollouts)
    return [*made[len(asleep) :], replace(moved, dreams=kept, before=full)]


def main(path: str, submission: str) -> None:
    """The Ray job's entry point; `submission` is its id, which says for which attempt it was submitted. Raises Superseded."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    job = NightJob.model_validate_json(Path(path).read_text())
    if submission != names.night_job(job.sleep, job.attempt):
        raise Superseded(f"{submission} begins too late: attempt {job.attempt} at the night in {job.home} has begun")
    started = time.perf_counter()
    ray.init(address="auto", namespace=names.NAMESPACE, log_to_driver=False)
    log.info("night %s falls over %s of %s", job.sleep, job.parent, job.deployment)
    outcome = night(job)
    log.info("night %s ended after %.1f s: %s", job.sleep, time.perf_counter() - started, outcome["outcome"])


if __name__ == "__main__":
    main(*sys.argv[1:])
