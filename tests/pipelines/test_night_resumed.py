"""A night that is broken off and resumed makes the losses and the version of one that was not, wherever in its transfers it breaks off."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from in_process import Cluster, Killed, losses
from in_process import cluster as cluster
from night_world import OPEN_GATE, SAID, chat, grown, make_job

from circadian.events import EventLog
from circadian.memory.delivery import receive
from circadian.memory.folder import read_record, version_state
from circadian.memory.version import load_version
from circadian.specs import Level, NightJob
from pipelines.stages import Outputs

STEPS, REFRESH = 6, 2
TWO_NIGHTS = 2 * STEPS
"""Steps of the transfer that moves two nights: into level 2, or in the merge."""
RECIPE = {
    "fast_learning": {"steps": 3, "rows": 2, "checkpoint_steps": 2},
    "seeding": {
        "steps": STEPS,
        "rows": 6,
        "refresh_steps": REFRESH,
        "teacher_rows": 8,
        "student_rows": 8,
        "completion_tokens": 3,
        "free_run_tokens": 5,
        "free_run_rows": 40,
        "on_policy_share": 0.7,
    },
    "gate": OPEN_GATE,
    "when_full": "merge",
}
IMITATING = {"alpha": 0.5, "imitation": {"group": 2}}


@dataclass(frozen=True)
class Kind:
    """A night of several transfers: its version's levels, expert states, nights and tokens; the learner's runs, in order."""

    levels: tuple[Level, ...]
    states: list[list[str]]
    nights: list[tuple[int, int, str]]
    tokens: int
    runs: tuple[str, ...]


KINDS = {
    "two levels": Kind(
        (Level(period=4, experts=1, rank=4), Level(period=400, experts=2, rank=4), Level(period=4000, experts=2, rank=4)),
        [["pruned"], ["sealed", "reserved"], ["sealed", "reserved"]],
        [(2, 0, "slp_oldest"), (1, 0, "slp_0")],
        399,
        ("fast-learning", "seeding-level-1", "seeding-level-2"),
    ),
    "merge": Kind(
        (Level(period=4, experts=1, rank=4), Level(period=8, experts=3, rank=4)),
        [["pruned"], ["sealed"] * 3],
        [(1, 0, "slp_old0"), (1, 1, "slp_old1"), (1, 2, "slp_old2")],
        7,
        ("fast-learning", "seeding-merge-1-0-1", "seeding-level-1"),
    ),
}


def job_of(kind: Kind, root: Path, home: Path, seeding: dict[str, Any]) -> NightJob:
    parent = root / "v1"
    if not parent.exists():
        grown(root, kind.levels, kind.states, kind.nights, kind.tokens)
    recipe = RECIPE | {"seeding": RECIPE["seeding"] | seeding}  # type: ignore[operator]
    return make_job(parent, home, [chat("1", SAID), chat("2", "the pet of mira is dog .")], **recipe)


def published(job: NightJob) -> dict[str, Any]:
    """Everything of the version, byte for byte, without the moment it was made; and what the delivery that makes it would make."""
    child, replica = Path(job.child), load_version(Path(job.parent))
    files = {name: (child / name).read_bytes() for name in ("memory.safetensors", "cues.json", "config.json")}
    receipt, state = receive(replica.memory_layers, (Path(job.home) / "dawn.delivery").read_bytes())
    record = read_record(child).model_copy(update={"created_at": 0.0})
    return files | {"version.json": record, "delivered": (receipt.version, receipt.checksum, state)}


def told(outcome: Outputs) -> dict[str, Any]:
    """What does not depend on time, place and how often a process was started."""
    transfers = {
        name: {k: v for k, v in seeded.items() if k not in ("restarts", "deliveries", "phases")}
        for name, seeded in outcome["report"]["transfers"].items()
    }
    gate = outcome["report"]["gate"]
    return {"outcome": outcome["outcome"], "transfers": transfers, "gate": gate}


BREAKS = [
    *[("two levels", "distilled", 2, step) for step in (0, REFRESH, REFRESH + 1, TWO_NIGHTS)],
    *[("merge", "distilled", run, REFRESH + 1) for run in (1, 2)],
    *[(name, "imitating", 2, REFRESH + 1) for name in KINDS],
]
SEEDING: dict[str, dict[str, Any]] = {"distilled": {}, "imitating": IMITATING}
Whole = tuple[Path, NightJob, Outputs]


@pytest.fixture(scope="module")
def nights_of(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Whole]:
    """Nights that nothing disturbed, by kind and seeding, as they are needed: where their version lies, and how they ended."""
    return {}


@pytest.mark.parametrize(("name", "seeding", "run", "step"), BREAKS)
def test_a_night_that_is_broken_off_makes_the_same_losses_and_the_same_version(
    cluster: Cluster, tmp_path: Path, nights_of: dict[tuple[str, str], Whole], name: str, seeding: str, run: int, step: int
) -> None:
    """In the first or second transfer, at a checkpoint or beyond it, or when all is learned and no stage says so yet."""
    kind = KINDS[name]
    if (name, seeding) not in nights_of:
        whole = job_of(kind, tmp_path, tmp_path / "whole", SEEDING[seeding])
        nights_of[name, seeding] = tmp_path, whole, cluster.night(whole)
    root, whole, undisturbed = nights_of[name, seeding]
    assert undisturbed["outcome"] == "candidate", undisturbed

    broken = job_of(kind, root, tmp_path / "broken", SEEDING[seeding])
    cluster.die_before = (kind.runs[run], step)
    with pytest.raises(Killed):
        cluster.night(broken)
    assert not (tmp_path / "broken" / "outcome.json").exists()
    resumed = cluster.night(broken)

    once, twice = losses(whole), losses(broken)
    expected = {(run, step): loss for run, step, loss in once}
    assert list(dict.fromkeys(run for run, _, _ in once)) == [f"slp_1-{end}" for end in kind.runs]
    assert len(expected) == len(once) == 3 + STEPS + TWO_NIGHTS
    assert {(run, step) for run, step, _ in twice} == expected.keys()
    assert all(loss == expected[run, step] for run, step, loss in twice), "also where a step was taken twice"
    assert told(resumed) == told(undisturbed)
    assert published(broken) == published(whole)


def test_a_night_that_is_broken_off_takes_up_the_stages_that_are_sealed(cluster: Cluster, tmp_path: Path) -> None:
    kind = KINDS["two levels"]
    job = job_of(kind, tmp_path, tmp_path / "home", {})
    cluster.die_before = (kind.runs[2], REFRESH + 1)
    with pytest.raises(Killed):
        cluster.night(job)
    done = len(losses(job))
    cluster.night(job)
    events = [event for event in EventLog(Path(job.home)).read() if event["type"] != "sleep.progress"]
    again = [event["data"]["stage"] for event in events if event["type"] == "sleep.stage_resumed"]  # type: ignore[index]
    assert again[0] == "collect"
    assert again[-1] == "dream_corpus_level-2"
    assert len(again) == 2 + 5 + 3
    assert len(losses(job)) - done == TWO_NIGHTS - REFRESH, "the run goes on from its last checkpoint"
    state = version_state(Path(job.child))
    assert json.dumps(state.names()) == json.dumps([["pruned"], ["pruned", "pruned"], ["sealed", "sealed"]])
