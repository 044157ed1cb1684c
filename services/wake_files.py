"""The wake files of deployments, as the controller writes them: what each deployment serves, whoever starts or restarts its replicas."""

from __future__ import annotations

import logging
from pathlib import Path

from safetensors import SafetensorError

from actors.wake_state import Delivered, WakeBroken, WakeState, read_wake, write_wake
from circadian.memory.raw import read_meta
from services.care import Known
from services.fleet import DeliveryFailed
from services.online_plan import is_label
from services.settings import Settings

log = logging.getLogger(__name__)


class WakeFiles:
    """Written by whoever holds the deployment's lock (serving.py)."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    def read(self, deployment_id: str) -> WakeState | None:
        """What is to be served; None where no file says it."""
        try:
            return read_wake(self.settings.wake_file(deployment_id))
        except WakeBroken as error:
            log.info("%s", error)
            return None

    def serve(self, deployment_id: str, version: str, delivery: Delivered | None = None) -> WakeState:
        """From now on this, by as many replicas as before."""
        now = self.read(deployment_id)
        folder = str(self.settings.version_folder(deployment_id, version))
        state = WakeState(folder=folder, delivery=delivery, replicas=now.replicas if now else None)
        if state != now:
            write_wake(self.settings.wake_file(deployment_id), state)
        return state

    def serve_delivered(self, deployment_id: str, active_version: str, path: Path) -> WakeState:
        """From now on what the delivery makes of the active version: it alone, where that is what is delivered. Raises DeliveryFailed."""
        version, checksum = promised(path)
        made = Delivered(path=str(path), version=version, checksum=checksum)
        return self.serve(deployment_id, active_version, None if version == active_version else made)

    def check(self, deployment_id: str, known: Known) -> None:
        """Before replicas are started: the file stays where it says what may be served, and says the active version otherwise.

        In a night it stays whatever it says: the night's watcher brings replicas where they belong.
        """
        now = self.read(deployment_id)
        right = now is not None and (known.night is not None or is_label(now.version, known.active_version, known.chunks))
        if now is None or not right or not _there(now):
            self.serve(deployment_id, known.active_version)

    def serves(self, deployment_id: str, path: Path) -> bool:
        """Whether the file says what this delivery makes."""
        now = self.read(deployment_id)
        try:
            version, _ = promised(path)
        except DeliveryFailed:  # then it was never written there
            return False
        return now is not None and (now.version == version if now.delivery is None else now.delivery.path == str(path))

    def put_back(self, deployment_id: str, before: WakeState | None, active_version: str) -> None:
        """From now on what was served before a delivery that failed; without it, the active version."""
        if before is not None:
            self.serve(deployment_id, Path(before.folder).name, before.delivery)
        else:
            self.serve(deployment_id, active_version)

    def lend(self, deployment_id: str, active_version: str, replicas: int | None) -> None:
        """From now on by so many replicas."""
        now = self.read(deployment_id) or self.serve(deployment_id, active_version)
        write_wake(self.settings.wake_file(deployment_id), now.model_copy(update={"replicas": replicas}))


def promised(path: Path) -> tuple[str, str]:
    """Version and checksum that a delivery promises. Raises DeliveryFailed for a file that is none."""
    try:
        meta = read_meta(path)
        return meta["version"], meta["checksum"]
    except (OSError, SafetensorError, KeyError) as error:
        raise DeliveryFailed(f"{path} is not a delivery: {error!r}") from error


def _there(state: WakeState) -> bool:
    """Is the delivery, if there is one, what the state says?"""
    if state.delivery is None:
        return True
    try:
        return promised(Path(state.delivery.path)) == (state.delivery.version, state.delivery.checksum)
    except DeliveryFailed as error:
        log.warning("%s is served without its fast memory: %s", Path(state.folder).name, error)
        return False
