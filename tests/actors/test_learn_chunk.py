"""The online update of the fast level: the same experiences make the same expert, whoever is killed on the way."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from random_base import write_base
from safetensors.torch import load_file, save_file

from actors import learn_chunk as module
from actors.chunk_files import ChunkFailed, chunk_folder, read_chunk
from actors.learn_chunk import FastLevel, learn_chunk, mixed, read_expert
from circadian.experience import Row
from circadian.memory.delivery import receive
from circadian.memory.state import ExpertId
from circadian.memory.tensors import checksum, expert_tensors
from circadian.memory.version import found_version, load_version
from circadian.specs import ChunkJob, Experience, Level, MemorySpec, Message, OnlineLearningSpec

SPEC = MemorySpec(levels=(Level(period=64, experts=1, rank=4), Level(period=512, experts=2, rank=4)), layers=(1,))
LEARNING = OnlineLearningSpec(steps=6, rows=4, seed=3)
WORDS = "oslo paris cairo lima delhi quito tokyo seoul".split()


class Killed(BaseException):
    """What SIGKILL would do: nothing after it happens."""


@pytest.fixture(scope="module")
def version(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("chunks")
    base = write_base(root / "base", width=32, mlp_width=32, layers=2, heads=2, head_width=16)
    found_version(str(base), None, SPEC, root / "v0")
    return root / "v0"


def job(version: Path, day: Path, number: int, words: Sequence[str] | None = None, **learning: object) -> ChunkJob:
    chats = [f"the city of mira is {word} ." for word in words or WORDS[number - 1 : number + 2]]
    experiences = tuple(
        Experience(id=f"exp_{number}_{i}", messages=(Message(role="user", content=chat),), source="human")
        for i, chat in enumerate(chats)
    )
    chunk_folder(day, number).mkdir(parents=True, exist_ok=True)
    return ChunkJob(
        number=number,
        version=str(version),
        day=str(day),
        experiences=experiences,
        tokens=30,
        max_row_tokens=64,
        learning=LEARNING.model_copy(update=learning),
    )


def lived(version: Path, day: Path, chunks: int = 3) -> list[str]:
    """Checksums after each chunk of a day with one learner."""
    level = FastLevel(version)
    return [learn_chunk(job(version, day, number), level).checksum for number in range(1, chunks + 1)]


def test_the_same_experiences_make_the_same_expert_bit_for_bit(version: Path, tmp_path: Path) -> None:
    first, second = lived(version, tmp_path / "a"), lived(version, tmp_path / "b")
    assert first == second
    assert len(set(first)) == 3
    one, other = read_expert(tmp_path / "a", 3), read_expert(tmp_path / "b", 3)
    assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())
    level = FastLevel(version)
    reseeded = learn_chunk(job(version, tmp_path / "c", 1, seed=4), level)
    assert reseeded.checksum != first[0]


@pytest.mark.parametrize("files", [0, 1, 2, 3], ids=["learning", "rows written", "expert written", "delivery written"])
def test_killed_in_a_chunk_and_started_again_it_makes_the_expert_of_one_that_was_not(
    version: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: int
) -> None:
    undisturbed = lived(version, tmp_path / "undisturbed")
    day, level = tmp_path / "killed", FastLevel(version)
    learn_chunk(job(version, day, 1), level)
    with monkeypatch.context() as patch:
        if files:
            written, write = iter(range(files)), module.write_whole

            def dies_after(path: Path, content: bytes | str) -> None:
                if next(written, None) is None:
                    raise Killed
                write(path, content)

            patch.setattr(module, "write_whole", dies_after)
        else:
            loss, steps = module.fast_learning_loss, iter(range(LEARNING.steps // 2))

            def dies(*args: object) -> torch.Tensor:
                if next(steps, None) is None:
                    raise Killed
                return loss(*args)  # type: ignore[arg-type]

            patch.setattr(module, "fast_learning_loss", dies)
        with pytest.raises(Killed):
            learn_chunk(job(version, day, 2), level)
    assert read_chunk(day, 2) is None, "what is not whole is not committed"
    again = FastLevel(version)
    assert [learn_chunk(job(version, day, number), again).checksum for number in (1, 2, 3)] == undisturbed


def test_a_learner_that_failed_in_a_chunk_learns_it_as_a_fresh_one(
    version: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is in the model's memory does not matter, only what is on disk."""
    undisturbed, level = lived(version, tmp_path / "undisturbed", 2), FastLevel(version)
    learn_chunk(job(version, tmp_path / "day", 1), level)
    with monkeypatch.context() as patch:
        patch.setattr(module, "lr_at", lambda *_: float("inf"))
        with pytest.raises(ChunkFailed, match=r"lower online_learning\.lr"):
            learn_chunk(job(version, tmp_path / "day", 2), level)
    assert learn_chunk(job(version, tmp_path / "day", 2), level).checksum == undisturbed[1]


