"""Request bodies of the control endpoints. Unknown fields are errors, everywhere."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from circadian.specs import BaseModelRef, MemorySpec, Message, PromotionSpec, Recipe
from circadian.specs.experience import Trust
from circadian.specs.screening import ScreeningSpec
from services.fleet import ServingSpec
from services.metadata import NUL, Metadata
from services.sleep_template import SleepTemplate

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]{0,62}$")]
"""Of a deployment: the `model` that clients ask for, and part of actor names. No underscore, so no name looks like an id."""
SleepId = Annotated[str, Field(pattern=r"^slp_[A-Za-z0-9_-]{1,48}$")]


def _no_nul(given: str) -> str:
    if NUL in given:
        raise ValueError("it has a NUL character (\\u0000), which no database keeps; leave it out")
    return given


Line = Annotated[str, AfterValidator(_no_nul)]
ShortText = Annotated[Line, Field(min_length=1, max_length=256)]
MOST_SECONDS = 253_402_300_799
"""The last second of the year 9999."""
WakeMode = Literal["at_dusk", "online"]


class Body(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class RetentionSpec(Body):
    """How long what comes in is kept."""

    experience_ttl_days: Annotated[int, Field(ge=1, le=36_500)] | None = None
    """After so many days the text of an experience that no version keeps is erased, and no night takes it any more. None: never."""


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


class ExperienceCreate(Body):
    """A chat (`messages`) or a document (`text`), exactly one of the two."""

    deployment: str
    messages: Annotated[tuple[Message, ...], Field(max_length=1024)] = ()
    text: str = ""
    source: Literal["wake", "import", "human", "tool"] = "import"
    trust: Trust | None = None
    """How far what it says may be believed; by its source unless given. Whatever is dreamt of it is trusted no more."""
    subject_id: ShortText | None = None
    """Whom it is about: what is to be forgotten with them, and of whom no night takes too much."""
    session_id: ShortText | None = None
    uri: Annotated[Line, Field(min_length=1, max_length=2048)] | None = None
    """Where it is from."""
    consent: bool | None = None
    """Whether the one whom it is from agreed to its being learned. False is always refused."""
    occurred_at: Annotated[float, Field(ge=0.0, le=MOST_SECONDS)] | None = None
    """Unix seconds; when it came in unless given."""
    dedupe_key: ShortText | None = None
    """Your name for it: sent again, the first one is answered, and nothing is stored."""
    metadata: Metadata = {}

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if bool(self.messages) == bool(self.text):
            raise ValueError("give either messages (a chat) or text (a document), not both and not neither")
        return self


class SleepCreate(SleepTemplate):
    deployment: str
    id: SleepId | None = None
    """Chosen by the client: repeating a request with the same id returns the first sleep."""
    parent_version: str | None = None
    """Begin only if this version is the active one: a night goes on from what serves, and from nothing else."""
    dry_run: bool = False
    """Say what the night would do and cost, and begin none."""
