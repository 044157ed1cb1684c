"""What looks into models, as the service sees it, and on Ray: no controller has torch (actors/workshop.py)."""

from __future__ import annotations

import asyncio
import os
from functools import partial
from pathlib import Path
from typing import Protocol

import ray
from ray.exceptions import RayError

from actors.workshop import Answer, FoundRequest, NoWorkplace, Request, TeachersRequest, work_ref
from circadian.specs import BaseModelRef, MemorySpec, Recipe, VersionRecord
from services.errors import Problem
from services.fleet import FleetUnavailable
from services.outside import problem_of
from services.ray_fleet import RayFleet
from services.settings import HUB_TOKENS, Settings

RETRY_SECONDS = "10"


class Workshop(Protocol):
    """Where work is done that needs torch."""

    async def found(self, base: BaseModelRef, memory: MemorySpec, folder: Path) -> VersionRecord:
        """Write a deployment's first version into this folder, whole or not at all; one that is there is left as it is. Raises Problem: 422
        names the field and the remedy, 503 says that nobody has done it yet."""

    async def check_teachers(self, version: Path, recipe: Recipe) -> None:
        """Can the recipe's teachers teach this version? Raises Problem, as `found`."""


class RayWorkshop:
    """Tasks of the cluster that the fleet has joined, or joins for them."""

    def __init__(self, settings: Settings, fleet: RayFleet) -> None:
        self.settings, self.fleet = settings, fleet

    async def found(self, base: BaseModelRef, memory: MemorySpec, folder: Path) -> VersionRecord:
        return founded(await self._work(found_request(self.settings, base, memory, folder)))

    async def check_teachers(self, version: Path, recipe: Recipe) -> None:
        if recipe.teachers:
            checked(await self._work(teachers_request(self.settings, version, recipe)))

    async def _work(self, request: Request) -> Answer:
        ref = None
        try:
            async with asyncio.timeout(self.settings.workshop_seconds):
                ref = await self.fleet.put(partial(work_ref, request, hub_token()))
                text: str = await self.fleet.answered(ref)
                answer, ref = Answer.model_validate_json(text), None
                return answer
        except TimeoutError as error:
            seconds = f"{self.settings.workshop_seconds:g} s"
            raise _nobody(f"no node has looked into the model within {seconds} (CIRCADIAN_WORKSHOP_SECONDS)") from error
        except (FleetUnavailable, NoWorkplace, RayError) as error:
            raise _nobody(f"no node looks into the model: {error}") from error
        finally:
            if ref is not None:
                ray.cancel(ref, force=True)  # nobody waits for it any more


def found_request(settings: Settings, base: BaseModelRef, memory: MemorySpec, folder: Path) -> FoundRequest:
    """A folder that is named from where the controller runs is named for all machines."""
    model = str(Path(base.model).resolve()) if Path(base.model).is_dir() else base.model
    named = base.model_copy(update={"model": model})
    return FoundRequest(base=named, memory=memory, folder=str(folder), allowed_models=settings.allowed_models)


def teachers_request(settings: Settings, version: Path, recipe: Recipe) -> TeachersRequest:
    return TeachersRequest(version=str(version), teachers=recipe.teachers, allowed_models=settings.allowed_models)


def founded(answer: Answer) -> VersionRecord:
    """The version. Raises Problem (422)."""
    checked(answer)
    assert answer.record is not None, "who founds a version tells of it, or refuses"
    return answer.record


def checked(answer: Answer) -> None:
    """Raises Problem (422) for a refusal."""
    if answer.refusal is not None:
        raise problem_of(answer.refusal)


def hub_token() -> str | None:
    return next((os.environ[name] for name in HUB_TOKENS if os.environ.get(name)), None)


def _nobody(why: str) -> Problem:
    return Problem(503, "ray_unavailable", f"{why}; nothing was changed, try it again.", headers={"Retry-After": RETRY_SECONDS})
