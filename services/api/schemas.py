"""Request bodies of the control endpoints. Unknown fields are errors, everywhere."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from circadian.specs import BaseModelRef, MemorySpec, PromotionSpec, Recipe
from circadian.specs.screening import ScreeningSpec
from services.fleet import ServingSpec
from services.metadata import Metadata
from services.retention import RetentionSpec
from services.sleep_template import SleepTemplate

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]{0,62}$")]
"""Of a deployment: the `model` that clients ask for, and part of actor names. No underscore, so no name looks like an id."""
SleepId = Annotated[str, Field(pattern=r"^slp_[A-Za-z0-9_-]{1,48}$")]


WakeMode = Literal["at_dusk", "online"]


class Body(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class DeploymentCreate(Body):
    name: Name
    base_model: BaseModelRef
    memory: MemorySpec = MemorySpec()
    recipe: Recipe = Recipe()
    """How this deployment sleeps unless a sleep says otherwise; how it learns online, if it does."""
    wake: WakeMode = "at_dusk"
    """When its fast level learns: all of the day when a night begins, or while it serves, whenever level 0's period is full."""
    serving: ServingSpec = ServingSpec()
    promotion: PromotionSpec = PromotionSpec()
    """What becomes of versions that its nights make, unless a sleep says otherwise."""
    screening: ScreeningSpec = ScreeningSpec()
    """What is done with what comes in before it is stored."""
    retention: RetentionSpec = RetentionSpec()
    metadata: Metadata = {}


class SleepCreate(SleepTemplate):
    deployment: str
    id: SleepId | None = None
    """Chosen by the client: repeating a request with the same id returns the first sleep."""
    parent_version: str | None = None
    """Begin only if this version is the active one: a night goes on from what serves, and from nothing else."""
    dry_run: bool = False
    """Say what the night would do and cost, and begin none."""
