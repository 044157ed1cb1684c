"""The memory changes nothing when it is grafted, and only what it should when it is written."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, GPT2Config, Qwen3Config

from circadian.files import to_disk
from circadian.memory import delivery, version
from circadian.memory.folder import VersionBroken, read_record
from circadian.memory.graft import Grafted, NoGraft, memory_config
from circadian.memory.state import ExpertId, written_experts
from circadian.memory.tensors import checksum, expert_tensors
from circadian.memory.version import found_version, load_version, save_version
from circadian.specs import Level, MemorySpec

SPEC = MemorySpec(levels=(Level(period=4, experts=1, rank=8), Level(period=8, experts=3, rank=8)))
IDS = torch.arange(5, 65).reshape(3, 20)


@pytest.fixture
def folder(base: Path, tmp_path: Path) -> Path:
    """A fresh version of the base."""
    found_version(str(base), None, SPEC, tmp_path / "ver_0")
    return tmp_path / "ver_0"


@pytest.fixture
def model(folder: Path) -> Grafted:
    return load_version(folder)


def fill(model: Grafted, where: ExpertId, seed: int) -> None:
    """Random weights in every part of an expert."""
    generator = torch.Generator().manual_seed(seed)
    for layer in model.memory_layers.values():
        for tensor in layer.levels[where.level].slices(where.expert).values():
            tensor.copy_(torch.randn(tensor.shape, generator=generator) * 0.3)


def logits(model: nn.Module, **view: object) -> Tensor:
    with torch.no_grad():
        return model(input_ids=IDS, **view).logits


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_fresh_graft_equals_its_base_bit_for_bit(base: Path, folder: Path, dtype: torch.dtype) -> None:
    expected = logits(AutoModelForCausalLM.from_pretrained(base, dtype=dtype).eval())
    grafted = load_version(folder, dtype)
    for view in ("base", "awake", "rested", "student"):
        assert torch.equal(logits(grafted, view=view), expected), view


def test_a_freshly_opened_expert_adds_nothing(model: Grafted) -> None:
    before = logits(model, view="rested")
    model.open_expert(1, seed=7)
    assert torch.equal(logits(model, view="student"), before)


def test_views_read_one_set_of_weights_in_several_ways(model: Grafted) -> None:
    fast, old, new = model.open_expert(0, seed=1), model.open_expert(1, seed=2), None
    fill(model, fast, 1)
    fill(model, old, 2)
    model.seal(old)
    new = model.open_expert(1, seed=3)
    fill(model, new, 3)
    read = {view: logits(model, view=view) for view in ("base", "awake", "rested", "student")}
    for one in read:
        for other in read:
            assert one == other or not torch.allclose(read[one], read[other], atol=1e-3), (one, other)
    without_new = model.memory_state.without(model.memory_state.view("student"), new)
    assert torch.equal(logits(model, view=without_new), read["rested"])


def test_each_row_can_be_read_in_a_view_of_its_own(model: Grafted) -> None:
    where = model.open_expert(1, seed=2)
    fill(model, where, 2)
    rows = logits(model, view=torch.stack([model.mask("rested"), model.mask("student"), model.mask("rested")]))
    rested, student = logits(model, view="rested"), logits(model, view="student")
    torch.testing.assert_close(rows, torch.stack([rested[0], student[1], rested[2]]), atol=1e-5, rtol=1e-5)
    assert not torch.allclose(rested[1], student[1], atol=1e-3)


def test_the_two_halves_of_a_forward_are_the_forward(base: Path, tmp_path: Path) -> None:
    spec = MemorySpec(levels=SPEC.levels, layers=(1,))
    found_version(str(base), None, spec, tmp_path / "upper")
    model = load_version(tmp_path / "upper")
    where = model.open_expert(1, seed=2)
    fill(model, where, 2)
    whole = logits(model, view="student")
    with torch.no_grad():
        halves = model.lm_head(model.upper(model.lower(IDS), "student"))
    assert torch.equal(halves, whole)


def test_texts_behind_one_another_in_a_row_do_not_see_each_other(model: Grafted) -> None:
    where = model.open_expert(1, seed=2)
    fill(model, where, 2)
    first, second, third = torch.arange(1, 6), torch.arange(9, 12), torch.arange(3, 9)
    ids = torch.stack([torch.cat([first, second]), torch.cat([third, torch.zeros(2, dtype=torch.long)])])
    positions = torch.tensor([[0, 1, 2, 3, 4, 0, 1, 2], [0, 1, 2, 3, 4, 5, 0, 1]])
    with torch.no_grad():
        packed = model.hidden(ids, "student", positions)
        alone = [model.hidden(text[None], "student")[0] for text in (first, second, third)]
    for found, wanted in zip((packed[0, :5], packed[0, 5:], packed[1, :6]), alone, strict=True):
        torch.testing.assert_close(found, wanted)


def test_writing_changes_the_open_expert_and_nothing_else(model: Grafted) -> None:
    sealed = model.open_expert(1, seed=1)
    fill(model, sealed, 1)
    model.seal(sealed)
    where = model.open_expert(1, seed=2)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    experts = model.begin_writing(where)
    assert {id(p) for p in model.parameters() if p.requires_grad} == {id(p) for e in experts for p in e.parameters()}
    optimizer = torch.optim.AdamW([p for e in experts for p in e.parameters()], lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        model(input_ids=IDS, view="student").logits.square().mean().backward()
        optimizer.step()
    learned = logits(model, view="student")
    model.end_writing()
    torch.testing.assert_close(logits(model, view="student"), learned, atol=1e-5, rtol=1e-5)
    for name, p in model.named_parameters():
        if ".memory.levels.1." not in name:
            assert torch.equal(p, before[name]), name
    for i, layer in model.memory_layers.items():
        for expert in range(3):
            for part, tensor in layer.levels[1].slices(expert).items():
                was = before[f"model.layers.{i}.mlp.memory.levels.1.{part}"]
                rows = slice(expert * 8, expert * 8 + 8) if part in ("A", "B") else slice(expert, expert + 1)
                was = was[:, rows] if part == "B" else was[rows]
                assert torch.equal(tensor, was) == (expert != where.expert), (expert, part)


def test_what_a_view_does_not_hear_need_not_be_computed(model: Grafted) -> None:
    """While an expert is written, the student's reading computes its own experts, the teachers' reading theirs too."""
    fast, sealed = model.open_expert(0, seed=1), model.open_expert(1, seed=2)
    fill(model, fast, 1)
    fill(model, sealed, 2)
    model.seal(sealed)
    where = model.open_expert(1, seed=3)
    fill(model, where, 3)
    awake, student = logits(model, view="awake"), logits(model, view="student")
    heard = {name: model.memory_state.view(name) for name in ("awake", "student")}
    model.begin_writing(where, views=[heard["student"]], before=[heard["awake"]])
    fast_banks = [layer.bank(0) for layer in model.memory_layers.values()]
    torch.testing.assert_close(logits(model, view=model.mask(heard["student"])), student, atol=1e-5, rtol=1e-5)
    with model.as_it_was():
        torch.testing.assert_close(logits(model, view=model.mask(heard["awake"])), awake, atol=1e-5, rtol=1e-5)
    with torch.no_grad():
        for bank in fast_banks:
            bank.A.fill_(torch.nan)
    torch.testing.assert_close(logits(model, view=model.mask(heard["student"])), student, atol=1e-5, rtol=1e-5)


def test_pruning_empties_a_level(model: Grafted) -> None:
    before = logits(model, view="rested")
    where = model.open_expert(0, seed=1)
    fill(model, where, 1)
    model.prune(0)
    assert torch.equal(logits(model, view="awake"), before)
    assert all(not p.any() for layer in model.memory_layers.values() for p in layer.levels[0].parameters())
    assert model.memory_state.names()[0] == ["pruned"]


def test_a_version_survives_its_folder(model: Grafted, folder: Path) -> None:
    where = model.open_expert(1, seed=2)
    fill(model, where, 2)
    model.seal(where)
    child = folder.with_name("ver_1")
    save_version(child, model, read_record(folder).model_copy(update={"id": "ver_1", "parent": "ver_0"}), folder)
    again = load_version(child)
    assert again.memory_state == model.memory_state
    assert torch.equal(logits(again), logits(model))
    assert not list(child.glob("model*.safetensors")), "the base is never copied"


def test_of_two_processes_that_write_one_version_the_first_finds_nothing_to_rename(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever comes second does so because the first is held for dead; nothing of the first is left."""
    folder, second = tmp_path / "versions" / "ver_0", []

    def slowly(path: Path) -> None:
        if not second:
            second.append(path)
            second.append(found_version(str(base), None, SPEC, folder))
        to_disk(path)

    monkeypatch.setattr(version, "to_disk", slowly)
    with pytest.raises(FileNotFoundError):
        found_version(str(base), None, SPEC, folder)
    assert read_record(folder) == second[1]
    assert list(folder.parent.iterdir()) == [folder]


