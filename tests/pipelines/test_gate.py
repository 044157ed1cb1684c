"""What the gate measures and what it lets through."""

from __future__ import annotations

import math

import pytest

from actors.replies import Read
from circadian.specs import GateSpec
from pipelines.gate import FEWEST_DOCUMENTS, FEWEST_SURE, Measured, judge, lost, nll_rise

GOOD = Measured(agreement=1.0, forgotten=0.0, lost=0.0, nll_rise=0.0, must_agree=True)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, ""),
        ({"agreement": 0.5}, "agreement 0.500 < 0.7"),
        ({"agreement": None}, "agreement was not measured"),
        ({"agreement": None, "must_agree": False}, ""),
        ({"forgotten": 0.2}, "forgotten 0.200 > 0.1"),
        ({"forgotten": None}, ""),
        ({"lost": 0.2}, "lost 0.200 > 0.1"),
        ({"lost": None}, ""),
        ({"nll_rise": 0.4}, "nll_rise 0.400 > 0.3"),
        ({"nll_rise": math.nan}, "nll_rise nan > 0.3"),
        ({"nll_rise": math.inf}, "nll_rise inf > 0.3"),
        ({"nll_rise": None}, ""),
        ({"forgotten": None, "lost": None, "nll_rise": None}, "what was kept was not measured"),
    ],
)
def test_the_gate_fails_what_is_bad_or_not_a_number(changes: dict[str, object], reason: str) -> None:
    reasons = judge(Measured(**{**GOOD.__dict__, **changes}), GateSpec())  # type: ignore[arg-type]
    assert len(reasons) == bool(reason)
    assert reason in "".join(reasons)


def expected(*tokens: int, missing: tuple[int, ...] = (), nats: float = 0.0) -> list[Read]:
    return [Read(token, -nats - (3.0 if token in missing else 0.0), token not in missing) for token in tokens]


def test_a_rare_word_that_is_lost_weighs_as_much_as_a_frequent_one() -> None:
    document = (1, 1, 1, 1, 1, 1, *range(2, 11))
    parent = [expected(*document)] * FEWEST_DOCUMENTS
    assert lost(parent, parent) == 0.0
    assert lost(parent, [expected(*document, missing=(7,))] * FEWEST_DOCUMENTS) == pytest.approx(1 / 10)
    assert lost(parent, [expected(*document, missing=(1,)), *parent[1:]]) == pytest.approx(1 / 4 / 10)
    unsure = [expected(*document, missing=(7,)), *[expected(*document, nats=1.0)] * (FEWEST_DOCUMENTS - 1)]
    assert lost(unsure, [expected(*document, missing=(7, 8))] * FEWEST_DOCUMENTS) == pytest.approx(1 / 9)
    assert lost([expected(*range(FEWEST_SURE - 1))], [expected(*range(FEWEST_SURE - 1))]) is None


def test_nll_rise_is_nats_a_token_and_needs_documents() -> None:
    parent, candidate = [expected(1, 2, 3)] * FEWEST_DOCUMENTS, [expected(1, 2, 3, nats=0.25)] * FEWEST_DOCUMENTS
    assert nll_rise(parent, candidate) == pytest.approx(0.25)
    assert nll_rise(candidate, parent) == pytest.approx(-0.25)
    assert nll_rise(parent[1:], candidate[1:]) is None
    assert math.isnan(nll_rise(parent, [expected(1, 2, 3, nats=math.nan)] * FEWEST_DOCUMENTS) or 0.0)
