"""The GPU's benchmark, on a CPU at a tiny shape: it measures what it says, its contenders do the same work, and what breaks is told."""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path
from subprocess import run

import pytest
import torch
from transformers import PreTrainedModel, Qwen3ForCausalLM

from benchmarks.accelerator import __main__ as accelerator
from benchmarks.accelerator import correctness, delivery, divergence, forward, learner, models, tables
from benchmarks.accelerator.models import adapted, base_model, fill, grafted, packed, without_adapter
from benchmarks.accelerator.plan import SMALL
from benchmarks.learner.points import Point, rows_of
from circadian.memory.graft import Grafted

CPU = torch.device("cpu")
EQUAL, RECIPE = SMALL.lessons
RATES = {"copy_bytes_per_second": 1e9, "bf16_operations_per_second": 1e12}


def missing(package: str) -> str:
    """As if it were not installed."""
    raise models.PackageNotFoundError(package)


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> dict:
    """With the hand-written LoRA: peft takes seconds to import."""
    out = tmp_path_factory.mktemp("accelerator") / "result.json"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(models, "version", missing)
        assert accelerator.main(["--device", "cpu", "--shapes", "tiny", "--out", str(out)]) == 0
    return json.loads(out.read_text())


def model(dtype: torch.dtype = torch.float32) -> Grafted:
    experts = SMALL.experts[0]
    return fill(grafted(base_model(SMALL.shape, CPU, dtype), forward.spec_of(SMALL, experts)), forward.sealed(experts))


def test_every_part_is_measured_and_stands_on_the_page(result: dict) -> None:
    assert set(accelerator.PARTS) < set(result)
    page = tables.tables(result)
    for name in ("memory-3", "packed-3", "two_models_upper", "tiny/recipe-6-rows", "chunked", "tiny | version", "cpu, bfloat16"):
        assert name in page


def test_it_is_imported_without_a_gpu_an_engine_or_a_cluster() -> None:
    heavy = {"vllm", "ray", "deepspeed", "peft", "liger_kernel"}
    asked = "sys.exit(str(heavy & set(sys.modules) or '') or torch.cuda.is_initialized())"
    code = f"import sys, benchmarks.accelerator.__main__, torch; heavy = {heavy}; {asked}"
    assert run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], check=False).returncode == 0


def test_all_promises_hold_and_are_counted(result: dict) -> None:
    promises = result["correctness"]["tiny"]
    assert len(promises) == 14
    assert all(promises.values())


def test_a_broken_promise_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(correctness, "equals_base", lambda *_: False)
    out = tmp_path / "result.json"
    assert accelerator.main(["--device", "cpu", "--shapes", "tiny", "--only", "correctness", "--out", str(out)]) == 1
    assert "**broken**" in tables.tables(json.loads(out.read_text()))


def test_a_memory_that_says_something_is_not_the_base() -> None:
    full, ids = model(), torch.arange(12).reshape(2, 6)
    with torch.no_grad():
        plain = base_model(SMALL.shape, CPU, torch.float32)(input_ids=ids).logits
        assert not correctness.equals_base(plain, full, ids)


def test_a_gradient_elsewhere_is_seen() -> None:
    ours = learner.Ours(base_model(SMALL.shape, CPU, torch.float32), RECIPE, SMALL.rank)
    written = {id(parameter) for parameter in ours.adam.learned}
    ours.teach()
    ours.loss().backward()
    assert correctness.only_they_have_gradients(ours.model, written)
    ours.model.model.norm.weight.grad = torch.zeros(SMALL.shape.width)
    assert not correctness.only_they_have_gradients(ours.model, written)


def test_what_two_products_say_is_what_the_levels_say() -> None:
    full, ids = model(), torch.arange(12).reshape(2, 6)
    with torch.no_grad():
        said, base = (full(input_ids=ids, view=view).logits for view in ("awake", "base"))
        for other in (packed(full, full), packed(full, full, multiple=64)):
            assert torch.allclose(said, other(input_ids=ids, view="awake").logits, atol=1e-5)
    assert not torch.allclose(said, base, atol=1e-3)


def test_a_step_after_what_was_read_is_that_of_the_whole_text() -> None:
    base = base_model(SMALL.shape, CPU, torch.float32)
    given = forward.inputs(base, forward.Read(1, 1, past=1))
    ids = torch.tensor([[7, int(given["input_ids"])]])
    whole = base(input_ids=ids, use_cache=True)
    for i, layer in enumerate(whole.past_key_values.layers):
        given["past_key_values"]._held[i, 0, :, :, :1] = layer.keys[:, :, :1]
        given["past_key_values"]._held[i, 1, :, :, :1] = layer.values[:, :, :1]
    assert torch.allclose(forward.forward(base, given)()[0, -1], whole.logits[0, -1], atol=1e-5)


