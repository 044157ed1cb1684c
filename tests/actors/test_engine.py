"""The engine predicts what the learner's model predicts: in every view, before and after a delivery, prefix cache included."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import torch
from engine_world import EXPERTS, FAST, LONG, SEALED, STUDENT, VIEWS, EngineWorld, LiveEngine, ask, deviation
from random_base import FAMILIES

from actors.replies import EngineLost
from circadian.memory.delivery import pack, pack_tensors
from circadian.memory.envelope import DeliveryRefused, Receipt
from circadian.memory.graft import Grafted
from circadian.memory.state import ExpertId, ExpertState, MemoryState, written_experts
from circadian.memory.tensors import checksum, expert_tensors
from circadian.memory.version import load_version
from circadian.specs import EngineSpec

pytestmark = pytest.mark.engine

TOLERANCE = 1e-4
DIFFERENT = 1e-2
"""Nats by which two models must differ for a test to tell them apart."""
BLOCK = 128
"""Tokens of a block of the prefix cache on CPU."""


def scores(live: LiveEngine, ids: torch.Tensor) -> list[list[float]]:
    return [[read.logprob for read in row] for row in live.run(live.engine.read(ids.tolist()))]


@torch.no_grad()
def expected_logprobs(model: Grafted, ids: torch.Tensor, view: Any) -> torch.Tensor:
    """[B, T, V]"""
    return torch.log_softmax(model(input_ids=ids, view=view).logits.float(), dim=-1)


def distance(model: Grafted, ids: torch.Tensor, view: Any, got: list[list[float]]) -> float:
    """Nats at most between the model's log-probs of given tokens and an engine's."""
    expected = expected_logprobs(model, ids, view)[:, :-1].gather(-1, ids[:, 1:, None])[..., 0]
    return float((expected - torch.tensor(got)).abs().max())


def whole(model: Grafted) -> str:
    """The checksum of all that the model's memory holds."""
    return checksum(expert_tensors(model.memory_layers, written_experts(model.memory_state)))


def deliver(live: LiveEngine, model: Grafted, version: str) -> Receipt:
    payload = pack(model.memory_layers, EXPERTS, model.memory_state, version, whole=whole(model))
    return live.run(live.engine.deliver(payload))


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("live_of_family", FAMILIES, indirect=True)
def test_vllm_and_hugging_face_agree_before_and_after_a_delivery(live_of_family: LiveEngine, view: str, when: str) -> None:
    live, prompt = live_of_family, live_of_family.world.prompts(1, LONG)[0].tolist()
    if when == "before":
        model, asked = load_version(live.world.folder), live.as_loaded[view]
    else:
        model = live.world.grown(seed=13)
        deliver(live, model, "agrees")
        asked = live.ask_twice(model, view)
    assert [answer.from_cache >= BLOCK for answer in asked] == [False, True], "the second answer must be read from the prefix cache"
    deviations = [deviation(model, prompt, view, answer) for answer in asked]
    assert max(deviations) < TOLERANCE, (
        f"at most {max(deviations):.2e} nats: {deviations} asked first, and through the prefix cache"
    )
    for other in VIEWS:
        assert other == view or deviation(model, prompt, other, asked[0]) > DIFFERENT, f"{view} cannot be told from {other}"


def test_every_view_scores_what_the_learners_model_scores(live: LiveEngine, engine_world: EngineWorld) -> None:
    model, ids = engine_world.grown(seed=1), engine_world.prompts(2, 60)
    deliver(live, model, "parity")
    for view in VIEWS:
        live.run(live.engine.set_view(model.memory_state.view(view)))
        got = scores(live, ids)
        assert distance(model, ids, view, got) < TOLERANCE, view
        for other in VIEWS:
            assert other == view or distance(model, ids, other, got) > DIFFERENT, (view, other)
    live.run(live.engine.set_view(None))
    assert distance(model, ids, "awake", scores(live, ids)) < TOLERANCE


