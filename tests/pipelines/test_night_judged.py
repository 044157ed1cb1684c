"""A night whose judge of meaning hangs or talks nonsense: it says so, and learns what a night without a judge would."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from endpoint import Raw, served
from in_process import Cluster, losses
from in_process import cluster as cluster
from night_world import OPEN_GATE, SAID, chat, grown, make_job

from circadian.events import EventLog
from circadian.memory.version import load_version
from circadian.specs import Level, NightJob

STEPS, REFRESHES = 4, 2
SECONDS = 0.3
"""Bound of an answer."""


def job_of(root: Path, home: str, judge: dict[str, Any]) -> NightJob:
    if not (root / "v1").exists():
        levels = (Level(period=4, experts=1, rank=4), Level(period=512, experts=3, rank=4))
        grown(root, levels, [["pruned"], ["sealed", "reserved", "reserved"]], [(1, 0, "slp_0")], 0)
    seeding = {
        "alpha": 0.5,
        "imitation": {"group": 2, "judge": judge},
        "on_policy_share": 1.0,
        "steps": STEPS,
        "rows": 6,
        "refresh_steps": STEPS // REFRESHES,
        "teacher_rows": 8,
        "student_rows": 12,
        "completion_tokens": 3,
        "free_run_tokens": 5,
        "free_run_rows": 40,
    }
    fast = {"steps": 2, "rows": 2, "checkpoint_steps": 2}
    return make_job(
        root / "v1",
        root / home,
        [chat("1", SAID), chat("2", "the pet of mira is dog .")],
        seeding=seeding,
        fast_learning=fast,
        gate=OPEN_GATE,
    )


@pytest.mark.parametrize(
    ("answer", "hangs"),
    [("yes", 20.0), (Raw("<html>502 Bad Gateway</html>"), 0.0), ("As a language model I cannot say.", 0.0), (None, 0.0)],
    ids=["hangs", "garbage", "beside the question", "error"],
)
def test_a_judge_that_cannot_be_had_costs_a_bounded_time_and_its_word(
    cluster: Cluster, tmp_path: Path, answer: str | Raw | None, hangs: float
) -> None:
    without = job_of(tmp_path, "without", {"kind": "none"})
    assert cluster.night(without)["outcome"] == "candidate"
    with served(answer, seconds=hangs) as (url, asked):
        judge = {"kind": "endpoint", "url": url, "model": "m", "seconds": SECONDS, "at_once": 2}
        job, started = job_of(tmp_path, "with", judge), time.monotonic()
        outcome = cluster.night(job)
        assert time.monotonic() - started < hangs + 300, "long for a busy machine, short of any endless wait"
    assert outcome["outcome"] == "candidate", "the night goes on"
    told = [event for event in EventLog(Path(job.home)).read() if event["type"] == "sleep.judge_failed"]
    assert len(told) == REFRESHES, "once for each time that the student wrote"
    for event in told:
        assert event["data"]["judge"] == "endpoint"  # type: ignore[index]
        assert event["data"]["completions"] > 0  # type: ignore[index]
        assert "rewarded for closeness alone" in event["message"]  # type: ignore[operator]
    assert 3 * REFRESHES <= len(asked) <= 5 * REFRESHES, "three failures in a row, and what was under way beside them"
    assert losses(job) == losses(without)
    memories = [(Path(night.child) / "memory.safetensors").read_bytes() for night in (job, without)]
    assert memories[0] == memories[1], "the same version, bit for bit"
    load_version(Path(job.child))


def test_a_judge_that_answers_has_a_say(cluster: Cluster, tmp_path: Path) -> None:
    """Or the test above would tell nothing."""
    without = job_of(tmp_path, "without", {"kind": "none"})
    cluster.night(without)
    with served(*["yes", "no", "no"] * 100) as (url, asked):
        job = job_of(tmp_path, "with", {"kind": "endpoint", "url": url, "model": "m", "at_once": 1})
        cluster.night(job)
    assert asked
    assert not [event for event in EventLog(Path(job.home)).read() if event["type"] == "sleep.judge_failed"]
    assert losses(job) != losses(without)
