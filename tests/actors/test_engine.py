"""The engine predicts what the learner's model predicts: in every view, before and after a delivery, prefix cache included."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import torch
from engine_world import FAST, SEALED, STUDENT, EngineWorld, LiveEngine

from circadian.memory.delivery import DeliveryRefused, Receipt, pack, pack_tensors
from circadian.memory.graft import Grafted
from circadian.memory.tensors import checksum, expert_tensors, written_experts

pytestmark = pytest.mark.engine

TOLERANCE = 1e-4
DIFFERENT = 1e-2
"""Nats by which two models must differ for a test to tell them apart."""
LONG = 300
"""Tokens; a block of the prefix cache is 128 on CPU, so a shorter prompt would never be read from it."""
VIEWS = ("base", "awake", "rested", "student")
EXPERTS = (FAST, SEALED, STUDENT)


def prompts(world: EngineWorld, rows: int, length: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(6, len(world.tokenizer), (rows, length), generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def expected_logprobs(model: Grafted, ids: torch.Tensor, view: Any) -> torch.Tensor:
    """[B, T, V]"""
    return torch.log_softmax(model(input_ids=ids, view=view).logits.float(), dim=-1)


def distance(model: Grafted, ids: torch.Tensor, view: Any, got: list[list[float]]) -> float:
    """Nats at most between the model's log-probs of given tokens and an engine's."""
    expected = expected_logprobs(model, ids, view)[:, :-1].gather(-1, ids[:, 1:, None])[..., 0]
    return float((expected - torch.tensor(got)).abs().max())


async def next_token(engine: Any, prompt: list[int]) -> tuple[dict[int, float], int]:
    """Log-probs of the likeliest next tokens, read through the prefix cache, and how many prompt tokens came from it."""
    from vllm import SamplingParams

    output = await engine.generate(prompt, SamplingParams(max_tokens=1, temperature=0.0, logprobs=20))
    return {token: entry.logprob for token, entry in output.outputs[0].logprobs[0].items()}, output.num_cached_tokens


def next_distance(model: Grafted, prompt: torch.Tensor, view: Any, got: dict[int, float]) -> float:
    expected = expected_logprobs(model, prompt[None], view)[0, -1]
    return max(abs(float(expected[token]) - logprob) for token, logprob in got.items())


def deliver(live: LiveEngine, model: Grafted, version: str) -> Receipt:
    return live.run(live.engine.deliver(pack(model.memory_layers, EXPERTS, model.memory_state, version)))


def test_every_view_predicts_what_the_learners_model_predicts(live: LiveEngine, engine_world: EngineWorld) -> None:
    model, ids = engine_world.grown(seed=1), prompts(engine_world, 3, LONG)
    deliver(live, model, "parity")
    for view in VIEWS:
        live.run(live.engine.set_view(model.memory_state.view(view)))
        got = live.run(live.engine.logprobs(ids.tolist()))
        assert distance(model, ids, view, got) < TOLERANCE, view
        for other in VIEWS:
            assert other == view or distance(model, ids, other, got) > DIFFERENT, (view, other)
    live.run(live.engine.set_view(None))
    assert distance(model, ids, "awake", live.run(live.engine.logprobs(ids.tolist()))) < TOLERANCE


def test_a_delivery_or_another_view_never_reads_a_stale_prefix_cache(live: LiveEngine, engine_world: EngineWorld) -> None:
    before, after = engine_world.grown(seed=2), engine_world.grown(seed=3)
    prompt = prompts(engine_world, 1, LONG)[0]

    def ask(model: Grafted, view: str, cached: bool) -> None:
        got, from_cache = live.run(next_token(live.engine, prompt.tolist()))
        assert (from_cache > 0) == cached
        assert next_distance(model, prompt, view, got) < TOLERANCE

    deliver(live, before, "before")
    ask(before, "awake", cached=False)
    ask(before, "awake", cached=True)
    deliver(live, after, "after")
    ask(after, "awake", cached=False)
    ask(after, "awake", cached=True)
    live.run(live.engine.set_view(after.memory_state.view("rested")))
    ask(after, "rested", cached=False)
    live.run(live.engine.set_view(None))
    ask(after, "awake", cached=False)


def test_the_test_above_can_fail(live: LiveEngine, engine_world: EngineWorld) -> None:
    model, prompt = engine_world.grown(seed=4), prompts(engine_world, 1, LONG, seed=1)[0]
    deliver(live, model, "stale")
    live.run(next_token(live.engine, prompt.tolist()))
    behind_its_back = [0.0] * len(model.memory_state.ids())
    live.run(live.engine.client.collective_rpc("memory_view", args=(behind_its_back,)))
    got, from_cache = live.run(next_token(live.engine, prompt.tolist()))
    assert from_cache > 0
    assert next_distance(model, prompt, "base", got) > TOLERANCE
    live.run(live.engine.client.collective_rpc("memory_view", args=(None,)))


def test_a_receipt_proves_what_the_workers_hold(live: LiveEngine, engine_world: EngineWorld) -> None:
    model = engine_world.grown(seed=5)
    receipt = deliver(live, model, "proof")
    held = live.run(live.engine.holds())
    promised = checksum(expert_tensors(model.memory_layers, written_experts(model.memory_state)))
    assert receipt.checksum == held["checksum"] == promised
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
        lambda model: b"not a delivery",
    ],
    ids=["checksum", "shape", "place", "dtype", "bytes"],
)
def test_a_delivery_that_does_not_check_out_is_refused_and_changes_nothing(
    live: LiveEngine, engine_world: EngineWorld, spoil: Any
) -> None:
    model, ids = engine_world.grown(seed=6), prompts(engine_world, 1, 32)
    deliver(live, model, "whole")
    held = live.run(live.engine.holds())
    with pytest.raises(DeliveryRefused):
        live.run(live.engine.deliver(spoil(engine_world.grown(seed=7))))
    assert live.run(live.engine.holds()) == held
    assert live.engine.version == "whole"
    assert distance(model, ids, "awake", live.run(live.engine.logprobs(ids.tolist()))) < TOLERANCE


def test_requests_in_flight_finish_and_each_token_is_from_the_version_it_says(live: LiveEngine, engine_world: EngineWorld) -> None:
    from vllm import SamplingParams

    old, new = engine_world.grown(seed=8), engine_world.grown(seed=9)
    rows, params = prompts(engine_world, 64, 40).tolist(), SamplingParams(max_tokens=100, temperature=0.0, ignore_eos=True)
    deliver(live, old, "old")

    async def deliver_meanwhile() -> list[Any]:
        tasks = [asyncio.create_task(live.engine.generate(row, params)) for row in rows]
        await asyncio.sleep(0.3)
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
    rows = prompts(engine_world, 3, 10).tolist()
    sampling = {"samples": 4, "max_tokens": 12, "temperature": 1.0}
    first = live.run(live.engine.sample(rows, seed=5, **sampling))
    assert first == live.run(live.engine.sample(rows, seed=5, **sampling))
    assert first != live.run(live.engine.sample(rows, seed=6, **sampling))
    assert len({tuple(tokens) for tokens in first}) == len(first) == 12
    stop = first[0][3]
    stopped = live.run(live.engine.sample(rows, seed=5, stop=[stop], **sampling))
    for before, after in zip(first, stopped, strict=True):
        assert after == (before[: before.index(stop) + 1] if stop in before else before)


def test_a_prompt_longer_than_the_model_is_refused(live: LiveEngine) -> None:
    with pytest.raises(ExceptionGroup) as refused:
        live.run(live.engine.sample([[7] * 600], max_tokens=1, temperature=0.0, seed=0))
    assert "512" in str(refused.value.exceptions[0])


def test_a_pruned_expert_is_gone_after_a_delivery(live: LiveEngine, engine_world: EngineWorld) -> None:
    model, ids = engine_world.grown(seed=11), prompts(engine_world, 1, 32)
    deliver(live, model, "full")
    model.prune(0)
    model.seal(STUDENT)
    receipt = live.run(live.engine.deliver(pack(model.memory_layers, [STUDENT], model.memory_state, "pruned")))
    assert receipt.version == "pruned"
    assert live.run(live.engine.holds())["checksum"] == checksum(expert_tensors(model.memory_layers, [SEALED, STUDENT]))
    assert distance(model, ids, "awake", live.run(live.engine.logprobs(ids.tolist()))) < TOLERANCE


def test_relabelling_changes_the_version_and_nothing_else(live: LiveEngine, engine_world: EngineWorld) -> None:
    model, ids = engine_world.grown(seed=12), prompts(engine_world, 1, 32)
    deliver(live, model, "candidate")
    held = live.run(live.engine.holds())
    live.run(live.engine.relabel("promoted"))
    assert live.engine.version == "promoted"
    assert live.run(live.engine.holds()) == held
    assert distance(model, ids, "awake", live.run(live.engine.logprobs(ids.tolist()))) < TOLERANCE