def test_a_delivery_or_another_view_never_reads_a_stale_prefix_cache(live: LiveEngine, engine_world: EngineWorld) -> None:
    before, after = engine_world.grown(seed=2), engine_world.grown(seed=3)
    prompt = engine_world.prompts(1, LONG)[0].tolist()

    def expect(model: Grafted, view: str, cached: bool) -> None:
        asked = live.run(ask(live.engine, prompt))
        assert (asked.from_cache > 0) == cached
        assert deviation(model, prompt, view, asked) < TOLERANCE

    deliver(live, before, "before")
    expect(before, "awake", cached=False)
    expect(before, "awake", cached=True)
    deliver(live, after, "after")
    expect(after, "awake", cached=False)
    expect(after, "awake", cached=True)
    live.run(live.engine.set_view(after.memory_state.view("rested")))
    expect(after, "rested", cached=False)
    live.run(live.engine.set_view(None))
    expect(after, "awake", cached=False)


def test_the_test_above_can_fail(live: LiveEngine, engine_world: EngineWorld) -> None:
    model, prompt = engine_world.grown(seed=4), engine_world.prompts(1, LONG, seed=1)[0].tolist()
    deliver(live, model, "stale")
    live.run(ask(live.engine, prompt))
    behind_its_back = [0.0] * len(model.memory_state.ids())
    live.run(live.engine.client.collective_rpc("memory_view", args=(behind_its_back,)))
    asked = live.run(ask(live.engine, prompt))
    assert asked.from_cache > 0
    assert deviation(model, prompt, "base", asked) > TOLERANCE
    live.run(live.engine.client.collective_rpc("memory_view", args=(None,)))


def test_a_receipt_proves_what_the_workers_hold(live: LiveEngine, engine_world: EngineWorld) -> None:
    model = engine_world.grown(seed=5)
    receipt = deliver(live, model, "proof")
    held = live.run(live.engine.holds())
    assert receipt.checksum == held["checksum"] == whole(model)
    assert (receipt.version, live.engine.version) == ("proof", "proof")
    assert held["experts"] == model.memory_state.names()
    assert [entry == 1.0 for entry in held["mask"]] == list(model.memory_state.view("awake"))


def _corrupt(payload: bytes) -> bytes:
    return payload[:-4] + bytes(4)


def _wrong_shape(model: Grafted) -> bytes:
    tensors = expert_tensors(model.memory_layers, EXPERTS)
    last = max(tensors)
    tensors[last] = torch.zeros(*tensors[last].shape, 2)
    return pack_tensors(tensors, model.memory_state, "refused")


def _wrong_place(model: Grafted) -> bytes:
    tensors = expert_tensors(model.memory_layers, [FAST])
    moved = {name.replace("experts.0", "experts.7"): tensor for name, tensor in tensors.items()}
    return pack_tensors(moved, model.memory_state, "refused")


@pytest.mark.parametrize(
    "spoil",
    [
        lambda model: _corrupt(pack(model.memory_layers, EXPERTS, model.memory_state, "refused")),
        _wrong_shape,
        _wrong_place,
        lambda model: pack(model.memory_layers, EXPERTS, model.memory_state, "refused", torch.bfloat16),
        lambda model: pack(model.memory_layers, [STUDENT], model.memory_state, "refused", whole=whole(model)),
        lambda model: b"not a delivery",
    ],
    ids=["checksum", "shape", "place", "dtype", "parent", "bytes"],
)
def test_a_delivery_that_does_not_check_out_is_refused_and_changes_nothing(
    live: LiveEngine, engine_world: EngineWorld, spoil: Any
) -> None:
    model, ids = engine_world.grown(seed=6), engine_world.prompts(1, 32)
    deliver(live, model, "whole")
    held = live.run(live.engine.holds())
    with pytest.raises(DeliveryRefused):
        live.run(live.engine.deliver(spoil(engine_world.grown(seed=7))))
    assert live.run(live.engine.holds()) == held
    assert live.engine.version == "whole"
    assert distance(model, ids, "awake", scores(live, ids)) < TOLERANCE


