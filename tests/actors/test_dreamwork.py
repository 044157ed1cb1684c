"""Work on dreams is the same in whatever pack it is done, and on the cluster what it is in this process."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
import torch
from hypothesis import given
from hypothesis import strategies as st
from random_base import write_base
from safetensors.torch import load_file

from actors import names
from actors.dreamwork import (
    DreamingModel,
    NovelRequest,
    RayHands,
    TuneRequest,
    novel_in_process,
    packs,
    tune_in_process,
)
from circadian.dreaming.peft_files import read_adapter
from circadian.experience import Row
from circadian.memory.version import found_version, load_version
from circadian.specs import LearnerSpec, Level, MemorySpec
from circadian.specs.dreaming import AdapterSpec

SPEC = MemorySpec(levels=(Level(period=8, experts=1, rank=8), Level(period=64, experts=2, rank=8)), layers=(1,))
ADAPTER = AdapterSpec(rank=4, alpha=8.0, lr=2e-2, epochs=8, batch=2)


def text(seed: int, rows: int, length: int) -> list[Row]:
    ids = torch.randint(6, 60, (rows, length), generator=torch.Generator().manual_seed(seed)).tolist()
    return [Row(tuple(row), (0.0, *[1.0] * (length - 1))) for row in ids]


TEXTS = [text(0, 2, 5), text(1, 4, 9), text(2, 3, 9), text(3, 1, 30), text(4, 2, 4)]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> DreamingModel:
    home = tmp_path_factory.mktemp("dreamer")
    base = write_base(home / "base", width=32, mlp_width=32, layers=2, heads=2, head_width=16)
    found_version(str(base), None, SPEC, home / "v0")
    state = load_version(home / "v0").memory_state
    return DreamingModel(version=str(home / "v0"), experts=tuple(map(tuple, state.names())), view=state.view("rested"))


@pytest.fixture(scope="module")
def ray_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    home = tmp_path_factory.mktemp("r")
    os.environ.update({"RAY_worker_niceness": "0"})
    ray.init(num_cpus=2, include_dashboard=False, namespace=names.NAMESPACE, _temp_dir=str(home), log_to_driver=False)
    yield
    ray.shutdown()


@given(
    st.lists(st.tuples(st.integers(1, 4), st.integers(2, 40)), min_size=1, max_size=12),
    st.integers(1, 4),
    st.integers(1, 400),
    st.integers(1, 5),
)
def test_packs_hold_every_text_once_and_are_bounded(shapes: list[tuple[int, int]], batch: int, bound: int, most: int) -> None:
    texts = [[Row((1,) * length, (1.0,) * length)] * rows for rows, length in shapes]
    made = packs(texts, batch, bound, most)
    assert sorted(number for pack in made for number in pack.numbers) == list(range(len(texts)))
    for pack in made:
        assert pack.rows() == [list(texts[number]) for number in pack.numbers]
        size = len(pack.numbers) * batch * max(len(row.ids) for rows in pack.rows() for row in rows)
        assert len(pack.numbers) == 1 or size <= bound
        assert len(pack.numbers) <= most


@pytest.mark.cluster
def test_on_the_cluster_and_in_small_packs_the_same_is_learned(model: DreamingModel, tmp_path: Path, ray_cluster: None) -> None:
    hands = RayHands(LearnerSpec(workers=2), pack_tokens=40)
    spread = hands.tune(model, TEXTS, ADAPTER, 7, tmp_path / "ray")
    (whole,) = packs(TEXTS, ADAPTER.batch, 10_000)
    request = TuneRequest(model=model, pack=whole, adapter=ADAPTER, seed=7, folder=str(tmp_path / "here"), most_tokens=10_000)
    here = dict(zip(whole.numbers, tune_in_process(request.model_dump_json()), strict=True))
    for number, losses in enumerate(spread):
        assert losses == pytest.approx(here[number], abs=1e-5)
        assert sum(losses[-2:]) < sum(losses[:2]) - 0.1
        ours, theirs = (read_adapter(tmp_path / place / str(number), ADAPTER) for place in ("ray", "here"))
        for name, (A, B) in ours.tensors.items():
            torch.testing.assert_close(A, theirs.tensors[name][0], atol=1e-5, rtol=1e-4)
            torch.testing.assert_close(B, theirs.tensors[name][1], atol=1e-5, rtol=1e-4)
    narrow, wide = (torch.tensor(RayHands(LearnerSpec(), bound).weigh(model, TEXTS, ADAPTER, 7)) for bound in (40, 10_000))
    torch.testing.assert_close(narrow, wide, atol=1e-5, rtol=1e-3)
    assert narrow.norm(dim=1).min() > 0


def test_a_novel_expert_is_written_whole(model: DreamingModel, tmp_path: Path) -> None:
    request = NovelRequest(
        model=model, reads=((7, 8, 9), (10, 11)), place=(0, 0), strength=0.2, seed=1, file=str(tmp_path / "novel.safetensors")
    )
    novel_in_process(request.model_dump_json())
    tensors = load_file(tmp_path / "novel.safetensors")
    assert {name: tuple(tensor.shape) for name, tensor in tensors.items()} == {
        "layers.1.levels.0.experts.0.A": (8, 32),
        "layers.1.levels.0.experts.0.B": (32, 8),
        "layers.1.levels.0.experts.0.W": (1, 32),
        "layers.1.levels.0.experts.0.b": (1,),
    }
    assert list(tmp_path.iterdir()) == [tmp_path / "novel.safetensors"]
