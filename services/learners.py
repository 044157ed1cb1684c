"""The fast learners of deployments that learn online, as the service sees them, and on Ray."""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import ray
from ray.exceptions import RayActorError, RayError

from actors.chunk_files import ChunkFailed
from actors.fast_learner import FastLearnerHandle
from circadian.memory.folder import VersionBroken
from circadian.specs import ChunkRecord, OnlineLearningSpec

log = logging.getLogger(__name__)
THREADS = 2
"""Calls to Ray that block at the same time: each is a question to Ray's head."""


class LearnerUnavailable(Exception):
    """The learner died, or does not answer in time; the chunk can be learned again."""


class ChunkRefused(Exception):
    """The chunk cannot be learned, now or later."""


class Learners(Protocol):
    """One learner for each deployment that learns online, by the deployment's id."""

    async def learn(self, deployment: str, job_file: Path, spec: OnlineLearningSpec) -> ChunkRecord:
        """Learn and commit a chunk, by the learner that lives or a new one. Raises LearnerUnavailable and ChunkRefused."""

    async def end(self, deployment: str) -> None:
        """End the learner, whatever it is doing; one that is not there has ended."""


class RayLearners:
    """Detached actors of a cluster that the fleet has connected to: nothing is learned before replicas serve."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="learners")

    async def learn(self, deployment: str, job_file: Path, spec: OnlineLearningSpec) -> ChunkRecord:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(spec.chunk_seconds):
                handle = await loop.run_in_executor(self._threads, FastLearnerHandle.start, deployment, spec)
                return await handle.learn_ref(job_file)
        except (ChunkFailed, VersionBroken) as error:
            raise ChunkRefused(str(error)) from error
        except (RayError, TimeoutError, ValueError) as error:
            await self.end(deployment)
            raise LearnerUnavailable(f"the fast learner of {deployment} did not learn {job_file}: {error!r}") from error

    async def end(self, deployment: str) -> None:
        await asyncio.get_running_loop().run_in_executor(self._threads, self._end, deployment)

    @staticmethod
    def _end(deployment: str) -> None:
        if not ray.is_initialized():
            return
        with suppress(ValueError, RayActorError):  # it has gone
            FastLearnerHandle.attach(deployment).kill()
