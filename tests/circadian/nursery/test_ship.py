"""What ships comes from the code that is here: the same settings, the same documents, the same first steps, the accuracies it claims."""

import json

import pytest
import torch
from transformers import AutoModelForCausalLM

from circadian.memory.version import load_tokenizer
from circadian.nursery.ship import REPORT, TRACED_STEPS, WEIGHTS, documents_sha256, measure
from circadian.nursery.train import build_model, pretrain
from circadian.nursery.world import World
from circadian.specs import NurserySpec

SHIPPED = json.loads((WEIGHTS / REPORT).read_text())
SPEC = NurserySpec()


def test_it_was_trained_with_the_settings_that_are_here() -> None:
    assert NurserySpec.model_validate(SHIPPED["spec"]) == SPEC
    model = AutoModelForCausalLM.from_pretrained(WEIGHTS)
    fresh = build_model(SPEC, load_tokenizer(WEIGHTS))
    assert {n: p.shape for n, p in model.named_parameters()} == {n: p.shape for n, p in fresh.named_parameters()}
    assert sum(p.numel() for p in model.parameters()) == SHIPPED["parameters"]


def test_it_read_the_documents_that_are_here() -> None:
    assert documents_sha256(SPEC) == SHIPPED["documents_sha256"]


def test_the_first_steps_lose_what_they_lost() -> None:
    class Enough(Exception):
        pass

    losses: list[float] = []

    def follow(step: int, steps: int, loss: float) -> None:
        losses.append(loss)
        if step == TRACED_STEPS:
            raise Enough

    with pytest.raises(Enough):
        pretrain(SPEC, follow)
    assert losses == pytest.approx(SHIPPED["first_losses"], rel=2e-3)
    assert losses[-1] < losses[0]


def test_it_knows_what_it_claims() -> None:
    with torch.no_grad():
        measured = measure(AutoModelForCausalLM.from_pretrained(WEIGHTS).eval(), load_tokenizer(WEIGHTS), World(SPEC.world_seed))
    assert measured == pytest.approx(SHIPPED["accuracy"], abs=0.011)
    assert measured["base"] >= 0.99
    assert measured["open_book_1"] >= 0.95
