"""What a deployment is made of: the levels of its memory, its base, and where the knowledge of a version comes from."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated

from pydantic import Field, field_validator

from circadian.specs.base import PositiveInt, Spec
from circadian.specs.experience import Trust


class Level(Spec):
    """One level of the memory: experts that are written at one frequency."""

    period: PositiveInt
    """Tokens between two updates of this level (C_l of the paper)."""
    experts: PositiveInt = 1
    """Experts allocated for good; each is masked until it opens."""
    rank: PositiveInt = 128
    """Width R of one expert (d_low of the paper)."""


class MemorySpec(Spec):
    """The continuum of levels that sits beside the MLP of the chosen decoder layers, fastest level first."""

    levels: Annotated[tuple[Level, ...], Field(min_length=2)] = (
        Level(period=1024, experts=1, rank=128),
        Level(period=8192, experts=16, rank=128),
    )
    """Level 0 is written while awake; every slower level is written by sleep alone."""
    layers: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)] | None = None
    """Decoder layers that carry the memory, ascending; None means those of the upper half, of a base of more than eight every fourth of
    them, from the last one down (docs/decisions/0015-where-memory-sits.md)."""

    @field_validator("levels")
    @classmethod
    def _periods_divide(cls, levels: tuple[Level, ...]) -> tuple[Level, ...]:
        for fast, slow in pairwise(levels):
            if slow.period <= fast.period or slow.period % fast.period:
                raise ValueError(
                    f"period {slow.period} is not a larger multiple of {fast.period}; give each level a period that the next slower "
                    "one is a multiple of, for example 1024 and 8192"
                )
        return levels

    @field_validator("layers")
    @classmethod
    def _layers_ascend(cls, layers: tuple[int, ...] | None) -> tuple[int, ...] | None:
        if layers is not None and list(layers) != sorted(set(layers)):
            raise ValueError(f"{list(layers)} is not ascending without repeats; sort it")
        return layers


class BaseModelRef(Spec):
    """A base model, exactly."""

    model: Annotated[str, Field(min_length=1)]
    """Folder or hub id."""
    revision: str | None = None
    """Commit of a hub id."""
    sha256: str = ""
    """Over its safetensors files; filled in when a deployment is created."""


class ExpertRecord(Spec):
    """Where one expert's knowledge comes from."""

    level: int
    expert: int
    sleep: str
    """The sleep that wrote it."""
    nights: tuple[str, ...]
    """The sleeps whose days it knows: one, or several where knowledge was handed on or merged. `<sleep>+teachers` is what other models
    taught in that sleep."""
    teachers: tuple[BaseModelRef, ...] = ()
    """The other models that taught it."""
    trust: Trust = "untrusted"
    """The lowest of everything that it was learned from."""
    dreamt_of: tuple[str, ...] = ()
    """Experiences and fields of recipes of which dreams were kept in it."""
    data_sha256: str
    """Of the manifest of experiences it was written from."""
    metrics: dict[str, float] = {}


class VersionRecord(Spec):
    """version.json."""

    id: str
    base: BaseModelRef
    parent: str | None = None
    created_at: float
    """Unix seconds."""
    memory_sha256: str = ""
    """Checksum of memory.safetensors."""
    files: dict[str, str] = {}
    """SHA-256 of what lies beside the memory, by its path in the folder: cues, and what it remembers of its dreams."""
    dreamer_trust: Trust = "trusted"
    """The lowest of everything that its dreamer was trained on (circadian/dreaming/remembered.py)."""
    dreamer_of: tuple[str, ...] = ()
    """The experiences and fields of recipes whose dreams its dreamer was trained on."""
    tokens: Annotated[int, Field(ge=0)] = 0
    """Tokens that were learned awake since the deployment was founded: the clock of the levels' periods."""
    lineage: tuple[ExpertRecord, ...] = ()
    """Every expert that holds something, oldest first."""
    kept: dict[str, float] = {}
    """Of each earlier sleep the share of its held-back cues that this version completes as its parent does: one row of the matrix of what
    was forgotten when (pipelines/gates/forgetting.py)."""
