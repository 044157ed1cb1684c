"""The controller: what all routes share, and what runs behind them. The cluster is behind two interfaces that are handed in."""

from __future__ import annotations

import asyncio
from functools import lru_cache
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from circadian.experience import experience_ids
from circadian.memory.version import load_tokenizer
from circadian.specs import Experience
from services import registry
from services.fleet import Fleet
from services.home import private_folder
from services.keys import Keys
from services.launcher import Launcher
from services.learners import Learners
from services.nights import Nights
from services.online import Online
from services.probe import RayProbe
from services.rates import Rates
from services.serving import Serving
from services.settings import Settings
from services.states import ServingState
from services.tables import Database, Deployment


class Controller:
    """Owns the database and the background tasks; `open` before the first request, `close` after the last."""

    def __init__(self, settings: Settings, fleet: Fleet, launcher: Launcher, learners: Learners) -> None:
        private_folder(settings.home_folder)
        self.settings, self.fleet, self.launcher = settings, fleet, launcher
        self.database = Database(settings.database, settings.database_busy_seconds, migrates=settings.database_migrates)
        self.ray = RayProbe(settings)
        self.keys = Keys(settings, self.database)
        self.rates = Rates(settings.requests_per_minute)
        self.serving = Serving(settings, self.database, fleet)
        self.nights = Nights(settings, self.database, self.serving, launcher)
        self.online = Online(settings, self.database, self.serving, learners)

    async def open(self) -> None:
        """Bring every deployment up and go on with every sleep that is not over."""
        deployments, sleeps = await asyncio.to_thread(self._found)
        for deployment in deployments:
            self.begin(deployment)
        self.nights.open()
        for sleep in sleeps:
            self.nights.watch(sleep)

    async def close(self) -> None:
        """Stop looking after things; replicas and nights go on without."""
        await self.online.close()
        await self.nights.close()
        await self.serving.close()
        self.database.close()

    def begin(self, deployment: Deployment) -> None:
        """Look after a deployment in the background."""
        self.serving.begin(deployment.id)
        if deployment.fast is not None:
            self.online.begin(deployment.id)

    def tokens(self, deployment: Deployment, experience: Experience) -> int:
        """Tokens of an experience, as the deployment's tokenizer reads it."""
        tokenizer = _tokenizer(self.settings.version_folder(deployment.id, deployment.active_version))
        return len(experience_ids(tokenizer, experience))

    def _found(self) -> tuple[list[Deployment], list[str]]:
        with self.database.write() as tx:
            deployments = registry.deployments(tx)
            for deployment in deployments:
                registry.set_serving(tx, deployment.id, ServingState.PROVISIONING)
            return deployments, registry.active_sleeps(tx)


@lru_cache(maxsize=16)
def _tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    return load_tokenizer(folder)
