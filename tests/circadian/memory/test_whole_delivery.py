"""One delivery makes any receiver of the same memory exactly a version, whatever it was before."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from copy import deepcopy
from functools import cache
from pathlib import Path

import pytest
import torch
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from random_base import write_base
from safetensors.torch import load_file, save_file
from torch import Tensor

from circadian.memory.delivery import pack, receive
from circadian.memory.envelope import DeliveryRefused, Receipt
from circadian.memory.folder import VersionBroken, read_record
from circadian.memory.graft import Grafted
from circadian.memory.signature import sign, verify
from circadian.memory.state import ExpertId, written_experts
from circadian.memory.tensors import checksum, expert_tensors
from circadian.memory.version import found_version, load_version, save_version
from circadian.memory.whole import whole_delivery
from circadian.specs import Level, MemorySpec

FAST, SLOW = Level(period=4, experts=1, rank=8), Level(period=8, experts=3, rank=8)
SPEC = MemorySpec(levels=(FAST, SLOW))
IDS = torch.arange(5, 65).reshape(3, 20)
KEY = Ed25519PrivateKey.from_private_bytes(b"k" * 32)


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """Models so small are slower on several."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def write(model: Grafted, level: int, seed: int, seal: bool = True) -> ExpertId:
    """The level's next expert with random weights in every part."""
    where, generator = model.open_expert(level, seed), torch.Generator().manual_seed(seed)
    for layer in model.memory_layers.values():
        for tensor in layer.bank(level).slices(where.expert).values():
            tensor.copy_(torch.randn(tensor.shape, generator=generator) * 0.3)
    if seal:
        model.seal(where)
    return where


def child(parent: Path, name: str, *seeds: int) -> Path:
    """The parent with an expert more for each seed."""
    model = load_version(parent)
    for seed in seeds:
        write(model, 1, seed)
    save_version(parent.with_name(name), model, read_record(parent).model_copy(update={"id": name, "parent": parent.name}), parent)
    return parent.with_name(name)


