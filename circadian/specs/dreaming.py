"""How a deployment dreams: what it writes, what is kept of it, how that is tried out, and what the dreamer learns from it."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from circadian.specs.base import PositiveInt, Spec

ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
MLP = ("gate_proj", "up_proj", "down_proj")


class AdapterSpec(Spec):
    """A LoRA adapter and how it is fine-tuned."""

    rank: PositiveInt = 32
    alpha: Annotated[float, Field(gt=0.0)] = 64.0
    """What the adapter says is multiplied by alpha / rank."""
    targets: Annotated[tuple[str, ...], Field(min_length=1)] = ATTENTION + MLP
    """Last names of the linear layers that are adapted. The output layer cannot be among them: vLLM cannot score texts then."""
    lr: Annotated[float, Field(gt=0.0)] = 1e-3
    """At the first step; it falls linearly to zero."""
    epochs: PositiveInt = 10
    batch: PositiveInt = 1
    """Rows a step."""
    max_grad_norm: Annotated[float, Field(gt=0.0)] = 1.0


ScorerKind = Literal["exact", "contains", "f1", "choice", "grid", "judge"]


class ProbeSpec(Spec):
    """A question, and what counts as right."""

    question: Annotated[str, Field(min_length=1)]
    answers: Annotated[tuple[str, ...], Field(min_length=1)]
    """Any of them."""


class CurriculumSpec(Spec):
    """Where dreams are drawn: see circadian/dreaming/curriculum.py. The three are weights of one mean."""

    weakness: Annotated[float, Field(ge=0.0)] = 1.0
    forgetting: Annotated[float, Field(ge=0.0)] = 1.0
    novelty: Annotated[float, Field(ge=0.0)] = 0.25
    width: Annotated[float, Field(gt=0.0)] = 0.5
    """How far from a round's difficulty contexts are still drawn, as a share of all contexts."""

    @model_validator(mode="after")
    def _something_counts(self) -> Self:
        if not self.weakness + self.forgetting + self.novelty:
            raise ValueError(
                "weakness, forgetting and novelty are all 0, so no context is needed more than another; raise one of them"
            )
        return self
