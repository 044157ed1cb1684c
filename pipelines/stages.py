"""A stage of a night: done once, sealed by a manifest, skipped when it is found sealed.

    home/
      job.json                 what was asked (NightJob)
      stages/<name>.json       manifest: outputs, seconds, SHA-256 of the job and of every file the stage wrote
      events.jsonl             what people see (circadian/events.py)
      driver                   which process drives it
      outcome.json             the end

A manifest appears by atomic rename after everything it names is on disk, so a night that is killed resumes at the stage it was in.
A sealed stage whose files are gone or changed stops the night: it is never silently done again.

The number of the attempt is its fence: job.json names the last one, and one that was given up and runs on (its cluster was lost, and a
part of it has not noticed) begins and seals nothing any more. Within an attempt the process that came last drives: where
a cluster has lost its head, whoever submits its jobs may start a driver again (KubeRay does: reconcileHTTPModeJobNotFound) before the
first one is gone.
"""

from __future__ import annotations

import hashlib
import json
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from circadian.events import EventLog
from circadian.files import sha256, write_whole
from circadian.night_files import JOB_FILE
from circadian.phases import Seconds
from circadian.specs import NightJob

DRIVER_FILE = "driver"
Outputs = dict[str, Any]
"""JSON values; names that end in `_file` are paths below the night's home, which the manifest seals."""


class StageBroken(Exception):
    """A sealed stage no longer holds what its manifest says."""


class Superseded(Exception):
    """A later attempt at this night has begun, or another process of this one: what this process makes is nobody's."""


class Stages:
    """The stages of one night, in its home folder. Whoever was made last drives the night."""

    def __init__(self, job: NightJob) -> None:
        """Raises Superseded, see check_attempt."""
        self.home, self._attempt, self._driver = Path(job.home), job.attempt, uuid.uuid4().hex
        self.log = EventLog(self.home)
        self._job_sha256 = hashlib.sha256(job.model_dump_json(exclude={"attempt"}).encode()).hexdigest()
        (self.home / "stages").mkdir(parents=True, exist_ok=True)
        self._check_number()
        write_whole(self.home / DRIVER_FILE, self._driver)

    def run(self, name: str, work: Callable[[], Outputs]) -> Outputs:
        """The outputs of a stage: from its manifest if it is sealed, else by doing the work and sealing it. Raises Superseded."""
        self.check_attempt()
        manifest = self.home / "stages" / f"{name}.json"
        if manifest.exists():
            return self._reopen(name, json.loads(manifest.read_text()))
        self.log.emit("sleep.stage_started", name.replace("_", " "), stage=name)
        started = time.perf_counter()
        outputs = work()
        seconds = round(time.perf_counter() - started, 3)
        files = {key: sha256(self.home / value) for key, value in outputs.items() if key.endswith("_file")}
        sealed = {"stage": name, "job_sha256": self._job_sha256, "seconds": seconds, "outputs": outputs, "files": files}
        self.check_attempt()
        write_whole(manifest, json.dumps(sealed, indent=2))
        self.log.emit("sleep.stage_finished", name.replace("_", " "), stage=name, seconds=seconds, outputs=outputs)
        return outputs

    def check_attempt(self) -> None:
        """Raises Superseded where the job's file names a later attempt, another process drives this one, or the sleep starts over."""
        self._check_number()
        driver = _text(self.home / DRIVER_FILE)
        if driver is None:
            raise Superseded(f"attempt {self._attempt} at the night in {self.home} goes no further: its home was emptied")
        if driver != self._driver:
            raise Superseded(f"attempt {self._attempt} at the night in {self.home} goes on in another process")

    def _check_number(self) -> None:
        job = _text(self.home / JOB_FILE)
        last = self._attempt if job is None else json.loads(job)["attempt"]
        if last > self._attempt:
            raise Superseded(f"attempt {self._attempt} at the night in {self.home} goes no further: attempt {last} has begun")

    def seconds(self) -> dict[str, float]:
        """Seconds of every sealed stage."""
        return {manifest["stage"]: manifest["seconds"] for manifest in self._manifests()}

    def phases(self) -> dict[str, Seconds]:
        """Of the sealed stages that tell it, the seconds of every phase."""
        return {sealed["stage"]: sealed["outputs"]["phases"] for sealed in self._manifests() if "phases" in sealed["outputs"]}

    def _manifests(self) -> list[dict[str, Any]]:
        return [json.loads(path.read_text()) for path in (self.home / "stages").glob("*.json")]

    def _reopen(self, name: str, sealed: dict[str, Any]) -> Outputs:
        if sealed["job_sha256"] != self._job_sha256:
            raise StageBroken(f"stage {name} in {self.home} was sealed for another job; give this night a home of its own")
        for key, digest in sealed["files"].items():
            path = self.home / sealed["outputs"][key]
            if not path.exists() or sha256(path) != digest:
                raise StageBroken(
                    f"stage {name}: {path} is not what was sealed; restore it, or start the night again in a new home"
                )
        self.log.emit("sleep.stage_resumed", name.replace("_", " "), stage=name)
        return sealed["outputs"]


def _text(path: Path) -> str | None:
    """None where there is no such file."""
    try:
        return path.read_text()
    except FileNotFoundError:
        return None


def write_lines(path: Path, objects: Iterable[Mapping[str, object]]) -> None:
    """One JSON object a line."""
    write_whole(path, "".join(json.dumps(o) + "\n" for o in objects))


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The inverse of write_lines."""
    return [json.loads(line) for line in path.read_text().splitlines()]
