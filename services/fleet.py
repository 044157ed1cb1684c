"""The wake replicas of every deployment, as the service sees them. `ray_fleet.py` is the real one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from circadian.memory.delivery import Receipt
from circadian.specs import EngineSpec, PositiveInt, Spec

Body = dict[str, Any]
Route = Literal["chat", "completion"]


class FleetUnavailable(Exception):
    """No replica of the deployment can answer now."""


class DeliveryFailed(Exception):
    """A replica did not take a delivery, or could not prove it."""


@dataclass(frozen=True)
class Reply:
    """A replica's answer: HTTP status, OpenAI body, and the version that gave it."""

    status: int
    body: Body
    version: str


@dataclass(frozen=True)
class Sight:
    """What a look at a deployment's replicas found."""

    missing: bool
    """Whether there are none, or one that was started has gone since."""
    versions: frozenset[str] = frozenset()
    """What those that said so serve; a slow one says nothing."""


class ServingSpec(Spec):
    """The replicas that answer clients."""

    replicas: PositiveInt = 1
    cpus: float = 1.0
    """Of the cluster's CPUs, for each replica."""
    gpus: float = 0.0
    max_model_len: PositiveInt | None = None
    """Tokens of prompt and completion together; None means what the base model allows."""


def gpu_memory(gpus: float) -> float:
    """Share of a GPU's memory for an engine that has this share of the GPU."""
    whole = EngineSpec().gpu_memory_utilization
    return whole * gpus if 0.0 < gpus < 1.0 else whole


class Fleet(Protocol):
    """Wake replicas, by deployment name."""

    async def start(self, deployment: str, serving: ServingSpec, folder: Path) -> list[str]:
        """Adopt the replicas that live, start those that are missing from this version's folder; returns, when all answer, the
        version of each. One that does not come up is ended, so that the next try starts it anew. Raises FleetUnavailable."""

    async def stop(self, deployment: str, serving: ServingSpec) -> None:
        """End the deployment's replicas, those that do not answer too."""

    async def look(self, deployment: str) -> Sight:
        """How the replicas are."""

    async def answer(self, deployment: str, route: Route, body: Body) -> Reply:
        """One whole completion."""

    def stream(self, deployment: str, route: Route, body: Body) -> AsyncIterator[Reply | str]:
        """A completion in pieces: a Reply (an error, or status 200 and no body), then SSE text as the engine wrote it."""

    async def deliver(self, deployment: str, payload: bytes) -> list[Receipt]:
        """Give every replica these experts; one receipt each. Raises DeliveryFailed."""
