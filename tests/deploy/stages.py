"""deploy/Dockerfile as its stages, and what .dockerignore lets into an image."""

from __future__ import annotations

import io
import re
from dataclasses import dataclass, field
from fnmatch import translate
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from tests.deploy.tools import DEPLOY, ROOT, missing

if find_spec("dockerfile_parse") is None:
    missing("dockerfile_parse")
FLAG = re.compile(r"^--[a-z]+(?:=\S+)?\s+")


@dataclass(frozen=True)
class Step:
    """An instruction, with its arguments as they stand there but for its flags."""

    instruction: str
    value: str
    flags: tuple[str, ...] = ()


@dataclass
class Stage:
    name: str
    base: str
    """Another stage, or an image."""
    steps: list[Step] = field(default_factory=list)

    def of(self, instruction: str) -> list[Step]:
        return [step for step in self.steps if step.instruction == instruction]

    def environment(self) -> dict[str, str]:
        """What this stage itself sets."""
        return dict(pair for step in self.of("ENV") for pair in (word.split("=", 1) for word in step.value.split()))


@dataclass
class Dockerfile:
    arguments: dict[str, str]
    """Before the first stage, with their defaults."""
    stages: dict[str, Stage]

    def line(self, name: str) -> list[Stage]:
        """A stage and what it is built upon, the first one first."""
        stage = self.stages.get(self.expand(name))
        return [] if stage is None else [*self.line(stage.base), stage]

    def expand(self, text: str) -> str:
        for name, default in self.arguments.items():
            text = text.replace(f"${{{name}}}", default)
        return text


@cache
def dockerfile() -> Dockerfile:
    """Raises ValueError for an instruction before the first stage that is no ARG."""
    from dockerfile_parse import DockerfileParser

    parser = DockerfileParser(fileobj=io.BytesIO((DEPLOY / "Dockerfile").read_bytes()))
    found = Dockerfile({}, {})
    stage: Stage | None = None
    for part in parser.structure:
        instruction, value = part["instruction"], part["value"]
        if instruction == "COMMENT":
            continue
        if instruction == "FROM":
            base, _, name = value.partition(" AS ")
            stage = found.stages[name] = Stage(name, base)
        elif stage is not None:
            stage.steps.append(_step(instruction, value))
        elif instruction == "ARG":
            name, _, default = value.partition("=")
            found.arguments[name] = default
        else:
            raise ValueError(f"{instruction} before the first FROM")
    return found


def _step(instruction: str, value: str) -> Step:
    flags = []
    while match := FLAG.match(value):
        flags.append(match.group().strip())
        value = value[match.end() :]
    return Step(instruction, value, tuple(flags))


@cache
def _patterns() -> list[tuple[bool, re.Pattern[str]]]:
    """Of .dockerignore, in their order: whether what matches is left out, and the expression."""
    found = []
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        if line and not line.startswith("#"):
            pattern = line.removeprefix("!").removesuffix("/")
            anywhere = pattern.startswith("**/")
            expression = translate(pattern.removeprefix("**/")).replace(".*", "[^/]*").removesuffix(r"\Z")
            found.append((not line.startswith("!"), re.compile(rf"{'(?:.*/)?' if anywhere else ''}{expression}\Z")))
    return found


def reaches_the_build(path: str) -> bool:
    """Whether docker sends this file: the last pattern that fits it, or a folder above it, decides."""
    parts = path.split("/")
    above = ["/".join(parts[: i + 1]) for i in range(len(parts))]
    left_out = False
    for excludes, pattern in _patterns():
        if any(pattern.match(name) for name in above):
            left_out = excludes
    return not left_out


def sources(argument: str) -> list[Path]:
    """Files of the context that a COPY of this path takes, relative to the repository."""
    path = ROOT / argument
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    relative = [file.relative_to(ROOT) for file in files]
    return [file for file in relative if reaches_the_build(file.as_posix())]
