"""The wake replicas of every deployment, as the service sees them. `ray_fleet.py` is the real one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol, Self

from pydantic import Field, model_validator

from actors.replies import Proof
from circadian.specs import MOST_REPLICAS, Autoscale, EngineSpec, PositiveInt, Spec

Body = dict[str, Any]
Route = Literal["chat", "completion"]
Replicas = Annotated[int, Field(ge=1, le=MOST_REPLICAS)] | Autoscale
NIGHT_PARTS = 2
"""Of a night, with a GPU share each: a rollout worker and a learner."""
SLACK = 1e-9
"""So that a third is a third."""


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
    """Whether none is there to answer, where there should be one."""
    versions: frozenset[str] = frozenset()
    """What those that said so serve; a slow one says nothing."""
    starting: bool = False
    """Whether some are on their way: they will serve what the wake file says when they do."""
    running: int = 0
    """That answer."""


class ServingSpec(Spec):
    """The replicas that answer clients."""

    replicas: Replicas = 1
    """So many, or an object with `min` and `max`: as many as the requests under way call for."""
    cpus: Annotated[float, Field(gt=0.0, allow_inf_nan=False)] = 1.0
    """Of the cluster's CPUs, for each replica."""
    gpus: Annotated[float, Field(ge=0.0, allow_inf_nan=False)] = 0.0
    placement: Literal["auto", "dedicated", "unihemispheric", "full"] = "auto"
    """How nights lie beside the replicas, unless a sleep says otherwise; see services/placement.py."""
    max_model_len: PositiveInt | None = None
    """Tokens of prompt and completion together; None means what the base model allows."""

    @model_validator(mode="after")
    def _whole_gpus(self) -> Self:
        if self.gpus > 1.0 and not self.gpus.is_integer():
            raise ValueError(f"gpus {self.gpus:g}: Ray gives a share of one GPU, or whole ones; give 1 or less, or a whole number")
        return self

    @property
    def most(self) -> int:
        """Replicas at most."""
        return self.replicas.max if isinstance(self.replicas, Autoscale) else self.replicas


class GpusMissing(Exception):
    """The machine cannot hold a replica and its night."""


def gpus_fit(serving: ServingSpec, there: int) -> None:
    """Raises GpusMissing where a night could never be placed: replicas, rollout worker and learner want their GPUs at once."""
    gpus, parts = serving.gpus, serving.most + NIGHT_PARTS
    if not gpus:
        return
    wanted = f"--gpus {gpus:g}: replica, rollout worker and learner take {gpus:g} each"
    if not there:
        raise GpusMissing(f"{wanted}, and this machine shows no GPU to torch; leave --gpus out to run on CPUs")
    # A share comes from one GPU: what is left of two of them is no further share.
    places = there * int(1.0 / gpus + SLACK) if gpus <= 1.0 else int(there / gpus)
    if places < parts:
        on_one = -(-parts // there)
        most = int(10 / on_one) / 10 or 1.0 / on_one
        raise GpusMissing(f"{wanted}, and the {there} GPU(s) of this machine hold {places} of these {parts}; give --gpus {most:g}")


def gpu_memory(gpus: float) -> float:
    """Share of a GPU's memory for an engine that has this share of the GPU."""
    whole = EngineSpec().gpu_memory_utilization
    return whole * gpus if 0.0 < gpus < 1.0 else whole


class Fleet(Protocol):
    """Wake replicas, by the id of their deployment. What they serve stands in the deployment's wake file (actors/wake_state.py), which is
    written before one of these is asked to make it so."""

    async def start(self, deployment: str, model: str, serving: ServingSpec, wake: Path) -> list[str]:
        """Make it what the wake file says, under the name by which clients ask for it: start what is missing, bring what lives there, end
        what is too much. Returns, when they answer, the version of each. Where none comes up all are ended, so that the next try starts
        them anew. Raises FleetUnavailable."""

    async def scale(self, deployment: str, serving: ServingSpec, replicas: int | Autoscale) -> None:
        """Let so many answer, 0 included, of a deployment that was started here; does not wait for those that start. Those that are too
        many end their requests first. Raises FleetUnavailable."""

    async def free(self) -> tuple[float, float]:
        """CPUs and GPUs that nobody holds; without end where nights have nodes of their own, because no replica has what they wait for.
        Raises FleetUnavailable."""

    async def stop(self, deployment: str) -> None:
        """End the deployment's replicas, those that do not answer too."""

    async def look(self, deployment: str) -> Sight:
        """How the replicas are."""

    async def serves(self, deployment: str) -> bool:
        """Whether a replica answers, whoever has started it."""

    async def answer(self, deployment: str, route: Route, body: Body) -> Reply:
        """One whole completion."""

    def stream(self, deployment: str, route: Route, body: Body) -> AsyncIterator[Reply | str]:
        """A completion in pieces: a Reply (an error, or status 200 and no body), then SSE text as the engine wrote it."""

    async def watch(self) -> None:
        """For as long as the controller lives: notice where the replicas have gone for good, and let the questions to them go, too."""

    async def deliver(self, deployment: str, payload: bytes) -> list[Proof]:
        """Give every replica that runs these experts; one proof each. Raises DeliveryFailed."""
