"""The learner on a cluster: Ray Train, several processes, and a process that is killed."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import ray
import torch
from learner_world import REFRESHES, LearnerWorld, broken, make_world, with_others
from random_base import write_base
from safetensors.torch import load_file

from actors import names
from actors.learner import LearnerFailed, LearnRequest, LearnResult, learn
from actors.rollout import RolloutHandle
from circadian.events import EventLog
from circadian.phases import ASKED, LOOP
from circadian.specs import EngineSpec

pytestmark = pytest.mark.cluster
STEPS = 60
"""Enough to kill one of two processes between two checkpoints."""
MANY_STEPS = 900
"""Enough for a process alone: blocks of several seconds, within which progress is told once a second."""
UNEVEN = {"uneven two": {"workers": 2, "zero_stage": 3, "wait_seconds": 60}, "uneven one": {}}
KILL_SECONDS = 240.0
"""Bound of the wait for the step at which a process is killed."""


@pytest.fixture(scope="module", autouse=True)
def _cluster() -> Iterator[None]:
    """Ray with room for two learner processes; a cluster that the test session has already is used."""
    if ray.is_initialized():
        yield
        return
    # Socket paths below _temp_dir must stay short.
    os.environ["RAY_worker_niceness"] = "0"  # at Ray's default of 15 the processes wait for everything else that runs
    ray.init(num_cpus=4, include_dashboard=False, _temp_dir=f"/tmp/circadian-ray-{os.getpid()}", log_to_driver=False)
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def undisturbed(world: LearnerWorld) -> LearnResult:
    """Two processes, everything sharded."""
    return learn(world.request("seeding", "two", steps=STEPS, workers=2, zero_stage=3))


def events(request: LearnRequest, type: str) -> list[dict[str, Any]]:
    """What the run told, oldest first."""
    return [e["data"] for e in EventLog(Path(request.home)).read() if e["type"] == type and isinstance(e["data"], dict)]


def kill_later(request: LearnRequest, rank: int, step: int) -> int:
    """Wait until the run is beyond a step, then kill one of its processes. Returns the step it was seen at."""
    until = time.monotonic() + KILL_SECONDS
    while not (seen := [e["step"] for e in events(request, "sleep.progress") if e["step"] > step]):
        assert time.monotonic() < until, "the run did not get to the step"
        time.sleep(0.02)
    victim = next(e["pid"] for e in events(request, "sleep.learner_started") if e["rank"] == rank)
    os.kill(victim, signal.SIGKILL)
    return seen[0]


@pytest.fixture(scope="module")
def alone(world: LearnerWorld) -> LearnResult:
    """One process."""
    return learn(world.request("seeding", "one", steps=STEPS))


def same(ours: LearnResult, theirs: LearnResult) -> None:
    """Both learned the same, as far as sums in another order let them."""
    assert (ours.restarts, theirs.restarts) == (0, 0)
    assert ours.first_loss == pytest.approx(theirs.first_loss, abs=1e-5)
    assert ours.final_loss == pytest.approx(theirs.final_loss, abs=1e-5)
    tensors, others = load_file(ours.tensors), load_file(theirs.tensors)
    assert tensors.keys() == others.keys()
    for name, tensor in tensors.items():
        torch.testing.assert_close(tensor, others[name], atol=1e-4, rtol=1e-3)


def test_two_sharded_processes_learn_what_one_does(undisturbed: LearnResult, alone: LearnResult) -> None:
    same(undisturbed, alone)


@pytest.mark.parametrize("zero_stage", [0, 1, 2])
def test_two_processes_that_shard_less_learn_it_too(world: LearnerWorld, alone: LearnResult, zero_stage: int) -> None:
    """Nothing sharded; the optimiser's state; its gradients too."""
    same(learn(world.request("seeding", f"stage {zero_stage}", steps=STEPS, workers=2, zero_stage=zero_stage)), alone)


