"""What tests of nights share: a version that has slept, and Ray for nights on everything real."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
from night_world import draw
from random_base import write_base

from actors import names
from circadian.memory.state import ExpertId, MemoryState
from circadian.memory.version import found_version, load_version, save_version
from circadian.specs import ExpertRecord, Level, MemorySpec

SPEC = MemorySpec(levels=(Level(period=64, experts=1, rank=4), Level(period=512, experts=3, rank=4)), layers=(1,))


@pytest.fixture(scope="module")
def real_cluster() -> Iterator[None]:
    """Ray with room for a learner and a rollout worker; a cluster that the test session has already is used."""
    if ray.is_initialized():
        yield
        return
    os.environ |= {"RAY_worker_niceness": "0"} | names.learner_environment()
    temp = f"/tmp/circadian-ray-{os.getpid()}"
    ray.init(num_cpus=4, include_dashboard=False, _temp_dir=temp, log_to_driver=False, namespace=names.NAMESPACE)
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A version that has slept once: expert 0 of level 1 is sealed, and it carries two cues."""
    root = tmp_path_factory.mktemp("night")
    base = write_base(root / "base", width=32, mlp_width=64, layers=2, heads=2, head_width=16)
    record = found_version(str(base), None, SPEC, root / "v0")
    model = load_version(root / "v0")
    draw(model, ExpertId(1, 0), 1)
    model.memory_state = MemoryState.parse([["pruned"], ["sealed", "reserved", "reserved"]])
    cues = {"met": 2, "cues": [{"ids": [1, 4, 9, 8], "sleep": "slp_0", "question": q} for q in (True, False)]}
    update = {
        "id": "v1",
        "parent": "v0",
        "lineage": (ExpertRecord(level=1, expert=0, sleep="slp_0", nights=("slp_0",), data_sha256=""),),
    }
    save_version(root / "v1", model, record.model_copy(update=update), root / "v0", {"cues.json": json.dumps(cues)})
    return root / "v1"
