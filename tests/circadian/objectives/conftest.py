"""A model whose fast and slow experts are open and say something, for every objective."""

from pathlib import Path

import pytest
import torch

from circadian.memory.graft import Grafted
from circadian.memory.version import found_version, load_version
from circadian.specs import Level, MemorySpec


@pytest.fixture
def model(base: Path, tmp_path: Path) -> Grafted:
    levels = (Level(period=4, experts=1, rank=8), Level(period=8, experts=2, rank=8))
    found_version(str(base), None, MemorySpec(levels=levels), tmp_path / "ver_0")
    model = load_version(tmp_path / "ver_0")
    for where in (model.open_expert(0, seed=1), model.open_expert(1, seed=2)):
        for layer in model.memory_layers.values():
            for tensor in layer.levels[where.level].slices(where.expert).values():
                tensor.copy_(torch.randn(tensor.shape, generator=torch.Generator().manual_seed(3)) * 0.2)
    return model