def test_requests_in_flight_finish_and_each_token_is_from_the_version_it_says(live: LiveEngine, engine_world: EngineWorld) -> None:
    from vllm import SamplingParams

    old, new = engine_world.grown(seed=8), engine_world.grown(seed=9)
    rows, params = engine_world.prompts(60, 40).tolist(), SamplingParams(max_tokens=100, temperature=0.0, ignore_eos=True)
    deliver(live, old, "old")

    async def deliver_meanwhile() -> list[Any]:
        tasks = [asyncio.create_task(live.engine.generate(row, params)) for row in rows]
        await live.engine.generate(rows[0], SamplingParams(max_tokens=10, temperature=0.0, ignore_eos=True))  # they have begun
        assert live.engine.in_flight == len(rows)
        await live.engine.deliver(pack(new.memory_layers, EXPERTS, new.memory_state, "new"))
        assert live.engine.in_flight > 0
        return await asyncio.gather(*tasks)

    outputs = live.run(deliver_meanwhile())
    assert [len(output.outputs[0].token_ids) for output in outputs] == [100] * len(rows)
    assert {span.version for output in outputs for span in output.outputs[0].weight_versions} == {"old", "new"}
    for row, output in list(zip(rows, outputs, strict=True))[:8]:
        written = list(output.outputs[0].token_ids)
        for span in output.outputs[0].weight_versions:
            model = {"old": old, "new": new}[span.version]
            likeliest = expected_logprobs(model, torch.tensor([row + written]), "awake")[0, len(row) - 1 : -1].argmax(-1)
            assert likeliest[span.start : span.end].tolist() == written[span.start : span.end]


def test_sampling_repeats_with_its_seed_and_ends_at_a_stop_token(live: LiveEngine, engine_world: EngineWorld) -> None:
    deliver(live, engine_world.grown(seed=10), "sampling")
    rows = engine_world.prompts(3, 10).tolist()
    sampling = {"samples": 4, "max_tokens": 12, "temperature": 1.0}
    first = live.run(live.engine.sample(rows, seed=5, **sampling))
    assert first == live.run(live.engine.sample(rows, seed=5, **sampling))
    assert first != live.run(live.engine.sample(rows, seed=6, **sampling))
    assert len({tuple(tokens) for tokens in first}) == len(first) == 12
    stop = first[0][3]
    stopped = live.run(live.engine.sample(rows, seed=5, stop=[stop], **sampling))
    for before, after in zip(first, stopped, strict=True):
        assert after == (before[: before.index(stop) + 1] if stop in before else before)


def test_more_seeded_prompts_than_fit_into_one_step_are_all_answered(live: LiveEngine, engine_world: EngineWorld) -> None:
    """48 prompts of 100 tokens are more than twice what a step takes: one of them lies across its border, unless none may."""
    prompts = engine_world.prompts(48, 100, seed=9).tolist()
    written = live.run(live.engine.sample(prompts, max_tokens=2, temperature=1.0, seed=5))
    assert len(written) == 48
    assert all(written)


def test_a_prompt_longer_than_the_model_is_refused(live: LiveEngine) -> None:
    with pytest.raises(ExceptionGroup) as refused:
        live.run(live.engine.sample([[7] * 600], max_tokens=1, temperature=0.0, seed=0))
    assert "512" in str(refused.value.exceptions[0])


def test_a_pruned_expert_is_gone_after_a_delivery(live: LiveEngine, engine_world: EngineWorld) -> None:
    model, ids = engine_world.grown(seed=11), engine_world.prompts(1, 32)
    deliver(live, model, "full")
    model.prune(0)
    model.seal(STUDENT)
    receipt = live.run(live.engine.deliver(pack(model.memory_layers, [STUDENT], model.memory_state, "pruned")))
    assert receipt.version == "pruned"
    assert live.run(live.engine.holds())["checksum"] == checksum(expert_tensors(model.memory_layers, [SEALED, STUDENT]))
    assert distance(model, ids, "awake", scores(live, ids)) < TOLERANCE


def test_an_engine_hears_at_once_who_is_sealed_later_and_nobody_who_is_pruned(live: LiveEngine, engine_world: EngineWorld) -> None:
    """The engine computes no more than it hears, so whoever is heard anew changes what it computes."""
    reserved, pruned, sealed = ExpertState.RESERVED, ExpertState.PRUNED, ExpertState.SEALED
    model, ids, last = engine_world.grown(seed=14), engine_world.prompts(1, 32), ExpertId(1, 3)
    for layer in model.memory_layers.values():
        for part, tensor in layer.bank(1).slices(last.expert).items():
            tensor.copy_(-layer.bank(1).slices(SEALED.expert)[part])
    scored = []

    def scores_as(view: Any) -> None:
        scored.append(torch.tensor(scores(live, ids)))
        assert distance(model, ids, view, scored[-1].tolist()) < TOLERANCE
        assert len(scored) == 1 or float((scored[-1] - scored[-2]).abs().max()) > DIFFERENT

    def become(experts: list[ExpertId], *slow: ExpertState) -> None:
        model.memory_state = MemoryState(((pruned, reserved), slow))
        live.run(live.engine.deliver(pack(model.memory_layers, experts, model.memory_state, f"version-{len(scored)}")))
        scores_as("awake")

    become([], reserved, reserved, reserved, reserved)
    assert distance(model, ids, "base", scored[-1].tolist()) < TOLERANCE
    become([SEALED], sealed, reserved, reserved, reserved)
    become([STUDENT], sealed, sealed, reserved, reserved)
    become([last], pruned, sealed, reserved, sealed)
    for places in ([last], [STUDENT, last], [], [STUDENT]):
        view = [float(place in places) for place in model.memory_state.ids()]
        live.run(live.engine.set_view(view))
        scores_as(torch.tensor(view))
    live.run(live.engine.set_view(None))
    scores_as("awake")


