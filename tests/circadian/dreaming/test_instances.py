"""Packed instances learn what peft and torch's AdamW learn of each dream alone."""

from __future__ import annotations

import copy
from pathlib import Path

import peft
import pytest
import torch
from transformers import Qwen3ForCausalLM

from circadian.dreaming.gradients import sketches
from circadian.dreaming.instances import Adapter, Pack, _plan, fine_tune
from circadian.dreaming.peft_files import AdapterBroken, read_adapter, write_adapter
from circadian.experience import Row
from circadian.specs.dreaming import AdapterSpec
from tests.circadian.dreaming.small import DREAMS, SPEC, small_model


@pytest.fixture(scope="module")
def model() -> Qwen3ForCausalLM:
    return small_model()


def one_by_one(model: Qwen3ForCausalLM, rows: list[list[Row]], start: Adapter, spec: AdapterSpec) -> tuple[dict, list[float]]:
    """peft, torch's AdamW and scheduler on the same steps, from the same A."""
    config = peft.LoraConfig(r=spec.rank, lora_alpha=spec.alpha, lora_dropout=0.0, target_modules=list(spec.targets))
    tuned = peft.get_peft_model(copy.deepcopy(model), config)
    held = {name: parameter for name, parameter in tuned.named_parameters() if "lora_" in name}
    for name, (A, _) in start.tensors.items():
        held[f"base_model.model.{name}.lora_A.default.weight"].data.copy_(A)
    adam = torch.optim.AdamW(held.values(), lr=spec.lr, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(adam, lambda step: (len(rows) - step) / len(rows))
    losses = []
    for batch in rows:
        total = weights = 0.0
        for row in batch:
            log_probs = tuned(input_ids=torch.tensor([row.ids])).logits[0, :-1].log_softmax(-1)
            weight = torch.tensor(row.weight[1:])
            total -= (log_probs.gather(-1, torch.tensor(row.ids[1:])[:, None])[:, 0] * weight).sum()
            weights += weight.sum()
        loss = total / weights
        losses.append(loss.item())
        adam.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(held.values(), spec.max_grad_norm)
        adam.step()
        schedule.step()
    return {name: parameter.detach() for name, parameter in held.items()}, losses


@pytest.mark.parametrize("number", range(len(DREAMS)))
def test_a_packed_instance_learns_what_peft_learns_of_its_dream_alone(model: Qwen3ForCausalLM, number: int) -> None:
    adapter = fine_tune(model, DREAMS, SPEC, seed=7)[number]
    start = Pack(model, 1, SPEC, 7).adapter(0)
    rows = _plan(DREAMS[number], SPEC, 7)
    theirs, losses = one_by_one(model, rows, start, SPEC)
    assert losses == pytest.approx(adapter.losses, abs=1e-5)
    assert losses[-1] < losses[0]
    for name, (A, B) in adapter.tensors.items():
        torch.testing.assert_close(A, theirs[f"base_model.model.{name}.lora_A.default.weight"], atol=2e-5, rtol=1e-4)
        torch.testing.assert_close(B, theirs[f"base_model.model.{name}.lora_B.default.weight"], atol=2e-5, rtol=1e-4)


def test_company_changes_nothing_and_the_base_stays_as_it_was(model: Qwen3ForCausalLM) -> None:
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    among = fine_tune(model, DREAMS, SPEC, seed=7)[0]
    alone = fine_tune(model, DREAMS[:1], SPEC, seed=7)[0]
    for name, (A, B) in among.tensors.items():
        torch.testing.assert_close(A, alone.tensors[name][0], atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(B, alone.tensors[name][1], atol=1e-5, rtol=1e-4)
    after = model.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


def test_an_instance_of_a_bf16_base_learns_in_fp32(model: Qwen3ForCausalLM) -> None:
    exact = fine_tune(model, DREAMS, SPEC, seed=7)
    coarse = fine_tune(copy.deepcopy(model).bfloat16(), DREAMS, SPEC, seed=7)
    for one, other in zip(exact, coarse, strict=True):
        assert other.losses == pytest.approx(one.losses, abs=0.05)
        assert other.losses[-1] < other.losses[0]
        for name, (A, B) in other.tensors.items():
            assert A.dtype == B.dtype == torch.float32
            moved = [(A - beginning(SPEC, model, name)).norm(), (one.tensors[name][0] - beginning(SPEC, model, name)).norm()]
            assert float(moved[0]) == pytest.approx(float(moved[1]), rel=0.3)


def beginning(spec: AdapterSpec, model: Qwen3ForCausalLM, name: str) -> torch.Tensor:
    """The A with which every instance begins."""
    return Pack(model, 1, spec, 7).adapter(0).tensors[name][0]


def test_an_instance_reads_nothing_of_the_others(model: Qwen3ForCausalLM) -> None:
    pack = Pack(model, 2, SPEC, 0)
    with torch.no_grad():
        for part in pack.parameters:
            part.copy_(torch.randn(part.shape, generator=torch.Generator().manual_seed(3)))
    rows = [DREAMS[0][:1], DREAMS[1][:1]]
    with pack.attached():
        losses = pack.losses(rows)
        own = torch.autograd.grad(losses[0], pack.parameters)
        with torch.no_grad():
            for part in pack.parameters:
                part[1] += 1.0
            again = pack.losses(rows)
    assert all(float(gradient[1].abs().max()) == 0.0 and float(gradient[0].abs().max()) > 0.0 for gradient in own)
    assert again[0].item() == pytest.approx(losses[0].item(), abs=1e-6)
    assert abs((again[1] - losses[1]).item()) > 1e-2


def test_a_written_adapter_is_read_back_by_us_and_by_peft(model: Qwen3ForCausalLM, tmp_path: Path) -> None:
    adapter = fine_tune(model, DREAMS[:1], SPEC, seed=7)[0]
    write_adapter(tmp_path, adapter)
    for name, (A, B) in read_adapter(tmp_path, SPEC).tensors.items():
        assert torch.equal(A, adapter.tensors[name][0])
        assert torch.equal(B, adapter.tensors[name][1])
    loaded = peft.PeftModel.from_pretrained(copy.deepcopy(model), tmp_path).eval()
    row = DREAMS[0][0]
    pack = Pack(model, 1, SPEC, 7)
    with torch.no_grad(), pack.attached():
        for name, (A, B) in adapter.tensors.items():
            pack.layers[name].A[0].copy_(A.T)
            pack.layers[name].B[0].copy_(B.T)
        ours = float(pack.losses([[row]])[0])
        log_probs = loaded(input_ids=torch.tensor([row.ids])).logits[0, :-1].log_softmax(-1)
        picked = log_probs.gather(-1, torch.tensor(row.ids[1:])[:, None])[:, 0]
        weight = torch.tensor(row.weight[1:])
        assert ours == pytest.approx(float(-(picked * weight).sum() / weight.sum()), abs=1e-5)


def test_what_cannot_be_learned_or_read_says_the_remedy(model: Qwen3ForCausalLM, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="leave it out"):
        fine_tune(model, [[], DREAMS[0]], SPEC, seed=0)
    with pytest.raises(ValueError, match=r"adapter\.targets.*name some that it has"):
        fine_tune(model, DREAMS, SPEC.model_copy(update={"targets": ("c_attn",)}), seed=0)
    with pytest.raises(AdapterBroken, match=r"adapter_model\.safetensors"):
        read_adapter(tmp_path / "nothing", SPEC)
    write_adapter(tmp_path, fine_tune(model, DREAMS[:1], SPEC, seed=0)[0])
    with pytest.raises(AdapterBroken, match="another rank"):
        read_adapter(tmp_path, SPEC.model_copy(update={"rank": 8}))


def test_an_instance_goes_on_from_where_another_ended(model: Qwen3ForCausalLM) -> None:
    still = SPEC.model_copy(update={"lr": 1e-12})
    (first,) = fine_tune(model, DREAMS[:1], SPEC, seed=7)
    begun = fine_tune(model, DREAMS[:2], still, seed=7, begin=first)
    for name, (A, B) in first.tensors.items():
        for one in begun:
            torch.testing.assert_close(one.tensors[name][0], A, atol=1e-6, rtol=0)
            torch.testing.assert_close(one.tensors[name][1], B, atol=1e-6, rtol=0)
    fresh = fine_tune(model, DREAMS[:1], SPEC, seed=7)[0]
    assert fine_tune(model, DREAMS[:1], SPEC, seed=7, begin=first)[0].losses[0] < fresh.losses[0]
    with pytest.raises(ValueError, match="other layers"):
        fine_tune(model, DREAMS[:1], SPEC.model_copy(update={"targets": ("q_proj",)}), seed=7, begin=first)


@pytest.mark.parametrize("most_tokens", [1, 30])
def test_a_step_in_several_passes_is_the_same_step(model: Qwen3ForCausalLM, most_tokens: int) -> None:
    whole, parts = fine_tune(model, DREAMS, SPEC, seed=7), fine_tune(model, DREAMS, SPEC, seed=7, most_tokens=most_tokens)
    for one, other in zip(whole, parts, strict=True):
        assert other.losses == pytest.approx(one.losses, abs=1e-5)
        for name, (_, B) in other.tensors.items():
            torch.testing.assert_close(B, one.tensors[name][1], atol=2e-5, rtol=1e-3)
    torch.testing.assert_close(
        sketches(model, DREAMS, SPEC, 7, most_tokens=most_tokens), sketches(model, DREAMS, SPEC, 7), atol=1e-5, rtol=1e-3
    )
