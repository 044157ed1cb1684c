"""What the gate measures and what it lets through."""

from __future__ import annotations

import math
import random

import pytest

from actors.replies import Read
from circadian.memory.cues import Cue
from circadian.probing import Scored
from circadian.specs import GateSpec, UserProbe
from pipelines.gates import forgetting
from pipelines.gates.asking import FEWEST_SURE, MOST_CUES
from pipelines.gates.judging import CRITERIA, Measured, judge, reasons
from pipelines.gates.probes import Probed
from pipelines.gates.reading import FEWEST_DOCUMENTS, FEWEST_WORDS, drift, lost, median_nll_rise, nll_rise
from pipelines.gates.secrets import Exposed

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
        ({"forgotten_night": 0.375}, "forgotten_night 0.375 > 0.3"),
        ({"forgotten_night": 0.3}, ""),
        ({"lost": 0.2}, "lost 0.200 > 0.1"),
        ({"lost": None}, ""),
        ({"base_lost": 0.31}, "base_lost 0.310 > 0.3"),
        ({"nll_rise": 0.4}, "nll_rise 0.400 > 0.3"),
        ({"nll_rise": math.nan}, "nll_rise nan > 0.3"),
        ({"nll_rise": math.inf}, "nll_rise inf > 0.3"),
        ({"nll_rise": None}, ""),
        ({"median_nll_rise": 0.4}, "median_nll_rise 0.400 > 0.3"),
        ({"base_nll_rise": 0.6}, "base_nll_rise 0.600 > 0.5"),
        ({"drift_parent": 0.6}, "drift_parent 0.600 > 0.5"),
        ({"drift_base": math.inf}, "drift_base inf > 1.0"),
        ({"exposure": 17.0}, "exposure 17.000 > 16.0"),
        ({"exposure": math.nan}, "exposure nan > 16.0"),
        ({"forgotten": None, "lost": None, "nll_rise": None}, "what was kept was not measured"),
    ],
)
def test_the_gate_fails_what_is_bad_or_not_a_number(changes: dict[str, object], reason: str) -> None:
    gates = judge(Measured(**{**GOOD.__dict__, **changes}), GateSpec())
    assert len(reasons(gates)) == bool(reason)
    assert reason in "".join(reasons(gates))
    for gate in gates:
        told = gate.told()
        assert told.keys() == {"name", "passed", "value", "limit", "message"}
        assert told["value"] is None or math.isfinite(told["value"])


def test_every_criterion_has_its_limit_and_every_limit_its_criterion() -> None:
    assert set(CRITERIA.values()) == set(GateSpec.model_fields)
    assert [gate.name for gate in judge(GOOD, GateSpec())] == list(CRITERIA)


def probed(kind: str, candidate: float, parent: float, base: float | None = None, **limits: float) -> Probed:
    item = {"prompt": "a", "expected": "b"}
    probe = UserProbe.model_validate({"id": "prb_1", "kind": kind, "items": [item], **limits})
    scored = [None if score is None else [Scored("said", score)] for score in (candidate, parent, base)]
    return Probed(probe, scored[0] or [], scored[1] or [], scored[2])


@pytest.mark.parametrize(
    ("one", "reason"),
    [
        (probed("retention", 0.5, 1.0), ""),
        (probed("retention", 0.5, 1.0, threshold=0.5), ""),
        (probed("retention", 0.4, 0.0, threshold=0.5), "probe:prb_1 0.400 < 0.5"),
        (probed("retention", 0.5, 0.7, max_regression=0.1), "probe:prb_1:regression 0.200 > 0.1"),
        (probed("retention", 0.9, 0.7, max_regression=0.0), ""),
        (probed("general", 0.7, 0.7, 1.0, max_regression=0.1), "probe:prb_1:regression 0.300 > 0.1"),
    ],
)
def test_a_probe_is_held_against_its_threshold_its_parent_and_its_base(one: Probed, reason: str) -> None:
    assert reasons(judge(GOOD, GateSpec(), [one])) == [reason] * bool(reason)


def test_a_canary_that_is_said_word_for_word_fails_however_it_is_exposed() -> None:
    assert reasons(judge(GOOD, GateSpec(), exposed=[Exposed("own-1", 0.0, False)])) == []
    (why,) = reasons(judge(GOOD, GateSpec(), exposed=[Exposed("own-1", 0.0, False), Exposed("prb_1", 1.0, True)]))
    assert "prb_1" in why
    assert "own-1" not in why


def test_one_night_that_is_gone_is_seen_among_many_that_are_kept() -> None:
    cues = [Cue((night, i), f"slp_{night}", True) for night in range(20) for i in range(FEWEST_SURE)]
    found = forgetting.row(cues, {cue.ids: cue.sleep != "slp_7" for cue in cues})
    assert forgetting.kept(found) == {f"slp_{night}": float(night != 7) for night in range(20)}
    assert forgetting.worst(found) == 1.0
    few = forgetting.row(cues, {cue.ids: cue.sleep != "slp_7" for cue in cues if cue.ids != (7, 0)})
    assert forgetting.worst(few) == 0.0, "of too few cues nobody can tell"
    assert forgetting.worst({}) is None


def test_of_more_cues_than_can_be_asked_some_nights_are_asked_thoroughly() -> None:
    few = [Cue((0, i), "slp_0", True) for i in range(MOST_CUES)]
    assert forgetting.asked(few, random.Random(0)) == few
    many = [Cue((night, i), f"slp_{night}", True) for night in range(100) for i in range(9)]
    drawn = forgetting.asked(many, random.Random(0))
    assert len(drawn) == len(set(drawn)) == MOST_CUES
    enough = {cue.sleep for cue in drawn if sum(other.sleep == cue.sleep for other in drawn) >= FEWEST_SURE}
    assert len(enough) >= MOST_CUES // 9
    assert enough != {cue.sleep for cue in forgetting.asked(many, random.Random(1))}, "others another time"


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
    assert lost([expected(*range(FEWEST_WORDS - 1))], [expected(*range(FEWEST_WORDS - 1))]) is None


def test_nll_rise_is_nats_a_token_and_needs_documents() -> None:
    parent, candidate = [expected(1, 2, 3)] * FEWEST_DOCUMENTS, [expected(1, 2, 3, nats=0.25)] * FEWEST_DOCUMENTS
    for measure in (nll_rise, median_nll_rise):
        assert measure(parent, candidate) == pytest.approx(0.25)
        assert measure(candidate, parent) == pytest.approx(-0.25)
        assert measure(parent[1:], candidate[1:]) is None
        assert math.isnan(measure(parent, [expected(1, 2, 3, nats=math.nan)] * FEWEST_DOCUMENTS) or 0.0)


def test_one_strange_document_moves_the_mean_and_not_the_median() -> None:
    parent = [expected(1, 2, 3)] * 5
    candidate = [expected(1, 2, 3, nats=10.0), *parent[1:]]
    assert nll_rise(parent, candidate) == pytest.approx(2.0)
    assert median_nll_rise(parent, candidate) == 0.0


def test_drift_counts_what_became_likelier_too() -> None:
    parent = [[*expected(1, nats=1.0), *expected(2)]] * FEWEST_DOCUMENTS
    candidate = [[*expected(1), *expected(2, nats=1.0)]] * FEWEST_DOCUMENTS
    assert nll_rise(parent, candidate) == 0.0
    assert drift(parent, candidate) == 1.0
    assert drift(parent[1:], candidate[1:]) is None
