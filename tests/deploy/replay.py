"""deploy/Dockerfile carried out without an engine: each stage in a folder that stands for its root, in order, as the file says.

What stands for the base image is a new virtual environment of the interpreter that runs this. Paths of the image are put below the root;
its user and its folders are not made, because they would be this machine's.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import venv
from pathlib import Path

from tests.deploy.stages import Step, dockerfile, sources
from tests.deploy.tools import ROOT

OURS = re.compile(r"(?<![\w./-])/(opt|wheels|src|out|tmp|var/lib/circadian|var/cache/circadian)(?=/|\s|$|:)")
"""Paths in commands and variables that are the image's, and not this machine's."""
BASE = "python"
SECONDS = 1200.0


class Replay:
    """Stages in a folder; a stage that another one takes from is carried out first."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.root = folder / "root"
        """Where a stage is while it is carried out, and where the last one stays: a virtual environment cannot be moved."""
        self._done: set[str] = set()
        venv.create(folder / "base", with_pip=True)

    def carry_out(self, name: str) -> None:
        """Raises CalledProcessError with what a command said."""
        for other in self._taken_from(name):
            if other not in self._done:
                self.carry_out(other)
                self.root.rename(self.folder / other)
                self._done.add(other)
        self.root.mkdir()
        (self.root / "tmp").mkdir()
        where = self.root
        for stage in dockerfile().line(name):
            for step in stage.steps:
                if step.instruction == "WORKDIR":
                    where = Path(self.below(step.value))
                    where.mkdir(parents=True, exist_ok=True)
                elif step.instruction == "COPY":
                    self._copy(step, where)
                elif step.instruction == "RUN" and stage.name != BASE:
                    self.run(["sh", "-euc", self.below(step.value)], name, where)

    def run(self, command: list[str], stage: str, where: Path | None = None) -> str:
        """What it says. With the stage's variables, and none of this process's that a container would not have."""
        done = subprocess.run(
            command, cwd=where or self.root, env=self.environment(stage), capture_output=True, text=True, timeout=SECONDS
        )
        if done.returncode:
            raise RuntimeError(f"{command} ended with {done.returncode}:\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}")
        return done.stdout

    def environment(self, name: str) -> dict[str, str]:
        found = {key: value for key, value in os.environ.items() if key.startswith("PIP_") or key.lower().endswith("_proxy")}
        found["PATH"] = f"{self.folder / 'base' / 'bin'}:{os.defpath}"
        for stage in dockerfile().line(name):
            for key, value in stage.environment().items():
                found[key] = self.below(value).replace("$PATH", found["PATH"])
        return found

    def below(self, text: str) -> str:
        return OURS.sub(lambda match: f"{self.root}/{match.group(1)}", text)

    def command(self, name: str) -> list[str]:
        """CMD of an image."""
        (step,) = [step for stage in dockerfile().line(name) for step in stage.of("CMD")]
        return [word.strip('"') for word in step.value.strip("[]").split(", ")]

    def _taken_from(self, name: str) -> list[str]:
        flags = [flag for stage in dockerfile().line(name) for step in stage.of("COPY") for flag in step.flags]
        return [dockerfile().expand(flag.removeprefix("--from=")) for flag in flags if flag.startswith("--from=")]

    def _copy(self, step: Step, where: Path) -> None:
        *names, target = step.value.split()
        if step.flags:
            (other,) = (flag.removeprefix("--from=") for flag in step.flags)
            for name in names:
                shutil.copytree(self.folder / other / name.strip("/"), self.below(target), symlinks=True)
            return
        for name in names:
            for file in sources(name):
                to_folder = target.endswith("/")
                inner = file.relative_to(name) if (ROOT / name).is_dir() else Path(file.name if to_folder else "")
                to = where / target / inner
                to.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / file, to)