def test_a_changed_base_is_refused(base: Path, folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    for file in base.iterdir():
        (other / file.name).write_bytes(file.read_bytes())
    record = folder / "version.json"
    record.write_text(record.read_text().replace(str(base), str(other)))
    load_version(folder)
    weights = other / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + b"\x01\x02\x03\x04")
    with pytest.raises(VersionBroken, match="not those that ver_0 was made from"):
        load_version(folder)


def test_a_base_without_a_graft_says_which_have_one() -> None:
    with pytest.raises(NoGraft, match="llama or qwen3"):
        memory_config(GPT2Config(), SPEC)


def test_a_layer_the_base_does_not_have_is_refused(base: Path, tmp_path: Path) -> None:
    with pytest.raises(NoGraft, match=r"memory\.layers: layer 9 does not exist"):
        found_version(str(base), None, MemorySpec(levels=SPEC.levels, layers=(0, 9)), tmp_path / "never")
    assert not (tmp_path / "never").exists()


@pytest.mark.parametrize(
    ("depth", "chosen"), [(1, [0]), (2, [1]), (4, [2, 3]), (8, [4, 5, 6, 7]), (9, [4, 8]), (28, [15, 19, 23, 27])]
)
def test_the_upper_half_carries_memory_every_fourth_layer_of_a_deep_base_and_a_version_says_so(
    depth: int, chosen: list[int]
) -> None:
    config = memory_config(Qwen3Config(num_hidden_layers=depth), SPEC)
    assert config.memory["spec"]["layers"] == chosen