def loud(base: Qwen3ForCausalLM) -> PreTrainedModel:
    """The base with a LoRA that can be heard."""
    student, _ = adapted(base, 2)
    with torch.no_grad():
        for name, tensor in student.named_parameters():
            if "lora_B" in name:
                tensor.mul_(50)
    return student


@pytest.mark.parametrize("point", [EQUAL, RECIPE], ids=lambda point: point.mixture)
def test_plain_distillation_computes_the_divergence_by_its_definition(point: Point, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "version", missing)
    base, teacher = (base_model(SMALL.shape, CPU, torch.float32, seed) for seed in (0, 1))
    student, fresh = loud(base), loud(base)
    rows = rows_of(point)
    wanted, own = [], []
    with torch.no_grad():
        for row in rows:
            ids = torch.tensor([row.ids])
            with without_adapter(student):
                alone = student(input_ids=ids).logits
            logits = (one(input_ids=ids).logits[0].double().log_softmax(-1) for one in (teacher, student))
            p, q, a = (
                *(one[max(row.start, 1) - 1 : -1] for one in logits),
                alone[0].double().log_softmax(-1)[max(row.start, 1) - 1 : -1],
            )
            wanted.append((p.exp() * (p - q)).sum(-1))
            own.append((a.exp() * (a - q)).sum(-1))
    assert learner.Plain(student, teacher, rows, learner.full_logits).step() == pytest.approx(
        float(torch.cat(wanted).mean()), rel=1e-4
    )
    assert float(torch.cat(own).mean()) > 1e-3
    assert learner.Plain(fresh, None, rows, learner.full_logits).step() == pytest.approx(float(torch.cat(own).mean()), rel=1e-3)


def test_divergences_are_compared_with_float64(result: dict) -> None:
    for contenders in result["divergence"]["tiny"]["float32"].values():
        for numbers in contenders.values():
            assert 0 < numbers["far"]["gradient_error"] < 1e-4
    wrong = divergence.Scene(20, 32, 101, CPU, torch.float32, 0.2)
    solved = partial(divergence.loss_and_gradient, lambda student: 2 * wrong.chunked(wrong.keep(), student))
    twice = divergence.errors(solved, wrong, wrong.reference())
    assert twice["loss_error"] == pytest.approx(1.0, abs=1e-3)
    assert twice["gradient_error"] == pytest.approx(1.0, abs=1e-3)


def test_a_delivery_that_is_not_what_was_promised_is_told() -> None:
    from circadian.memory.delivery import pack

    held = model()
    payload = pack(held.memory_layers, [delivery.EXPERT], held.memory_state, "v")
    with pytest.raises(delivery.NotDelivered):
        delivery._receive(held, lambda: payload, "0" * 64)


def test_percentiles_are_of_what_was_measured() -> None:
    ordered = [float(number) for number in range(1, 101)]
    assert (delivery._rank(ordered, 0.5), delivery._rank(ordered, 0.99)) == (50.0, 99.0)
    assert delivery._rank([1.0, 2.0], 0.99) == 2.0


def test_no_forward_is_faster_than_its_floor_says() -> None:
    base = base_model(SMALL.shape, CPU, torch.float32)
    layer = 32 * (2 * 32 + 2 * 32) + 3 * 32 * 48 + 2 * 32 + 2 * 16  # attention, MLP, norms
    size = 4 * (SMALL.shape.layers * layer + 32 + 101 * 32)
    assert forward._touched(base) == size
    assert forward._floor(base, forward.Read(1, 1, 8), RATES) == pytest.approx(1000 * size / 1e9, abs=1e-4)


def test_peft_and_the_hand_written_lora_say_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    base, ids = base_model(SMALL.shape, CPU, torch.float32), torch.arange(12).reshape(2, 6)
    by_peft, who = adapted(base, 4)
    monkeypatch.setattr(models, "version", missing)
    own, ours = adapted(base, 4)
    assert (who.split()[0], ours) == ("peft", "hand-written")
    theirs = {name.replace(".default", ""): tensor for name, tensor in by_peft.state_dict().items()}
    own.load_state_dict(theirs)
    assert torch.allclose(by_peft(input_ids=ids).logits, own(input_ids=ids).logits, atol=1e-6)
    with without_adapter(own), without_adapter(by_peft):
        assert torch.equal(own(input_ids=ids).logits, by_peft(input_ids=ids).logits)
