"""What tests share: one engine of each family, which takes half a minute to start, and what a learner's process is given."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from engine_world import VIEWS, EngineWorld, LiveEngine, make_world
from learner_world import LearnerWorld
from learner_world import make_world as make_learner_world

from actors import names

os.environ.update(names.vllm_environment())


@contextmanager
def started(world: EngineWorld, **spec: int) -> Iterator[LiveEngine]:
    from actors.engine import MemoryEngine
    from circadian.memory.version import load_version
    from circadian.specs import EngineSpec

    with asyncio.Runner() as runner:
        live = LiveEngine(runner.run(MemoryEngine.start(world.folder, EngineSpec(max_num_seqs=64, **spec))), runner.run, world, {})
        model = load_version(world.folder)
        live.as_loaded.update({view: live.ask_twice(model, view) for view in VIEWS})
        yield live
        live.engine.shutdown()


@pytest.fixture(scope="session")
def engine_world(tmp_path_factory: pytest.TempPathFactory) -> EngineWorld:
    return make_world(tmp_path_factory.mktemp("engine"), "qwen3")


@pytest.fixture(scope="session")
def live(engine_world: EngineWorld) -> Iterator[LiveEngine]:
    with started(engine_world) as live:
        yield live


@pytest.fixture(scope="session")
def live_llama(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveEngine]:
    with started(make_world(tmp_path_factory.mktemp("engine-llama"), "llama")) as live:
        yield live


@pytest.fixture(scope="session")
def live_with_adapters(engine_world: EngineWorld) -> Iterator[LiveEngine]:
    with started(engine_world, adapters=3, adapter_rank=6) as live:
        yield live


@pytest.fixture
def live_of_family(request: pytest.FixtureRequest) -> LiveEngine:
    return request.getfixturevalue({"qwen3": "live", "llama": "live_llama"}[request.param])


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> LearnerWorld:
    """What a learner's process is given, of a random base."""
    return make_learner_world(tmp_path_factory.mktemp("learner"))
