"""A random expert is as loud as it was asked to be, in every layer, and heard by the dreamer alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from random_base import write_base

from circadian.dreaming.novelty import NOVEL_LEVEL, novel_expert, with_novelty
from circadian.memory.graft import Grafted
from circadian.memory.tensors import write_tensors
from circadian.memory.version import found_version, load_version
from circadian.specs import Level, MemorySpec

SPEC = MemorySpec(levels=(Level(period=8, experts=1, rank=8), Level(period=64, experts=2, rank=8)), layers=(0, 2))


@pytest.fixture
def model(tmp_path: Path) -> Grafted:
    found_version(str(write_base(tmp_path / "base", "qwen3", layers=3)), None, SPEC, tmp_path / "v0")
    return load_version(tmp_path / "v0", torch.float32)


def texts(seed: int) -> torch.Tensor:
    ids = torch.randint(6, 400, (4, 12), generator=torch.Generator().manual_seed(seed))
    ids[1, 7:] = 0
    return ids


@pytest.mark.parametrize("strength", [0.1, 0.5])
def test_it_is_as_loud_as_asked_and_the_dreamer_alone_hears_it(model: Grafted, strength: float) -> None:
    ids, rested = texts(0), model.memory_state.view("rested")
    with torch.no_grad():
        before = model(input_ids=ids, view=rested).logits
        tensors = novel_expert(model, ids, rested, with_novelty(model.memory_state, rested)[1], strength, seed=3)
        model.memory_state, where, dreaming = with_novelty(model.memory_state, rested)
        write_tensors(model.memory_layers, tensors)
        assert torch.equal(model(input_ids=ids, view=rested).logits, before)
        streams: dict[str, dict[int, torch.Tensor]] = {"quiet": {}, "novel": {}}
        for name, view in (("quiet", rested), ("novel", dreaming)):
            first = model.model.layers[0].register_forward_hook(
                lambda module, args, output, name=name: streams[name].update(
                    {0: output[0] if isinstance(output, tuple) else output}
                )
            )
            model.hidden(ids, view)
            first.remove()
    real = ids != 0
    added, stream = (streams["novel"][0] - streams["quiet"][0])[real], streams["quiet"][0][real]
    assert float(added.square().mean().sqrt() / stream.square().mean().sqrt()) == pytest.approx(strength, rel=1e-3)
    assert where.level == NOVEL_LEVEL
    assert sum(dreaming) == sum(rested) + 1


def test_another_seed_is_another_expert_and_the_same_seed_the_same(model: Grafted) -> None:
    where = with_novelty(model.memory_state, model.memory_state.view("rested"))[1]
    one, again, other = (novel_expert(model, texts(0), "rested", where, 0.3, seed) for seed in (1, 1, 2))
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert not any(torch.equal(one[name], other[name]) for name in one if name.endswith((".A", ".B")))