def test_relabelling_changes_the_version_and_nothing_else(live: LiveEngine, engine_world: EngineWorld) -> None:
    model, ids = engine_world.grown(seed=12), engine_world.prompts(1, 32)
    deliver(live, model, "candidate")
    held = live.run(live.engine.holds())
    live.run(live.engine.relabel("promoted"))
    assert live.engine.version == "promoted"
    assert live.run(live.engine.holds()) == held
    assert distance(model, ids, "awake", scores(live, ids)) < TOLERANCE


class FakeClient:
    """Stands for a vLLM whose control calls may hang."""

    errored = False

    def __init__(self, hangs: str = "") -> None:
        self.hangs, self.paused, self.go_on = hangs, False, asyncio.Event()

    async def pause_generation(self, **_: Any) -> None:
        self.paused = True
        await self._maybe("pause")

    async def resume_generation(self) -> None:
        self.paused = False

    async def collective_rpc(self, *_: Any, **__: Any) -> list[Any]:
        await self._maybe("workers")
        return [{"version": "new", "checksum": "", "bytes": 0, "milliseconds": 0.0}]

    async def update_weight_version(self, version: str) -> None:
        assert self.paused

    async def _maybe(self, call: str) -> None:
        if call == self.hangs:
            await self.go_on.wait()


@pytest.mark.parametrize(("hangs", "lost"), [("pause", False), ("workers", True)])
def test_a_delivery_that_hangs_leaves_the_engine_answering_or_known_as_lost(hangs: str, lost: bool) -> None:
    from actors.engine import MemoryEngine

    async def hang() -> None:
        client = FakeClient(hangs)
        engine = MemoryEngine(client, "old", EngineSpec(control_seconds=0.05))  # type: ignore[arg-type]
        with pytest.raises(TimeoutError):
            await engine.deliver(b"")
        assert not client.paused
        assert engine.version == "old"
        if lost:
            with pytest.raises(EngineLost, match="not known"):
                engine.check()
        else:
            engine.check()

    asyncio.run(hang())


@pytest.mark.parametrize("hangs", ["pause", "workers"])
def test_a_delivery_whose_caller_leaves_is_carried_to_its_end(hangs: str) -> None:
    from actors.engine import MemoryEngine

    async def leave() -> None:
        client = FakeClient(hangs)
        engine = MemoryEngine(client, "old", EngineSpec())  # type: ignore[arg-type]
        caller = asyncio.create_task(engine.deliver(b""))
        await asyncio.sleep(0.01)
        caller.cancel()
        with pytest.raises(asyncio.CancelledError):
            await caller
        assert client.paused
        client.go_on.set()
        assert (await engine.settled())[0] == "new"
        assert not client.paused
        engine.check()

    asyncio.run(leave())


def test_an_engine_that_did_not_start_is_started_again(monkeypatch: pytest.MonkeyPatch, engine_world: EngineWorld) -> None:
    from actors.engine import LazyEngine, MemoryEngine

    starts: list[Any] = [OSError("no memory left"), "an engine"]

    async def start(*_: Any) -> Any:
        outcome = starts.pop(0)
        if isinstance(outcome, OSError):
            raise outcome
        return outcome

    async def use() -> None:
        lazy = LazyEngine(engine_world.folder, EngineSpec())
        failures = await asyncio.gather(lazy.get(), lazy.get(), return_exceptions=True)
        assert [str(failure) for failure in failures] == ["no memory left"] * 2
        await lazy.shutdown()
        assert await lazy.get() == await lazy.get() == "an engine"

    monkeypatch.setattr(MemoryEngine, "start", start)
    asyncio.run(use())
