"""One night: what the awake self learned by day moves into a newly opened expert of a slower level, and nothing else changes.

    collect            the day's experiences become rows to learn and cues to sleep on
    learn_fast_level   level 0 learns the day (wake.py); the deployment serves with it until dawn
    snapshot_teacher   the two teachers: the awake self (fast level on) and the rested self (fast level off)
    open_expert        one fresh expert in level 1: the only thing that learns tonight
    dream_corpus       both teachers complete their cues; the rested self also writes from nothing
    knowledge_seeding  the student, rested self plus open expert, is distilled from both, partly on its own writing
    prune              the fast level is reset, the expert is sealed
    gate               does the candidate know the day, and has it kept the rest?
    publish            a version folder, or nothing

Run as the driver of a Ray job: `python -m pipelines.night JOB.json`. Every stage is sealed when it is done (stages.py), so a night that
is killed resumes at the stage it was in. The controller reads events.jsonl and outcome.json; this process never talks to it.

What would fail again in the same way is an outcome (`failed`, or `no_op` where nothing can be learned), and the job succeeds. Every
other error ends the job as failed, and the controller may try again.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from pathlib import Path

import ray

from actors import names
from actors.learner import LearnerFailed
from circadian.files import write_whole
from circadian.memory.state import LevelFull
from circadian.memory.version import VersionBroken
from circadian.specs import NightJob
from pipelines import wake
from pipelines.consolidation import dream_corpus, knowledge_seeding, open_expert, prune, snapshot_teacher
from pipelines.gate import gate
from pipelines.publish import discard, publish, unchanged
from pipelines.rollouts import RolloutPool
from pipelines.stages import Outputs, StageBroken, Stages
from pipelines.wake import NothingToLearn

log = logging.getLogger(__name__)
FAILURES: dict[type[Exception], tuple[str, str]] = {
    LevelFull: ("level_full", "user"),
    LearnerFailed: ("learner_failed", "user"),
    StageBroken: ("stage_broken", "server"),
    VersionBroken: ("version_broken", "server"),
}
"""Errors that would come again, with their code and who can do something about them."""


def night(job: NightJob) -> Outputs:
    """Sleep once. Returns the outcome, which is also left in outcome.json."""
    try:
        outcome = until_dawn(job)
    except NothingToLearn as reason:
        outcome = unchanged(job, "no_op", reason=str(reason))
    except tuple(FAILURES) as error:
        log.exception("night %s would fail again in the same way", job.sleep)
        code, category = FAILURES[type(error)]
        outcome = unchanged(job, "failed") | {"error": {"code": code, "message": str(error), "category": category}}
    outcome["report"]["stages"] = Stages(job).seconds()
    write_whole(Path(job.home) / "outcome.json", json.dumps(outcome, indent=2))
    return outcome


def until_dawn(job: NightJob) -> Outputs:
    """The stages of a night, in order. Returns what the last one put out."""
    stages = Stages(job)
    day = stages.run("collect", lambda: wake.collect(job))
    with RolloutPool(job) as rollouts:
        fast = stages.run("learn_fast_level", lambda: wake.learn_fast_level(job, day))
        wake.announce(job, fast)
        teachers = stages.run("snapshot_teacher", lambda: snapshot_teacher(job, fast))
        expert = stages.run("open_expert", lambda: open_expert(job, teachers))
        corpus = stages.run("dream_corpus", lambda: dream_corpus(job, day, fast, expert, rollouts))
        seeded = stages.run("knowledge_seeding", lambda: knowledge_seeding(job, day, fast, teachers, expert, corpus, rollouts))
        candidate = stages.run("prune", lambda: prune(job, expert))
        verdict = stages.run("gate", lambda: gate(job, day, fast, teachers, expert, seeded, corpus, rollouts))
    if not verdict["passed"]:
        return stages.run("publish", lambda: discard(job, verdict, seeded))
    return stages.run("publish", lambda: publish(job, day, candidate, verdict, seeded))


def main(path: str) -> None:
    """The Ray job's entry point."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    job = NightJob.model_validate_json(Path(path).read_text())
    started = time.perf_counter()
    ray.init(address="auto", namespace=names.NAMESPACE, log_to_driver=False)
    log.info("night %s falls over %s of %s", job.sleep, job.parent, job.deployment)
    outcome = night(job)
    log.info("night %s ended after %.1f s: %s", job.sleep, time.perf_counter() - started, outcome["outcome"])


if __name__ == "__main__":
    main(sys.argv[1])
