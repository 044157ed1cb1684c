"""The wake file: whoever reads it, and whatever it served before, becomes the same."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from engine_world import EXPERTS, FAST, EngineWorld, grow

from actors.replies import Said, agree
from actors.wake_state import Delivered, Memory, WakeBroken, WakeState, payloads, promised_memory, read_wake, write_wake
from circadian.memory.delivery import pack, receive
from circadian.memory.envelope import DeliveryRefused
from circadian.memory.fast import fast_delivery
from circadian.memory.folder import read_record
from circadian.memory.graft import Grafted
from circadian.memory.state import written_experts
from circadian.memory.tensors import checksum, expert_tensors
from circadian.memory.version import load_version, save_version


@pytest.fixture(scope="module")
def folder(engine_world: EngineWorld) -> Path:
    """A version `v1`."""
    return engine_world.folder


@pytest.fixture(scope="module")
def dusk(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> WakeState:
    """It with a fast memory."""
    path = tmp_path_factory.mktemp("dusk") / "dusk.delivery"
    fast = expert_tensors(grow(load_version(folder), seed=50).memory_layers, [FAST])
    path.write_bytes(fast_delivery(folder, fast, load_version(folder).memory_state, "v1+slp"))
    return WakeState(folder=str(folder), delivery=Delivered(path=str(path), version="v1+slp", checksum=checksum(fast)))


def held(model: Grafted) -> Memory:
    tensors = expert_tensors(model.memory_layers, written_experts(model.memory_state))
    return Memory.of(checksum(tensors), model.memory_state.names())


def become(model: Grafted, state: WakeState, serves: str) -> Memory:
    for payload in payloads(state, serves):
        _, model.memory_state = receive(model.memory_layers, payload)
    return held(model)


def test_any_replica_of_the_base_becomes_what_the_file_says(folder: Path, dusk: WakeState, tmp_path: Path) -> None:
    child = grow(load_version(folder), seed=51)
    save_version(tmp_path / "v2", child, read_record(folder).model_copy(update={"id": "v2"}), folder)
    dawn = WakeState(folder=str(tmp_path / "v2"))
    model = load_version(folder)
    assert become(model, dusk, "v1") == promised_memory(dusk) != promised_memory(WakeState(folder=str(folder)))
    assert become(model, dawn, "v1+slp") == promised_memory(dawn) == held(child)
    assert become(model, dusk, "v2") == promised_memory(dusk), "and back over another version"


def test_a_replica_of_the_version_itself_is_sent_the_fast_memory_alone(folder: Path, dusk: WakeState) -> None:
    assert len(payloads(dusk, "v1")) == 1
    assert len(payloads(dusk, "v1+other")) == 2
    assert payloads(WakeState(folder=str(folder)), "v1") == []


def test_a_replica_that_only_says_that_it_is_the_version_refuses(folder: Path, dusk: WakeState) -> None:
    other = grow(load_version(folder), seed=52)
    with pytest.raises(DeliveryRefused, match="whole memory"):
        become(other, dusk, "v1")


def test_what_was_written_is_read(dusk: WakeState, tmp_path: Path) -> None:
    write_wake(tmp_path / "wake.json", dusk)
    assert read_wake(tmp_path / "wake.json") == dusk
    assert [path.name for path in tmp_path.iterdir()] == ["wake.json"]


@pytest.mark.parametrize("text", ["", "{}", '{"folder": "/v1", "replicas": -1}', '{"folder": "/v1", "elsewhere": 1}'])
def test_a_file_that_says_nothing_is_told_by_its_path(tmp_path: Path, text: str) -> None:
    path = tmp_path / "wake.json"
    path.write_text(text)
    with pytest.raises(WakeBroken, match=r"wake\.json"):
        read_wake(path)
    with pytest.raises(WakeBroken, match="nothing"):
        read_wake(tmp_path / "nothing")


def test_a_delivery_that_is_not_what_the_file_says_is_not_made(folder: Path, dusk: WakeState, tmp_path: Path) -> None:
    assert dusk.delivery is not None
    other = dusk.model_copy(update={"delivery": dusk.delivery.model_copy(update={"checksum": "0" * 64})})
    with pytest.raises(WakeBroken, match="checksum"):
        promised_memory(other)
    model = load_version(folder)
    part = tmp_path / "part.delivery"
    part.write_bytes(pack(model.memory_layers, EXPERTS, model.memory_state, "v1+part"))
    named = Delivered(path=str(part), version="v1+part", checksum=checksum(expert_tensors(model.memory_layers, EXPERTS)))
    with pytest.raises(WakeBroken, match="memory_sha256"):
        promised_memory(WakeState(folder=str(folder), delivery=named))
    gone = dusk.model_copy(update={"delivery": dusk.delivery.model_copy(update={"path": str(tmp_path / "gone")})})
    for read in (promised_memory, lambda state: payloads(state, "v1")):
        with pytest.raises(WakeBroken, match="gone"):
            read(gone)


def test_a_delivery_is_known_by_its_version_and_its_checksum(folder: Path, dusk: WakeState) -> None:
    assert dusk.delivery is not None
    assert dusk.made_by("v1+slp", dusk.delivery.checksum)
    assert not dusk.made_by("v1+slp", "0")
    assert not dusk.made_by("v1", dusk.delivery.checksum)
    assert WakeState(folder=str(folder)).made_by("v1", "of what has travelled, which may be nothing")
    assert dusk.serves_like(dusk.model_copy(update={"replicas": 1}))
    assert not dusk.serves_like(WakeState(folder=str(folder)))


CLEAR = (Said(7, 2.0), Said(8, 1.0), Said(9, 0.5))


@pytest.mark.parametrize(
    ("other", "together"),
    [
        (CLEAR, True),
        ((Said(7, 1.9), Said(8, 1.1)), True),  # as far as it goes
        ((Said(7, 2.0), Said(5, 1.0), Said(9, 0.5)), False),
        ((Said(7, 2.0), Said(5, 0.01), Said(1, 3.0)), True),  # digits have decided, and what comes after follows from it
    ],
)
def test_answers_contradict_each_other_where_both_were_sure(other: tuple[Said, ...], together: bool) -> None:
    assert agree([CLEAR, other]) is together
    assert agree([CLEAR, CLEAR, other]) is together


def test_the_memory_is_the_same_whoever_reads_it_back(folder: Path) -> None:
    model = load_version(folder)
    assert held(model) == promised_memory(WakeState(folder=str(folder)))
    with torch.no_grad():
        next(iter(model.memory_layers.values())).levels[0].slices(0)["b"].add_(1.0)
    assert held(model) != promised_memory(WakeState(folder=str(folder)))
