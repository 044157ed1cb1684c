"""What an engine computes of a layer's memory is what the learner's layer computes, whichever experts it hears."""

from __future__ import annotations

from itertools import product

import pytest
import torch

from circadian.memory.layer import MemoryLayer
from circadian.memory.state import ExpertId
from circadian.specs import Level, MemorySpec

pytestmark = pytest.mark.engine

WIDTH = 32
SPEC = MemorySpec(levels=(Level(period=4, experts=1, rank=8), Level(period=8, experts=3, rank=16)))
EVERYBODY = (1.0,) * 4
MASKS = list(product((0.0, 1.0), repeat=4))


@pytest.fixture
def layer() -> MemoryLayer:
    """A layer's memory whose experts all hold something."""
    layer = MemoryLayer(WIDTH, SPEC)
    fill(layer, seed=0)
    return layer


def fill(layer: MemoryLayer, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in layer.levels.parameters():
        parameter.copy_(torch.randn(parameter.shape, generator=generator) / 4)


def check(layer: MemoryLayer, heard: torch.nn.Module, mask: tuple[float, ...]) -> None:
    x = torch.randn(5, WIDTH, generator=torch.Generator().manual_seed(1))
    expected, got = layer(x, torch.tensor(mask)), heard(x)
    torch.testing.assert_close(torch.zeros_like(x) if got is None else got, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("fixed", [False, True])
def test_every_mask_is_computed_as_the_learners_layer_computes_it(layer: MemoryLayer, fixed: bool) -> None:
    from circadian.memory.vllm_heard import HeardExperts

    heard = HeardExperts(layer, fixed=fixed)
    for mask in (*MASKS, *reversed(MASKS)):  # more of them, and fewer
        heard.listen(mask)
        check(layer, heard, mask)


@pytest.mark.parametrize("fixed", [False, True])
def test_what_is_written_later_is_heard_by_who_listens_again(layer: MemoryLayer, fixed: bool) -> None:
    from circadian.memory.vllm_heard import HeardExperts

    heard = HeardExperts(layer, fixed=fixed)
    heard.listen(EVERYBODY)
    fill(layer, seed=2)
    heard.listen(EVERYBODY)
    check(layer, heard, EVERYBODY)
    layer.erase(ExpertId(1, 1))
    heard.listen(EVERYBODY)
    check(layer, heard, EVERYBODY)
    check(layer, heard, (1.0, 1.0, 0.0, 1.0))


def test_an_engine_computes_who_is_heard_and_nobody_else(layer: MemoryLayer) -> None:
    from circadian.memory.vllm_heard import HeardExperts

    heard = HeardExperts(layer, fixed=False)
    heard.listen((0.0, 1.0, 0.0, 1.0))
    assert heard.count == 2
    heard.listen((0.0,) * 4)
    assert heard(torch.ones(1, WIDTH)) is None


def test_a_compiled_engine_sees_neither_a_shape_nor_an_address_change(layer: MemoryLayer) -> None:
    from circadian.memory.vllm_heard import HeardExperts

    heard, seen = HeardExperts(layer, fixed=True), set()
    for mask in MASKS:
        heard.listen(mask)
        seen.add(tuple((tensor.data_ptr(), tensor.shape) for tensor in heard.parameters()))
    assert len(seen) == 1