def test_processes_with_unequal_rows_do_not_wait_for_each_other(world: LearnerWorld) -> None:
    """Three rows and two: the smaller share fills two parts, and sharded weights are gathered part by part."""
    uneven, alone = (learn(world.request("seeding", name, rows=5, **learner)) for name, learner in UNEVEN.items())
    assert uneven.first_loss == pytest.approx(alone.first_loss, abs=1e-5)
    assert uneven.final_loss == pytest.approx(alone.final_loss, abs=1e-5)


def test_a_killed_process_changes_nothing_of_the_result(world: LearnerWorld, undisturbed: LearnResult) -> None:
    request = world.request("seeding", "killed", steps=STEPS, workers=2, zero_stage=3)
    with ThreadPoolExecutor(max_workers=1) as pool:
        killed = pool.submit(kill_later, request, rank=1, step=STEPS // REFRESHES)
        result = learn(request)
        assert killed.result() < STEPS
    assert result.restarts == 1
    assert result.checksum == undisturbed.checksum
    assert (result.first_loss, result.final_loss) == (undisturbed.first_loss, undisturbed.final_loss)
    starts = [e["step"] for e in events(request, "sleep.learner_started") if e["rank"] == 0]
    assert starts in ([0, STEPS // 3], [0, 2 * STEPS // 3])


def test_two_sharded_processes_learn_from_other_models_what_one_does(tmp_path: Path) -> None:
    """Both load the teacher whole, and its lessons are the same in both; their heads of other sizes are compared chunk by chunk."""
    world = make_world(tmp_path)
    teacher = write_base(tmp_path / "other", width=16, mlp_width=16, layers=1, heads=1, head_width=16)
    kinds = {"alone": {}, "sharded": {"workers": 2, "zero_stage": 3, "wait_seconds": 60}}
    requests = {name: world.request("seeding", name, rows=7, **learner) for name, learner in kinds.items()}
    same(*(learn(with_others(world, request, teacher, ("kin", "stranger"))) for request in requests.values()))


def test_a_learner_killed_while_the_student_writes_ahead_goes_on(tmp_path: Path) -> None:
    """With a real engine, whose samples may differ in the last bit of a likelihood: that losses are the same is proven without one."""
    world, block = make_world(tmp_path, head_width=32), MANY_STEPS // REFRESHES
    engine = EngineSpec(max_model_len=64, max_num_seqs=16)
    rollout = RolloutHandle.start(world.version, "slp_ahead", attempt=1, index=0, engine=engine)
    try:
        rollout.ready()
        name = names.rollout_worker("slp_ahead", 1, 0)
        request = world.request("seeding", "ahead", steps=MANY_STEPS).model_copy(update={"rollouts": (name,), "engine": engine})
        with ThreadPoolExecutor(max_workers=1) as pool:
            killed = pool.submit(kill_later, request, rank=0, step=block)
            result = learn(request)
            assert block < killed.result() < MANY_STEPS
    finally:
        rollout.stop()
    assert result.restarts == 1
    assert result.deliveries.count == REFRESHES
    assert result.max_staleness_steps == 2 * block - 1
    assert result.mean_staleness_steps == pytest.approx((sum(range(block)) + 2 * sum(range(block, 2 * block))) / MANY_STEPS)
    assert all(bool(tensor.any()) for name, tensor in load_file(result.tensors).items() if name.endswith(".B")), "zero when fresh"
    assert {*LOOP, *ASKED, "start", "idle"} == result.phases.keys()
    assert all(result.phases[phase] > 0 for phase in ("start", "teach", "learn", "generate", "deliver"))


def test_repeating_a_task_continues_its_run(world: LearnerWorld) -> None:
    request = world.request("fast_learning", "repeated")
    first, again = learn(request), learn(request)
    assert again.checksum == first.checksum
    assert (again.first_loss, again.final_loss) == (first.first_loss, first.final_loss)
    assert [e["step"] for e in events(request, "sleep.learner_started")] == [0, 2 * first.steps // REFRESHES]


def test_a_loss_that_is_not_finite_is_not_tried_again(world: LearnerWorld) -> None:
    request = world.request("fast_learning", "diverges")
    with pytest.raises(LearnerFailed, match="lower the task's lr"):
        learn(broken(request))
    assert len(events(request, "sleep.learner_started")) == 1
