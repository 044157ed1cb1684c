"""Knowledge on its way: masks, states before and after, and a merge's two readings of one expert."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from circadian.memory.graft import Grafted
from circadian.memory.state import ExpertId, MemoryState
from circadian.memory.transfer import Transfer, due
from circadian.memory.version import found_version, load_version
from circadian.specs import Level, MemorySpec

LEVELS = (Level(period=4, experts=1, rank=4), Level(period=8, experts=2, rank=4), Level(period=32, experts=2, rank=4))


def state(*levels: str) -> MemoryState:
    """By the first letters of its experts' states."""
    names = {"r": "reserved", "o": "open", "s": "sealed", "p": "pruned"}
    return MemoryState.parse([[names[letter] for letter in level] for level in levels])


def letters(mask: tuple[bool, ...]) -> str:
    return "".join("x" if heard else "-" for heard in mask)


def test_consolidation_into_the_next_level_and_the_one_after() -> None:
    dusk = state("o", "sr", "rr")
    first = Transfer.consolidation(dusk, 1)
    assert first.where == ExpertId(1, 1)
    assert [letters(mask) for mask in (first.awake, first.rested, first.student)] == ["xx---", "-x---", "-xx--"]
    assert first.emptied == ((0, 0),)
    assert first.after() == state("p", "ss", "rr")

    second = Transfer.consolidation(first.after(), 2)
    assert [letters(mask) for mask in (second.awake, second.rested, second.student)] == ["-xx--", "-----", "---x-"]
    assert second.emptied == ((1, 0), (1, 1))
    assert second.after() == state("p", "pp", "sr")
    assert Transfer.consolidation(state("o", "pp", "sr"), 1).where == ExpertId(1, 0), "a pruned expert opens again"


def test_a_merge_has_one_teacher_and_writes_an_expert_that_teaches() -> None:
    merge = Transfer.merge(state("p", "ss", "ss"), ExpertId(1, 0), ExpertId(1, 1))
    assert [letters(mask) for mask in (merge.awake, merge.rested, merge.student)] == ["-xxxx", "-xxxx", "-x-xx"]
    assert merge.rewrites
    assert merge.sources == ((1, 0), (1, 1))
    assert merge.after() == state("p", "sp", "ss")


@pytest.mark.parametrize("pair", [((1, 0), (2, 0)), ((1, 0), (1, 0)), ((1, 0), (1, 1))])
def test_only_two_sealed_experts_of_a_level_can_be_merged(pair: tuple[tuple[int, int], tuple[int, int]]) -> None:
    with pytest.raises(ValueError, match="two sealed experts"):
        Transfer.merge(state("p", "sr", "ss"), ExpertId(*pair[0]), ExpertId(*pair[1]))


@pytest.mark.parametrize(
    ("before", "after", "levels"),
    [(0, 5, [1]), (5, 8, [1, 2]), (8, 12, [1]), (8, 40, [1, 2]), (31, 32, [1, 2]), (32, 32, [1])],
)
def test_a_level_hands_on_when_its_period_is_over(before: int, after: int, levels: list[int]) -> None:
    assert due(state("p", "sr", "rr"), tuple(level.period for level in LEVELS), before, after) == levels


@pytest.fixture
def model(base: Path, tmp_path: Path) -> Grafted:
    """Two sealed experts in level 1 that say something."""
    found_version(str(base), None, MemorySpec(levels=LEVELS), tmp_path / "ver_0")
    model = load_version(tmp_path / "ver_0")
    generator = torch.Generator().manual_seed(3)
    for layer in model.memory_layers.values():
        for expert in (0, 1):
            for tensor in layer.bank(1).slices(expert).values():
                tensor.copy_(torch.randn(tensor.shape, generator=generator) * 0.3)
    model.memory_state = state("p", "ss", "rr")
    return model


@torch.no_grad()
def test_while_an_expert_is_written_anew_its_teacher_is_what_stood_there(model: Grafted) -> None:
    ids = torch.tensor([[1, 7, 9, 12, 8]])
    merge = Transfer.merge(model.memory_state, ExpertId(1, 0), ExpertId(1, 1))
    whole = model(input_ids=ids, view=merge.awake).logits
    alone = model(input_ids=ids, view=merge.student).logits
    base = model(input_ids=ids, view="base").logits
    model.begin_writing(merge.where, fresh=1, views=[merge.student], before=[merge.awake])
    with model.as_it_was():
        assert torch.equal(model(input_ids=ids, view=merge.awake).logits, whole)
    torch.testing.assert_close(model(input_ids=ids, view=merge.student).logits, base)  # a fresh expert adds nothing yet
    assert not torch.allclose(alone, base)
    model.end_writing()
    torch.testing.assert_close(model(input_ids=ids, view=merge.student).logits, base)  # its bank holds what was written
