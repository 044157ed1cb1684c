"""Instances that were trained in one pass, asked in one engine: each answers as itself, and the deployment as the deployment."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from engine_world import EngineWorld, LiveEngine

from circadian.dreaming.instances import Adapter, Pack, fine_tune
from circadian.dreaming.peft_files import write_adapter
from circadian.experience import Row
from circadian.memory.graft import Grafted
from circadian.memory.version import load_version
from circadian.specs.dreaming import AdapterSpec

pytestmark = pytest.mark.engine
SPEC = AdapterSpec(rank=6, alpha=12.0, lr=2e-2, epochs=12, batch=2)
INSTANCES = 5
"""More than the engine has places for, so that some are put out and come back."""
WRITTEN = 6


@pytest.fixture(scope="module")
def model(engine_world: EngineWorld) -> Grafted:
    return load_version(engine_world.folder, torch.float32)


@pytest.fixture(scope="module")
def adapters(model: Grafted, engine_world: EngineWorld) -> list[Adapter]:
    texts = [engine_world.prompts(3, 12, seed=i + 1).tolist() for i in range(INSTANCES)]
    dreams = [[Row(tuple(row), (0.0, *[1.0] * (len(row) - 1))) for row in rows] for rows in texts]
    return fine_tune(model, dreams, SPEC, seed=0)


@pytest.fixture(scope="module")
def folders(adapters: list[Adapter], tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    home = tmp_path_factory.mktemp("adapters")
    for i, adapter in enumerate(adapters):
        write_adapter(home / str(i), adapter)
    return [str(home / str(i)) for i in range(INSTANCES)]


@pytest.fixture
def rested(live_with_adapters: LiveEngine, model: Grafted) -> Iterator[LiveEngine]:
    live_with_adapters.run(live_with_adapters.engine.set_view(model.memory_state.view("rested")))
    yield live_with_adapters
    live_with_adapters.run(live_with_adapters.engine.set_view(None))


def asked(live: LiveEngine, prompts: list[list[int]], folders: list[str]) -> list[list[int]]:
    answers = live.engine.sample(prompts, max_tokens=WRITTEN, temperature=0.0, seed=0, adapters=folders)
    return live.run(answers)


@torch.no_grad()
def expected(model: Grafted, prompt: list[int], adapter: Adapter | None) -> list[int]:
    """Greedily, by the learner's model."""
    ids, pack = list(prompt), Pack(model, 1, SPEC, 0)
    if adapter:
        pack.go_on_from(adapter)
    with pack.attached():
        for _ in range(WRITTEN):
            ids.append(int(model(input_ids=torch.tensor([ids]), view="rested").logits[0, -1].argmax()))
    return ids[len(prompt) :]


def test_every_instance_answers_as_itself_among_the_others(
    rested: LiveEngine, model: Grafted, adapters: list[Adapter], folders: list[str]
) -> None:
    prompts = rested.world.prompts(3, 10, seed=50).tolist()
    who = [
        (adapter, folder, prompt) for prompt in prompts for adapter, folder in [(None, ""), *zip(adapters, folders, strict=True)]
    ]
    answers = asked(rested, [prompt for _, _, prompt in who], [folder for _, folder, _ in who])
    wanted = [expected(model, prompt, adapter) for adapter, _, prompt in who]
    assert answers == wanted
    assert len({tuple(answer) for answer in answers}) > 2 * len(prompts), "the instances must be told apart"


@torch.no_grad()
def test_an_engine_with_adapters_reads_texts_as_the_deployment(rested: LiveEngine, model: Grafted, folders: list[str]) -> None:
    ids = rested.world.prompts(2, 30, seed=70)
    asked(rested, ids[:, :9].tolist(), folders[:2])
    read = rested.run(rested.engine.read(ids.tolist()))
    log_probs = model(input_ids=ids, view="rested").logits[:, :-1].log_softmax(-1).gather(-1, ids[:, 1:, None])[..., 0]
    torch.testing.assert_close(torch.tensor([[token.logprob for token in row] for row in read]), log_probs, atol=1e-4, rtol=0)


def test_all_of_an_adapter_are_answered_together_and_no_more_adapters_than_there_are_places_for() -> None:
    from actors.engine import waves  # vLLM takes seconds to import

    assert waves(["", "a", "b", "a", "c", ""], 2) == [[0, 1, 2, 3, 5], [4]]
    assert waves(["a", "b"], 1) == [[0], [1]]
    assert waves(["", ""], 0) == [[0, 1]]
    assert waves([], 3) == []


def test_a_folder_that_is_written_anew_is_another_instance(
    rested: LiveEngine, model: Grafted, adapters: list[Adapter], folders: list[str], tmp_path: Path
) -> None:
    prompt = next(
        prompt
        for prompt in rested.world.prompts(50, 10, seed=60).tolist()
        if expected(model, prompt, adapters[0]) != expected(model, prompt, adapters[1])
    )
    shutil.copytree(folders[0], tmp_path / "one")
    assert asked(rested, [prompt], [str(tmp_path / "one")]) == [expected(model, prompt, adapters[0])]
    write_adapter(tmp_path / "one", adapters[1])
    assert asked(rested, [prompt], [str(tmp_path / "one")]) == [expected(model, prompt, adapters[1])]


def test_an_engine_without_places_says_what_to_set(live: LiveEngine, folders: list[str]) -> None:
    with pytest.raises(ValueError, match=r"rollouts\.engine\.adapters"):
        asked(live, [[7, 8, 9]], folders[:1])
