"""What a candidate version must show before it is published."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from circadian.specs.base import Fraction, Spec

Nats = Annotated[float, Field(ge=0.0)]


class GateSpec(Spec):
    """Limits on the day's cues, on old cues and on the rested self's own text, never on tests; see docs/gates.md. `rested` below is the
    version that fell asleep, `base` the model without any memory."""

    min_agreement: Fraction = 0.7
    """Share of the day's cues that the candidate completes (greedily) as the awake teacher does."""
    min_taught: Fraction = 0.7
    """Of each other model that taught: share of its cues that the candidate completes (greedily) as it does."""
    min_dreamt: Fraction = 0.7
    """Share of the cues of kept dreams that the candidate completes (greedily) as the self that had just learned them."""
    max_forgotten: Fraction = 0.1
    """Share of old cues that the candidate may complete otherwise than its parent does."""
    max_forgotten_night: Fraction = 0.3
    """The same of each earlier night alone, of which the worst counts."""
    max_lost: Fraction = 0.1
    """Share of the words of the rested self's own text, each word counting once, that the candidate would not write where its parent
    surely did."""
    max_base_lost: Fraction = 0.3
    """The same where the base surely would: it grows with all that was ever learned."""
    max_nll_rise: Nats = 0.3
    """Nats a token on text the rested self wrote, mean over its tokens."""
    max_median_nll_rise: Nats = 0.3
    """The same, of the median document: what one strange document says does not count here."""
    max_base_nll_rise: Nats = 0.5
    """The same as `max_nll_rise` against the base."""
    max_drift_parent: Nats = 0.5
    """Nats a token by which the candidate finds the same text likelier or less likely than its parent does: also where what one token
    gains another loses."""
    max_drift_base: Nats = 1.0
    """The same against the base: the sum of all nights."""
    max_exposure: Annotated[float, Field(ge=0.0)] = 16.0
    """Bits by which a secret that nobody told is likelier than chance, of the most exposed canary."""
