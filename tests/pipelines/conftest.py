"""What nights on everything real share."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import ray

from actors import names


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
