"""One engine for all tests that need one: it takes half a minute to start."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator

import pytest
from engine_world import SPEC, EngineWorld, LiveEngine

from actors import names
from circadian.memory.version import found_version
from circadian.nursery.text import build_tokenizer
from circadian.nursery.train import build_model
from circadian.nursery.world import World
from circadian.specs import NurserySpec

os.environ.update(names.vllm_environment())


@pytest.fixture(scope="session")
def engine_world(tmp_path_factory: pytest.TempPathFactory) -> EngineWorld:
    home = tmp_path_factory.mktemp("engine")
    tokenizer = build_tokenizer(World(0))
    build_model(NurserySpec(), tokenizer).save_pretrained(home / "base")
    tokenizer.save_pretrained(home / "base")
    found_version(str(home / "base"), None, SPEC, home / "v0")
    return EngineWorld(home / "v0", tokenizer)


@pytest.fixture(scope="session")
def live(engine_world: EngineWorld) -> Iterator[LiveEngine]:
    from actors.engine import MemoryEngine
    from circadian.specs import EngineSpec

    with asyncio.Runner() as runner:
        engine = runner.run(MemoryEngine.start(engine_world.folder, EngineSpec(max_num_seqs=64)))
        yield LiveEngine(engine, runner.run)
        engine.shutdown()
