"""What ships comes from the code that is here: the same settings, the same documents, the same first steps, the accuracies it claims."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from circadian.memory.tokenizer_files import load_tokenizer
from circadian.nursery.ship import REPORT, SCHOOL, SHIPPED, TRACED_STEPS, WEIGHTS, documents_sha256, measure
from circadian.nursery.train import build_model, pretrain
from circadian.specs import NurserySpec


@dataclass(frozen=True)
class Ship:
    folder: Path
    spec: NurserySpec
    report: dict[str, Any]


@pytest.fixture(params=SHIPPED, ids=lambda folder: folder.name)
def ship(request: pytest.FixtureRequest) -> Ship:
    return Ship(request.param, SHIPPED[request.param], json.loads((request.param / REPORT).read_text()))


def test_it_was_trained_with_the_settings_that_are_here(ship: Ship) -> None:
    assert NurserySpec.model_validate(ship.report["spec"]) == ship.spec
    model = AutoModelForCausalLM.from_pretrained(ship.folder)
    fresh = build_model(ship.spec, load_tokenizer(ship.folder))
    assert {n: p.shape for n, p in model.named_parameters()} == {n: p.shape for n, p in fresh.named_parameters()}
    assert sum(p.numel() for p in model.parameters()) == ship.report["parameters"]


def test_it_read_the_documents_that_are_here(ship: Ship) -> None:
    assert documents_sha256(ship.spec) == ship.report["documents_sha256"]


def test_the_first_steps_lose_what_they_lost(ship: Ship) -> None:
    class Enough(Exception):
        pass

    losses: list[float] = []

    def follow(step: int, steps: int, loss: float) -> None:
        losses.append(loss)
        if step == TRACED_STEPS:
            raise Enough

    with pytest.raises(Enough):
        pretrain(ship.spec, follow)
    assert losses == pytest.approx(ship.report["first_losses"], rel=2e-3)
    assert losses[-1] < losses[0]


def test_it_knows_what_it_claims(ship: Ship) -> None:
    with torch.no_grad():
        measured = measure(AutoModelForCausalLM.from_pretrained(ship.folder).eval(), load_tokenizer(ship.folder), ship.spec)
    assert measured == pytest.approx(ship.report["accuracy"], abs=0.011)
    assert measured["base"] >= 0.99
    needed = {WEIGHTS: ["open_book_1"], SCHOOL: ["open_book_direct", "open_book_implied"]}[ship.folder]
    assert all(measured[name] >= 0.95 for name in needed)
