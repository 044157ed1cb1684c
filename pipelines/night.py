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
"""

from __future__ import annotations

import json
import logging
import sys
import time
from pathlib import Path

import ray

from actors import names
from circadian.memory.version import version_state
from circadian.specs import NightJob
from pipelines import wake
from pipelines.consolidation import dream_corpus, knowledge_seeding, open_expert, prune, snapshot_teacher
from pipelines.gate import gate
from pipelines.publish import discard, publish
from pipelines.rollouts import Rollouts
from pipelines.stages import Outputs, Stages, write_atomically

log = logging.getLogger(__name__)


def night(job: NightJob) -> Outputs:
    """Sleep once. Returns the outcome, which is also left in outcome.json."""
    stages = Stages(job)
    with Rollouts(job) as rollouts:
        day = stages.run("collect", lambda: wake.collect(job))
        fast = stages.run("learn_fast_level", lambda: wake.learn_fast_level(job, day))
        wake.announce(job, fast)
        teachers = stages.run("snapshot_teacher", lambda: snapshot_teacher(job, fast))
        expert = stages.run("open_expert", lambda: open_expert(job, teachers))
        corpus = stages.run("dream_corpus", lambda: dream_corpus(job, day, fast, expert, rollouts))
        seeded = stages.run("knowledge_seeding", lambda: knowledge_seeding(job, day, fast, expert, corpus, rollouts))
        candidate = stages.run("prune", lambda: prune(job, day, expert, seeded))
        verdict = stages.run("gate", lambda: gate(job, day, fast, expert, seeded, corpus, rollouts))
    finish = publish if verdict["passed"] else discard
    outcome = stages.run("publish", lambda: finish(job, day, candidate, verdict, seeded))
    outcome["report"]["stages"] = stages.seconds()
    write_atomically(stages.home / "outcome.json", json.dumps(outcome, indent=2))
    return outcome


def main(path: str) -> None:
    """The Ray job's entry point."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    job = NightJob.model_validate_json(Path(path).read_text())
    started = time.perf_counter()
    ray.init(address="auto", namespace=names.NAMESPACE, log_to_driver=False)
    log.info("night %s of %s falls over %s", job.sleep, job.deployment, version_state(Path(job.parent)).names())
    outcome = night(job)
    log.info("night %s ended after %.1f s: %s", job.sleep, time.perf_counter() - started, outcome["outcome"])


if __name__ == "__main__":
    main(sys.argv[1])