def test_a_delivery_makes_the_receiver_equal_to_the_sender(model: Grafted, folder: Path) -> None:
    receiver, where = load_version(folder), model.open_expert(1, seed=2)
    fill(model, where, 2)
    receipt, state = delivery.receive(
        receiver.memory_layers, delivery.pack(model.memory_layers, [where], model.memory_state, "ver_1")
    )
    receiver.memory_state = state
    assert receipt.version == "ver_1"
    assert torch.equal(logits(receiver, view="student"), logits(model, view="student"))


def test_a_delivery_with_a_flipped_bit_changes_nothing(model: Grafted, folder: Path) -> None:
    receiver, where = load_version(folder), model.open_expert(1, seed=2)
    fill(model, where, 2)
    payload = bytearray(delivery.pack(model.memory_layers, [where], model.memory_state, "ver_1"))
    payload[-1] ^= 1
    before = {name: p.clone() for name, p in receiver.named_parameters()}
    with pytest.raises(delivery.DeliveryRefused, match="checksum"):
        delivery.receive(receiver.memory_layers, bytes(payload))
    assert all(torch.equal(p, before[name]) for name, p in receiver.named_parameters())


@pytest.mark.parametrize("parent", ["right", "another", "empty"])
def test_a_receiver_on_the_wrong_parent_refuses_and_is_unchanged(model: Grafted, folder: Path, parent: str) -> None:
    old = model.open_expert(1, seed=1)
    fill(model, old, 1)
    model.seal(old)
    where = model.open_expert(1, seed=2)
    fill(model, where, 2)
    whole = checksum(expert_tensors(model.memory_layers, written_experts(model.memory_state)))
    payload = delivery.pack(model.memory_layers, [where], model.memory_state, "ver_1", whole=whole)
    receiver = load_version(folder)
    fill(receiver, ExpertId(0, 0), 5)  # erased by the delivery, and there again where it is refused
    if parent != "empty":
        fill(receiver, old, seed=1 if parent == "right" else 3)
    before = {name: p.clone() for name, p in receiver.named_parameters()}
    if parent == "right":
        _, receiver.memory_state = delivery.receive(receiver.memory_layers, payload)
        assert checksum(expert_tensors(receiver.memory_layers, written_experts(receiver.memory_state))) == whole
    else:
        with pytest.raises(delivery.DeliveryRefused, match="whole memory"):
            delivery.receive(receiver.memory_layers, payload)
        assert all(torch.equal(p, before[name]) for name, p in receiver.named_parameters())


def test_a_delivery_takes_out_what_its_state_does_not_hold(model: Grafted, folder: Path) -> None:
    receiver, fresh = load_version(folder), model.memory_state
    fill(receiver, ExpertId(0, 0), 1)
    delivery.receive(receiver.memory_layers, delivery.pack_tensors({}, fresh, "ver_0"))
    assert all(not p.any() for layer in receiver.memory_layers.values() for p in layer.levels.parameters())
