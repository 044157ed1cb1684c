"""Gates of nights that are lived for something else than what they are worth."""

from __future__ import annotations

from typing import Any

ANY: dict[str, Any] = {
    **dict.fromkeys(("min_agreement", "min_taught", "min_dreamt"), 0.0),
    **dict.fromkeys(("max_forgotten", "max_forgotten_night", "max_lost", "max_base_lost"), 1.0),
    **dict.fromkeys(("max_nll_rise", "max_median_nll_rise", "max_base_nll_rise", "max_drift_parent", "max_drift_base"), 1e9),
    "max_exposure": 1e9,
}
"""Lets everything pass: what such a short night keeps is no matter there."""
