"""On a cluster whose only node is a learner's: what asks for that role runs there, and who asks for what no node offers says so, and
gives up in time."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
from learner_world import LearnerWorld
from ray.train import TrainingFailedError

from actors import names
from actors.dreamwork import NovelRequest, RayHands
from actors.fast_learner import FastLearnerHandle
from actors.learner import learn
from circadian.events import EventLog
from circadian.specs import EngineSpec, Experience, LearnerSpec, Message, NightJob, OnlineLearningSpec, Recipe, RolloutSpec
from pipelines.rollouts import RolloutPool, RolloutsMissing

pytestmark = pytest.mark.cluster

LEARNERS = f"{names.ROLE}learner"
OFFERED = 1000.0


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    options = {"include_dashboard": False, "namespace": names.NAMESPACE, "log_to_driver": False}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_worker_niceness", "0")
        patch.setenv(names.ROLES_VARIABLE, "1")
        ray.init(num_cpus=2, resources={LEARNERS: OFFERED}, _temp_dir=f"/tmp/circadian-roles-{os.getpid()}", **options)
        yield
        ray.shutdown()


def test_dreams_are_tried_on_the_nodes_of_learners(cluster: None) -> None:
    def held(request_json: str) -> dict[str, float]:
        """What the task that this runs in holds; here, because workers do not find this file."""
        return ray.get_runtime_context().get_assigned_resources()

    request = NovelRequest.model_validate(
        {
            "model": {"version": "v", "experts": [], "view": []},
            "reads": [],
            "place": (0, 0),
            "strength": 1.0,
            "seed": 0,
            "file": "f",
        }
    )
    assert RayHands(LearnerSpec(), pack_tokens=1).do(held, [request]) == [{"CPU": 1.0, LEARNERS: names.ROLE_SHARE}]


def test_the_learner_of_a_day_is_on_a_node_of_learners(cluster: None) -> None:
    learner = FastLearnerHandle.start("dep_1", OnlineLearningSpec())
    with pytest.raises(FileNotFoundError):
        ray.get(learner.learn_ref(Path("no-such-job")), timeout=300)  # it has started by now
    assert ray.available_resources()[LEARNERS] == pytest.approx(OFFERED - names.ROLE_SHARE)
    learner.kill()


def waits(home: Path) -> list[object]:
    return [event["message"] for event in EventLog(home).read() if event["type"] == "sleep.waiting"]


def test_rollout_workers_that_find_no_node_are_told_of_and_given_up(cluster: None, world: LearnerWorld, tmp_path: Path) -> None:
    told = Experience(id="exp_1", messages=(Message(role="user", content="the city of mira is oslo ."),), source="human")
    (tmp_path / "experiences.jsonl").write_text(told.model_dump_json())
    rollouts = RolloutSpec(engine=EngineSpec(start_seconds=1.0))
    files = {"child": str(tmp_path / "v2"), "home": str(tmp_path), "experiences": str(tmp_path / "experiences.jsonl")}
    job = NightJob(sleep="slp_1", deployment="dep", parent=str(world.version), recipe=Recipe(rollouts=rollouts), **files)
    pool = RolloutPool(job)
    with pytest.raises(RolloutsMissing, match=r"1 of 1 rollout workers .* no node of the cluster offers circadian_rollout"):
        pool.deliver(b"")
    (said,) = waits(tmp_path)
    assert str(said).startswith("waits for rollout workers: no node of the cluster offers circadian_rollout")


def test_learners_that_find_no_node_are_told_of_and_given_up(
    cluster: None, world: LearnerWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "1")
    request = world.request("fast_learning", "lonely", cpus_per_worker=64, max_failures=0)
    with pytest.raises(TrainingFailedError, match=r"(?i)timed out|timeout"):
        learn(request)
    assert waits(Path(request.home)) == ["waits for learners: no node of the cluster offers CPU 64"]
