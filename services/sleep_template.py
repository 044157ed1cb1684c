"""What a sleep is asked for, whoever asks: a client, a schedule, an erasure."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from circadian.specs import Fraction, PromotionSpec, Recipe, Spec, TeacherSpec
from services.budget import Budget
from services.metadata import Metadata
from services.selection import Selection


class GateOverride(Spec):
    """Another limit for one probe, in one sleep."""

    probe: str
    min: Fraction | None = None
    """Instead of the probe's threshold."""
    max_regression: Fraction | None = None
    """Instead of the probe's."""


class SleepTemplate(Spec):
    """What a sleep is asked for, whoever asks."""

    recipe: Recipe | None = None
    """Instead of the deployment's."""
    teachers: Annotated[tuple[TeacherSpec, ...], Field(max_length=16)] | None = None
    """Other models to learn from, instead of the recipe's; with any, a sleep needs no experiences."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    promotion: PromotionSpec | None = None
    """Instead of the deployment's."""
    placement: Literal["auto", "dedicated", "unihemispheric", "full"] | None = None
    """How the night lies beside the replicas, instead of as the deployment's serving says."""
    held_out: tuple[str, ...] = ()
    """Texts kept for tests: no wake row and no sleep prompt may contain one of them."""
    selection: Selection = Selection()
    """Which of the waiting experiences; all of them unless given."""
    budget: Budget = Budget()
    """What it may spend; a night that spends more is ended, and fails."""
    metadata: Metadata = {}
    gates: Annotated[tuple[GateOverride, ...], Field(max_length=64)] = ()
    """Probes that the candidate is held against, beside all of the deployment's that have a limit of their own."""
