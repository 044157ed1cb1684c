"""Limits, and what follows from them: pure functions.

A criterion that could not be measured (fewer sure cues, words or documents than would tell anything) is null and lets the candidate pass,
but for two: agreement on questions that were asked by day, without which nothing is published, and what was kept, of which something
must be known. What is not a number fails.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from circadian.specs import GateSpec
from pipelines.gates.probes import Probed
from pipelines.gates.secrets import Exposed

CRITERIA = {
    "agreement": "min_agreement",
    "taught": "min_taught",
    "dreamt": "min_dreamt",
    "forgotten": "max_forgotten",
    "forgotten_night": "max_forgotten_night",
    "lost": "max_lost",
    "base_lost": "max_base_lost",
    "nll_rise": "max_nll_rise",
    "median_nll_rise": "max_median_nll_rise",
    "base_nll_rise": "max_base_nll_rise",
    "drift_parent": "max_drift_parent",
    "drift_base": "max_drift_base",
    "exposure": "max_exposure",
}
"""By name, with the limit's: `min_` the least that passes, `max_` the most."""
KEPT = ("forgotten", "lost", "nll_rise")
"""Of which one must be measured."""


@dataclass(frozen=True)
class Measured:
    """The criteria; None is not measured, and `must_agree` says whether agreement may be that."""

    agreement: float | None
    forgotten: float | None
    lost: float | None
    nll_rise: float | None
    must_agree: bool
    taught: float | None = None
    dreamt: float | None = None
    forgotten_night: float | None = None
    base_lost: float | None = None
    median_nll_rise: float | None = None
    base_nll_rise: float | None = None
    drift_parent: float | None = None
    drift_base: float | None = None
    exposure: float | None = None

    def numbers(self) -> dict[str, float | None]:
        """As JSON has them: what is not finite is null, and judged as such before."""
        return {name: _finite(getattr(self, name)) for name in CRITERIA}


@dataclass(frozen=True)
class Gate:
    """One criterion, judged. value: None where it was not measured."""

    name: str
    passed: bool
    value: float | None
    limit: float | None
    message: str

    def told(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "name": self.name,
            "passed": self.passed,
            "value": _finite(self.value),
            "limit": self.limit,
            "message": self.message,
        }


def judge(measured: Measured, spec: GateSpec, probed: Sequence[Probed] = (), exposed: Sequence[Exposed] = ()) -> list[Gate]:
    """Every criterion; the candidate passes if all do."""
    gates = [_limit(name, getattr(measured, name), bound, getattr(spec, bound)) for name, bound in CRITERIA.items()]
    if measured.agreement is None and measured.must_agree:
        why = "agreement was not measured: the awake teacher is sure of none of the day's questions"
        gates[0] = Gate("agreement", False, None, spec.min_agreement, why)
    if all(getattr(measured, name) is None for name in KEPT):
        why = "what was kept was not measured: too few old cues and different free documents; raise seeding.free_run_rows"
        gates.append(Gate("kept", False, None, None, why))
    said = sorted({one.name for one in exposed if one.completed})
    if said:
        why = f"canaries that the candidate completes word for word: {', '.join(said)}"
        gates.append(Gate("completed_canaries", False, float(len(said)), 0.0, why))
    return gates + [gate for one in probed for gate in _probe(one)]


def reasons(gates: Sequence[Gate]) -> list[str]:
    """Why the candidate fails; nothing if it passes."""
    return [gate.message for gate in gates if not gate.passed]


def _probe(probed: Probed) -> list[Gate]:
    name, probe = f"probe:{probed.probe.id}", probed.probe
    gates = []
    if probe.threshold is not None:
        gates.append(_limit(name, probed.score, "min", probe.threshold))
    if probe.max_regression is not None:
        gates.append(_limit(f"{name}:regression", probed.regression, "max", probe.max_regression))
    return gates


def _limit(name: str, value: float | None, bound: str, limit: float) -> Gate:
    if value is None:
        return Gate(name, True, None, limit, f"{name} was not measured")
    least = bound.startswith("min")
    passed = value >= limit if least else value <= limit
    sign = (">=" if least else "<=") if passed else ("<" if least else ">")
    return Gate(name, passed, value, limit, f"{name} {value:.3f} {sign} {limit}")


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
