"""What becomes of a version that a night has made and that passed its gates."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from circadian.specs.base import Fraction, PositiveInt, Seconds, Spec


class CanarySpec(Spec):
    """A new version answers a share of the clients first, from a replica of its own, beside the replicas of the old one."""

    percent: Annotated[float, Field(gt=0.0, le=50.0)] = 10.0
    """Of the requests. Who names himself (`user` or `safety_identifier`) is always answered by the same one of the two versions."""
    seconds: Seconds = 600.0
    """From its first readiness on; then it is promoted."""
    max_error_rate: Fraction = 0.02
    """Share of its requests that it may fail; with more it is withdrawn. Clients are then answered by the old version all the same."""
    min_requests: PositiveInt = 20
    """Before the share of failures says anything. One that has fewer when its time is over is promoted if none failed."""
    max_slowdown: Annotated[float, Field(ge=1.0)] | None = 3.0
    """So many times as long as the active version's, in the same time, its answers may take; with more it is withdrawn. Looked at once
    both have given `min_requests` answers of a kind, whole or streamed; None: never."""


class PromotionSpec(Spec):
    """Who decides that a version serves. One that did not pass its gates is never promoted by any of these."""

    mode: Literal["manual", "on_pass", "canary"] = "on_pass"
    """`manual`: it is kept as a candidate until somebody promotes it. `on_pass`: at dawn. `canary`: at dawn to a share of the clients,
    later to all."""
    canary: CanarySpec = CanarySpec()