@pytest.fixture(scope="module", params=[("qwen3", "float32"), ("llama", "bfloat16")], ids=lambda param: param[1])
def versions(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three versions of one lineage, and one of another that begins at the same first version; in two dtypes that are served."""
    folder, (family, dtype) = tmp_path_factory.mktemp("versions"), request.param
    base = write_base(folder / "base", family, layers=2, width=32, mlp_width=64)
    found_version(str(base), None, SPEC, folder / "ver_0")
    config = json.loads((folder / "ver_0" / "config.json").read_text())
    config["dtype"] = dtype
    (folder / "ver_0" / "config.json").write_text(json.dumps(config))
    child(child(folder / "ver_0", "ver_1", 1), "ver_2", 2)
    child(folder / "ver_0", "other", 3, 4, 5)
    return folder


@cache
def _loaded(folder: Path) -> Grafted:
    return load_version(folder)


def loaded(folder: Path) -> Grafted:
    """A freshly loaded version, of one's own."""
    return deepcopy(_loaded(folder))


def at_night(folder: Path) -> Grafted:
    """The other lineage with all that a receiver can hold: every slow expert written, and a fast memory that is heard."""
    model = loaded(folder / "other")
    write(model, 0, 6, seal=False)
    return model


def with_leftovers(folder: Path) -> Grafted:
    """What no state of its own names: weights in experts that are called reserved."""
    model = at_night(folder)
    model.memory_state = loaded(folder / "ver_0").memory_state
    return model


RECEIVERS: dict[str, Callable[[Path], Grafted]] = {
    "empty": lambda folder: loaded(folder / "ver_0"),
    "the parent": lambda folder: loaded(folder / "ver_1"),
    "a later one": lambda folder: loaded(folder / "ver_2"),
    "another lineage with its fast memory": at_night,
    "leftovers": with_leftovers,
}


def take(receiver: Grafted, payload: bytes) -> Receipt:
    receipt, receiver.memory_state = receive(receiver.memory_layers, payload)
    return receipt


def parameters(model: Grafted) -> dict[str, Tensor]:
    return {name: parameter.clone() for name, parameter in model.named_parameters()}


def same_bits(model: Grafted, expected: dict[str, Tensor]) -> bool:
    held = dict(model.named_parameters())
    return held.keys() == expected.keys() and all(
        torch.equal(held[name].view(torch.uint8), tensor.view(torch.uint8)) for name, tensor in expected.items()
    )


@pytest.mark.parametrize("held", RECEIVERS)
@pytest.mark.parametrize("version", ["ver_0", "ver_1", "ver_2", "other"])
@torch.no_grad()
def test_whatever_a_receiver_held_it_becomes_the_version_bit_for_bit(versions: Path, version: str, held: str) -> None:
    receiver, fresh, record = RECEIVERS[held](versions), loaded(versions / version), read_record(versions / version)
    receipt = take(receiver, whole_delivery(versions / version))
    assert (receipt.version, receipt.checksum) == (version, record.memory_sha256)
    assert receiver.memory_state == fresh.memory_state
    assert same_bits(receiver, parameters(fresh))
    assert torch.equal(receiver(input_ids=IDS).logits, fresh(input_ids=IDS).logits)


def test_the_receivers_did_differ(versions: Path) -> None:
    """Or the test above would prove nothing."""
    receivers = {held: checksum(dict(make(versions).named_parameters())) for held, make in RECEIVERS.items()}
    assert receivers.pop("leftovers") == receivers["another lineage with its fast memory"]
    assert len(set(receivers.values())) == len(receivers)


def test_it_ends_where_the_nights_own_delivery_ends(versions: Path) -> None:
    model, by_night = loaded(versions / "ver_2"), loaded(versions / "ver_1")
    (new,) = set(written_experts(model.memory_state)) - set(written_experts(by_night.memory_state))
    whole = checksum(expert_tensors(model.memory_layers, written_experts(model.memory_state)))
    take(by_night, pack(model.memory_layers, [new], model.memory_state, "ver_2", model.dtype, whole=whole))
    at_noon = at_night(versions)
    assert take(at_noon, whole_delivery(versions / "ver_2")).checksum == whole
    assert same_bits(at_noon, parameters(by_night))
    assert at_noon.memory_state == by_night.memory_state


def test_the_same_folder_makes_the_same_bytes(versions: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(versions / "ver_2", tmp_path / "elsewhere")
    assert len({whole_delivery(folder) for folder in [versions / "ver_2", copy] * 8}) == 1


@pytest.mark.parametrize(
    "other",
    [
        MemorySpec(levels=(FAST, Level(period=8, experts=2, rank=8))),
        MemorySpec(levels=(FAST, Level(period=8, experts=3, rank=4))),
        MemorySpec(levels=(FAST, SLOW, Level(period=16, experts=1, rank=8))),
        MemorySpec(levels=(FAST, SLOW), layers=(0,)),
        MemorySpec(levels=(FAST, SLOW), layers=(0, 1)),
    ],
    ids=["fewer experts", "another rank", "a level more", "another layer", "a layer more"],
)
def test_a_receiver_of_another_memory_refuses_and_is_unchanged(versions: Path, tmp_path: Path, other: MemorySpec) -> None:
    found_version(str(versions / "base"), None, other, tmp_path / "mine")
    receiver = load_version(tmp_path / "mine", loaded(versions / "ver_0").dtype)
    write(receiver, 0, 7, seal=False)
    write(receiver, 1, 8)
    before, state = parameters(receiver), receiver.memory_state
    with pytest.raises(DeliveryRefused):
        take(receiver, whole_delivery(versions / "ver_1"))
    assert same_bits(receiver, before)
    assert receiver.memory_state == state


def test_a_receiver_of_another_dtype_is_told_to_pack_in_its_own(versions: Path) -> None:
    receiver = load_version(versions / "other", torch.float16)
    before = parameters(receiver)
    with pytest.raises(DeliveryRefused, match=r"this model holds torch\.float16; pack the delivery in that dtype"):
        take(receiver, whole_delivery(versions / "ver_1"))
    assert same_bits(receiver, before)


def test_a_memory_that_was_saved_finer_than_it_is_served_travels_as_it_is_loaded(versions: Path, tmp_path: Path) -> None:
    model = load_version(versions / "other", torch.float64)
    record = read_record(versions / "other").model_copy(update={"id": "finer"})
    save_version(tmp_path / "finer", model, record, versions / "other")
    receiver = loaded(versions / "ver_2")
    take(receiver, whole_delivery(tmp_path / "finer"))
    assert same_bits(receiver, parameters(load_version(tmp_path / "finer")))


def edit_memory(folder: Path) -> None:
    tensors = load_file(folder / "memory.safetensors")
    save_file({name: tensor + 1 for name, tensor in tensors.items()}, folder / "memory.safetensors")


def edit_state(folder: Path) -> None:
    path = folder / "config.json"
    path.write_text(path.read_text().replace('"sealed"', '"pruned"', 1))


def edit_both(folder: Path) -> None:
    """The memory, and the record of it: what a checksum beside the memory cannot stop."""
    edit_memory(folder)
    digest = checksum(load_file(folder / "memory.safetensors"))
    (folder / "version.json").write_text(
        read_record(folder).model_copy(update={"memory_sha256": digest}).model_dump_json(),
    )


BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "the memory edited": (edit_memory, r"memory\.safetensors does not match the checksum in version\.json; restore"),
    "the memory torn": (lambda v: (v / "memory.safetensors").write_bytes(b"torn"), r"memory\.safetensors cannot be read.*restore"),
    "an expert struck out": (edit_state, r"does not hold the experts that config\.json calls written; restore"),
}


@pytest.mark.parametrize("how", BROKEN)
def test_a_folder_whose_files_do_not_fit_makes_no_delivery(versions: Path, tmp_path: Path, how: str) -> None:
    edit, said = BROKEN[how]
    folder = shutil.copytree(versions / "ver_1", tmp_path / "ver_1")
    edit(folder)
    with pytest.raises(VersionBroken, match=said):
        whole_delivery(folder)


@pytest.mark.parametrize("edit", [edit_both, edit_state], ids=["memory and record", "state"])
def test_what_changed_after_it_was_verified_is_not_delivered(
    versions: Path, tmp_path: Path, edit: Callable[[Path], object]
) -> None:
    folder = shutil.copytree(versions / "ver_1", tmp_path / "ver_1")
    sign(folder, KEY)
    signature = verify(folder, KEY.public_key())
    assert whole_delivery(folder, signature) == whole_delivery(versions / "ver_1")
    edit(folder)
    with pytest.raises(VersionBroken, match=r"is not what was signed; restore"):
        whole_delivery(folder, signature)
