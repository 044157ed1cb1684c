"""Who sleeps while someone must stay awake: a pure function of what a night needs and what the cluster has.

    dedicated       the night takes what is free, or waits for it (an autoscaler brings it); every replica goes on serving
    unihemispheric  half of the replicas end their requests and lend what they hold, the others serve; at dawn all serve again
    full            every replica lends what it holds; clients are answered 503 until dawn

`auto` takes the first of these, in this order, that makes the night fit, and `dedicated` where none does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from circadian.specs import Autoscale, Recipe
from services.fleet import ServingSpec

Placement = Literal["dedicated", "unihemispheric", "full"]
Asked = Literal["auto", "dedicated", "unihemispheric", "full"]
SLACK = 1e-6
"""Shares of a GPU are no exact numbers."""


class Unplaceable(Exception):
    """What was asked for cannot be: the message says why, and what to ask for."""


@dataclass(frozen=True)
class Room:
    """CPUs and GPUs, as the cluster counts them."""

    cpus: float
    gpus: float

    def __add__(self, other: Room) -> Room:
        return Room(self.cpus + other.cpus, self.gpus + other.gpus)

    def times(self, number: int) -> Room:
        return Room(self.cpus * number, self.gpus * number)

    def holds(self, wanted: Room) -> bool:
        return wanted.cpus <= self.cpus + SLACK and wanted.gpus <= self.gpus + SLACK


@dataclass(frozen=True)
class Cluster:
    """What is there when a night is about to begin."""

    replicas: int
    """That serve."""
    replica: Room
    """That each of them holds."""
    free: Room
    """That nobody holds."""


@dataclass(frozen=True)
class Placed:
    """How a night lies beside the replicas."""

    kind: Placement
    serving: int | None
    """Replicas that go on serving; None: all."""
    why: str


OWN = Placed("dedicated", None, "nights have clusters of their own here, and no replica lends")


def needed(recipe: Recipe) -> Room:
    """By a night's learners and rollout workers."""
    learner = Room(recipe.learner.cpus_per_worker, recipe.learner.gpus_per_worker).times(recipe.learner.workers)
    return learner + Room(recipe.rollouts.cpus_per_worker, recipe.rollouts.gpus_per_worker).times(recipe.rollouts.workers)


def held(serving: ServingSpec) -> Room:
    """By a replica."""
    return Room(serving.cpus, serving.gpus)


def check(asked: Asked, serving: ServingSpec) -> None:
    """Raises Unplaceable for what no cluster could do."""
    most = serving.replicas.max if isinstance(serving.replicas, Autoscale) else serving.replicas
    if asked == "unihemispheric" and most < 2:
        why = "unihemispheric needs a replica that serves while another one lends"
        raise Unplaceable(f"{why}; raise serving.replicas to 2, or ask for full")


def place(asked: Asked, cluster: Cluster, night: Room) -> Placed:
    """Raises Unplaceable where `unihemispheric` was asked for and one replica serves."""
    half, whole = cluster.replicas // 2, cluster.replicas
    if asked == "dedicated" or (asked == "auto" and cluster.free.holds(night)):
        return Placed("dedicated", None, "asked for" if asked == "dedicated" else "the night fits beside the replicas")
    if asked == "unihemispheric" or (asked == "auto" and half and _fits(cluster, half, night)):
        if not half:
            raise Unplaceable(
                f"unihemispheric needs two replicas that serve, and {whole} does; ask for full, or wait for another one"
            )
        return Placed(
            "unihemispheric", whole - half, "asked for" if asked != "auto" else f"the night fits where {half} of {whole} lend"
        )
    if asked == "full" or (asked == "auto" and whole and _fits(cluster, whole, night)):
        return Placed("full", 0, "asked for" if asked == "full" else "the night fits only where no replica serves")
    return Placed("dedicated", None, "the night fits nowhere yet, and waits for what an autoscaler brings")


def _fits(cluster: Cluster, lent: int, night: Room) -> bool:
    return (cluster.free + cluster.replica.times(lent)).holds(night)
