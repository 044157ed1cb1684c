"""What looks into models, as the service sees it, and on Ray: no controller has torch (actors/workshop.py)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Protocol

import ray
from ray.exceptions import RayError

from actors.models import COMMIT, is_path, refused_name
from actors.workshop import Answer, FoundRequest, NoWorkplace, Request, TeachersRequest, work_ref
from circadian.specs import BaseModelRef, MemorySpec, Recipe, VersionRecord
from services import hub
from services.errors import Problem
from services.fleet import FleetUnavailable
from services.outside import problem_of
from services.ray_fleet import RayFleet
from services.settings import Settings

log = logging.getLogger(__name__)
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
        await self._fetch([base])
        return founded(await self._work(found_request(self.settings, base, memory, folder)))

    async def check_teachers(self, version: Path, recipe: Recipe) -> None:
        if recipe.teachers:
            await self._fetch([BaseModelRef(model=one.model, revision=one.revision) for one in recipe.teachers])
            checked(await self._work(teachers_request(self.settings, version, recipe)))

    async def _fetch(self, models: Sequence[BaseModelRef]) -> None:
        """Models of the hub, which nodes read from the cache. What cannot be fetched is theirs to refuse: it may be in the cache. Raises
        Problem (503) where it takes too long; it goes on meanwhile."""
        for one in models:
            if (
                is_path(one.model)
                or refused_name(one.model, self.settings.allowed_models)
                or not COMMIT.fullmatch(one.revision or "")
            ):
                continue
            try:
                async with asyncio.timeout(self.settings.workshop_seconds):
                    await asyncio.to_thread(hub.fetch, one.model, one.revision or "")
            except TimeoutError as error:
                raise _nobody(f"{one.model} is still being fetched after {self.settings.workshop_seconds:g} s") from error
            except hub.FAILURES as error:
                log.warning("%s is not fetched: %s", one.model, error)

    async def _work(self, request: Request) -> Answer:
        try:
            async with asyncio.timeout(self.settings.workshop_seconds):
                ref = await self.fleet.put(partial(work_ref, request))
                try:
                    text: str = await self.fleet.answered(ref)
                    return Answer.model_validate_json(text)
                except asyncio.CancelledError:  # also when the time is over: nobody waits for it any more
                    with suppress(RayError):  # a cluster that has gone meanwhile took it along
                        ray.cancel(ref, force=True)
                    raise
        except TimeoutError as error:
            seconds = f"{self.settings.workshop_seconds:g} s"
            raise _nobody(f"no node has looked into the model within {seconds} (CIRCADIAN_WORKSHOP_SECONDS)") from error
        except (FleetUnavailable, NoWorkplace, RayError) as error:
            raise _nobody(f"no node looks into the model: {error}") from error


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


def _nobody(why: str) -> Problem:
    return Problem(503, "ray_unavailable", f"{why}; nothing was changed, try it again.", headers={"Retry-After": RETRY_SECONDS})
