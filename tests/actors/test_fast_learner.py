"""The fast learner on a real Ray: killed in the middle of a chunk, and started again."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import ray
from random_base import write_base
from ray.exceptions import RayActorError, RayTaskError

from actors import names
from actors.chunk_files import JOB_FILE, ROWS_FILE, ChunkFailed, chunk_folder, read_chunk
from actors.fast_learner import FastLearnerHandle
from circadian.memory.version import found_version
from circadian.specs import ChunkJob, Experience, Level, MemorySpec, Message, OnlineLearningSpec

pytestmark = pytest.mark.cluster

SPEC = MemorySpec(levels=(Level(period=64, experts=1, rank=16), Level(period=512, experts=2, rank=16)))
LEARNING = OnlineLearningSpec(steps=150, rows=8)
WAIT_SECONDS = 300.0


@pytest.fixture(scope="module")
def version(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    root = tmp_path_factory.mktemp("fast")
    found_version(str(write_base(root / "base", width=32, mlp_width=32, layers=2, heads=2, head_width=16)), None, SPEC, root / "v0")
    home = Path(os.environ.get("RAY_TMPDIR", "/tmp")) / f"circadian-fast-{os.getpid()}"  # sockets need a short path
    os.environ.update({"RAY_worker_niceness": "0"})
    ray.init(num_cpus=1, include_dashboard=False, namespace=names.NAMESPACE, _temp_dir=str(home), log_to_driver=False)
    yield root / "v0"
    ray.shutdown()


def write_job(version: Path, day: Path, number: int) -> Path:
    chats = [f"the city of mira is {word} ." for word in "oslo paris cairo lima delhi quito tokyo seoul".split()[number:]]
    experiences = tuple(
        Experience(id=f"exp_{number}_{i}", messages=(Message(role="user", content=chat),)) for i, chat in enumerate(chats)
    )
    job = ChunkJob(
        number=number,
        version=str(version),
        day=str(day),
        experiences=experiences,
        tokens=70,
        max_row_tokens=64,
        learning=LEARNING,
    )
    path = chunk_folder(day, number) / JOB_FILE
    path.parent.mkdir(parents=True)
    path.write_text(job.model_dump_json())
    return path


def kill_at_work(chunk: Path) -> None:
    """SIGKILL the learner that has begun with a chunk."""
    deadline = time.monotonic() + WAIT_SECONDS
    while not (chunk / ROWS_FILE).exists():
        assert time.monotonic() < deadline, "the learner did not begin"
        time.sleep(0.01)
    (learner,) = [p for p in psutil.Process().children(recursive=True) if "FastLearner" in " ".join(p.cmdline()[:1])]
    learner.kill()


def test_a_learner_killed_in_the_middle_of_a_chunk_makes_the_expert_of_one_that_was_not(version: Path, tmp_path: Path) -> None:
    jobs = {name: [write_job(version, tmp_path / name, number) for number in (1, 2)] for name in ("undisturbed", "killed")}
    handle = FastLearnerHandle.start("toy", LEARNING)
    undisturbed = [ray.get(handle.learn_ref(path), timeout=WAIT_SECONDS) for path in jobs["undisturbed"]]
    first = ray.get(handle.learn_ref(jobs["killed"][0]), timeout=WAIT_SECONDS)
    begun = FastLearnerHandle.attach("toy").learn_ref(jobs["killed"][1])
    kill_at_work(chunk_folder(tmp_path / "killed", 2))
    with pytest.raises(RayActorError):
        ray.get(begun, timeout=WAIT_SECONDS)
    assert read_chunk(tmp_path / "killed", 2) is None
    again = FastLearnerHandle.start("toy", LEARNING)
    second = ray.get(again.learn_ref(jobs["killed"][1]), timeout=WAIT_SECONDS)
    assert [record.checksum for record in (first, second)] == [record.checksum for record in undisturbed]
    again.kill()


def test_what_cannot_be_learned_is_said_as_such(version: Path, tmp_path: Path) -> None:
    handle = FastLearnerHandle.start("other", LEARNING)
    with pytest.raises(ChunkFailed) as refused:
        ray.get(handle.learn_ref(write_job(version, tmp_path, 2)), timeout=WAIT_SECONDS)  # there is no chunk 1
    assert isinstance(refused.value, RayTaskError)
    handle.kill()