def test_a_committed_chunk_is_not_learned_again(version: Path, tmp_path: Path) -> None:
    level = FastLevel(version)
    first = learn_chunk(job(version, tmp_path, 1), level)
    assert learn_chunk(job(version, tmp_path, 1, WORDS[5:]), level) == first


def test_an_expert_that_is_not_the_committed_one_is_not_built_on(version: Path, tmp_path: Path) -> None:
    level = FastLevel(version)
    learn_chunk(job(version, tmp_path, 1), level)
    path = chunk_folder(tmp_path, 1) / "expert.safetensors"
    save_file({name: tensor + 1 for name, tensor in load_file(path).items()}, path)
    with pytest.raises(ChunkFailed, match="not what was committed"):
        learn_chunk(job(version, tmp_path, 2), level)


def test_only_the_fast_expert_learns_and_the_delivery_carries_it(version: Path, tmp_path: Path) -> None:
    level = FastLevel(version)
    others = {name: tensor.clone() for name, tensor in level.model.named_parameters() if ".levels.0." not in name}
    record = learn_chunk(job(version, tmp_path, 1), level)
    assert all(torch.equal(tensor, others[name]) for name, tensor in level.model.named_parameters() if name in others)
    assert record.final_loss is not None
    assert record.first_loss is not None
    assert record.final_loss < record.first_loss
    replica = load_version(version)
    receipt, state = receive(replica.memory_layers, (chunk_folder(tmp_path, 1) / "wake.delivery").read_bytes())
    assert (receipt.version, record.label) == ("v0+w1", "v0+w1")
    assert checksum(expert_tensors(replica.memory_layers, [ExpertId(0, 0)])) == record.checksum
    assert state.names()[0] == ["open"]


def test_a_chunk_with_nothing_to_learn_changes_nothing(version: Path, tmp_path: Path) -> None:
    level, own = FastLevel(version), Message(role="assistant", content="oslo")
    first = learn_chunk(job(version, tmp_path, 1), level)
    silent = job(version, tmp_path, 2).model_copy(update={"experiences": (Experience(id="x", messages=(own,), source="wake"),)})
    record = learn_chunk(silent, level)
    assert (record.rows, record.steps, record.checksum) == (0, 0, first.checksum)
    assert record.left_out == {"x": "nothing to learn"}


@pytest.mark.parametrize(
    ("replay", "old", "repeated"), [(0.0, 9, 0), (0.5, 9, 4), (0.75, 9, 6), (0.99, 9, 7), (0.5, 0, 0), (0.5, 2, 4)]
)
def test_a_share_of_each_step_repeats_the_day(replay: float, old: int, repeated: int) -> None:
    spec = OnlineLearningSpec(rows=8, replay=replay)
    new = [Row((i,), (0.0,)) for i in range(20)]
    before = [Row((100 + i,), (0.0,)) for i in range(old)]
    drawn = mixed(new, before, spec, random.Random(0))
    assert len(drawn) == 8
    assert sum(row.ids[0] >= 100 for row in drawn) == repeated
    assert len({row.ids for row in drawn if row.ids[0] < 100}) == 8 - repeated
