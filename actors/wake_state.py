"""What every replica of a deployment serves: one small file in the deployment's folder, the wake file.

The controller writes it, whole or not at all, before it tells replicas to change; a replica reads it when it starts and again at every
health check, and brings itself there. So a replica that starts later, or was not there when a delivery was handed round, comes up as
what is served now and not as what was served first. The file says what is to be, never what happened: reading it twice is reading it once.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field
from safetensors import SafetensorError

from circadian.files import write_whole
from circadian.memory.folder import VersionBroken, read_record, version_state
from circadian.memory.raw import read_meta
from circadian.memory.whole import whole_delivery
from circadian.specs import Spec

UNREADABLE = (OSError, ValueError, KeyError, SafetensorError, VersionBroken)
"""What a file that is missing, or is not what it should be, raises."""


class WakeBroken(Exception):
    """The wake file, or a file that it names, cannot be read."""


class Delivered(Spec):
    """A delivery that makes a replica of the version something else: its fast memory, at dusk or online."""

    path: str
    version: str
    """Under which the replica answers then."""
    checksum: str
    """That the delivery promises for what travels in it."""


class WakeState(Spec):
    """What a deployment serves."""

    folder: str
    """Of the version."""
    delivery: Delivered | None = None
    replicas: Annotated[int, Field(ge=0)] | None = None
    """So many and no more, while a night borrows the others; None: as many as the deployment's serving says."""

    @property
    def version(self) -> str:
        """Under which its replicas answer."""
        return self.delivery.version if self.delivery else Path(self.folder).name

    def serves_like(self, other: WakeState | None) -> bool:
        """Does a replica of the one answer as a replica of the other?"""
        return other is not None and (self.folder, self.delivery) == (other.folder, other.delivery)

    def made_by(self, version: str, checksum: str) -> bool:
        """Is this what a delivery with this version and checksum has made?"""
        return version == self.version and (self.delivery is None or checksum == self.delivery.checksum)


@dataclass(frozen=True)
class Memory:
    """A whole memory: the checksum of every written expert, and the states of all."""

    checksum: str
    experts: list[list[str]]

    @classmethod
    def of(cls, checksum: str, experts: Any) -> Memory:
        return cls(checksum, [list(row) for row in experts])


def read_wake(path: Path) -> WakeState:
    """Raises WakeBroken."""
    try:
        return WakeState.model_validate_json(path.read_bytes())
    except UNREADABLE as error:
        raise WakeBroken(f"{path} does not say what is served: {error}; the controller writes it again when it starts") from error


def write_wake(path: Path, state: WakeState) -> None:
    """What the deployment serves from now on, on disk when this returns."""
    write_whole(path, state.model_dump_json(indent=2) + "\n")


def promised_memory(state: WakeState) -> Memory:
    """What a replica holds that serves this. Raises WakeBroken, also for a delivery that does not name the whole memory's checksum."""
    try:
        if state.delivery is None:
            folder = Path(state.folder)
            return Memory.of(read_record(folder).memory_sha256, version_state(folder).names())
        meta = read_meta(Path(state.delivery.path))
        if (meta["version"], meta["checksum"]) != (state.delivery.version, state.delivery.checksum):
            raise ValueError(f"it makes {meta['version']} with checksum {meta['checksum'][:12]}")
        return Memory.of(meta["memory_sha256"], json.loads(meta["experts"]))
    except UNREADABLE as error:
        raise WakeBroken(f"{_place(state)} is not {state.version}: {error!r}") from error


def payloads(state: WakeState, serves: str) -> list[bytes]:
    """The deliveries, in order, that make this of a replica which now answers as `serves`: the whole version first, unless it is there.

    Raises WakeBroken.
    """
    try:
        version = [] if serves == Path(state.folder).name else [whole_delivery(Path(state.folder))]
        return version + ([Path(state.delivery.path).read_bytes()] if state.delivery else [])
    except UNREADABLE as error:
        raise WakeBroken(f"{_place(state)} cannot be read: {error!r}") from error


def _place(state: WakeState) -> str:
    """Where its memory lies."""
    return f"{state.delivery.path} on {state.folder}" if state.delivery else state.folder
