"""A night's worker on a real Ray: it keeps the views of those who ask at once apart."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray
import torch
from engine_world import EXPERTS, EngineWorld

from actors import names
from circadian.memory.delivery import pack
from circadian.memory.envelope import DeliveryRefused
from circadian.memory.graft import Grafted

pytestmark = pytest.mark.cluster

START_SECONDS = 300.0
GONE_SECONDS = 20.0


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    home = Path(os.environ.get("RAY_TMPDIR", "/tmp")) / f"circadian-test-{os.getpid()}"  # sockets need a short path
    os.environ.update({"RAY_worker_niceness": "0"})  # Ray's default of 15 makes an engine wait for everything else that runs
    ray.init(num_cpus=2, include_dashboard=False, namespace=names.NAMESPACE, _temp_dir=str(home), log_to_driver=False)
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def rollout(cluster: None, engine_world: EngineWorld) -> Iterator[Any]:
    """A rollout worker on the first version."""
    from actors.rollout import RolloutHandle

    rollout = RolloutHandle.start(engine_world.folder, "slp_test", attempt=1, index=0)
    assert ray.get(rollout.ready_ref(), timeout=START_SECONDS) == engine_world.folder.name
    below = psutil.Process().children(recursive=True)
    engines = [p for p in below if "EngineCore" in p.name() and any("RolloutWorker" in parent.name() for parent in p.parents())]
    assert len(engines) == 1
    yield rollout
    rollout.stop()
    _, left = psutil.wait_procs(engines, timeout=GONE_SECONDS)
    assert not left, "a stopped actor left its engine behind"


def delivery(model: Grafted, version: str) -> bytes:
    return pack(model.memory_layers, EXPERTS, model.memory_state, version)


@torch.no_grad()
def greedy(model: Grafted, prompts: list[list[int]], view: Any) -> list[list[int]]:
    return [[int(model(input_ids=torch.tensor([p]), view=view).logits[0, -1].argmax())] for p in prompts]


def test_callers_at_once_never_see_each_others_view(rollout: Any, engine_world: EngineWorld) -> None:
    from actors.rollout import RolloutHandle

    model = engine_world.grown(seed=30)
    receipt = rollout.deliver(delivery(model, "student-1"))
    assert receipt.version == rollout.ready() == "student-1"
    other = RolloutHandle.attach(names.rollout_worker("slp_test", attempt=1, index=0))
    rows = torch.randint(6, len(engine_world.tokenizer), (8, 30), generator=torch.Generator().manual_seed(0)).tolist()
    views = [name for _ in range(3) for name in ("base", "awake", "rested", "student")]
    refs = [
        (rollout, other)[i % 2].sample_ref(model.memory_state.view(view), rows, max_tokens=1, temperature=0.0, seed=0)
        for i, view in enumerate(views)
    ]
    expected = {view: greedy(model, rows, view) for view in views}
    assert len({json.dumps(answer) for answer in expected.values()}) == 4
    assert ray.get(refs) == [expected[view] for view in views]


def test_the_sampler_scores_what_the_learner_scores(rollout: Any, engine_world: EngineWorld) -> None:
    model = engine_world.grown(seed=31)
    rollout.deliver(delivery(model, "student-2"))
    ids = torch.randint(6, len(engine_world.tokenizer), (2, 50), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        all_logprobs = torch.log_softmax(model(input_ids=ids, view="student").logits[:, :-1], -1)
    expected = all_logprobs.gather(-1, ids[:, 1:, None])[..., 0]
    got = torch.tensor([[read.logprob for read in row] for row in rollout.read(model.memory_state.view("student"), ids.tolist())])
    assert torch.allclose(got, expected, atol=1e-4)


def test_a_refused_delivery_reaches_the_caller_as_such(rollout: Any, engine_world: EngineWorld) -> None:
    spoilt = delivery(engine_world.grown(seed=32), "spoilt")[:-4] + bytes(4)
    version = rollout.ready()
    with pytest.raises(DeliveryRefused):
        rollout.deliver(spoilt)
    assert rollout.ready() == version
