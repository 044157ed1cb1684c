"""Lives of a benchmark: each a process of its own that reads a request and leaves a record, several at once, none lived twice."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

LIFE_SECONDS = 7200


@dataclass(frozen=True)
class Life:
    """A life that may have been lived.

    program: module that is run as `python -m PROGRAM REQUEST.json RECORD.json`; request: a dataclass, of names and numbers; work: path
    below which the life may write, and beside which its request and log lie; record: what it leaves; held: fields of the request in which a
    record that is there must agree, or else it is of another life and lived anew.
    """

    program: str
    request: Any
    work: Path
    record: Path
    held: tuple[str, ...] = ()

    def recorded(self) -> dict[str, Any] | None:
        """What it left, if it was lived, and as it would be lived now."""
        if not self.record.exists():
            return None
        record: dict[str, Any] = json.loads(self.record.read_text())
        asked = json.loads(json.dumps(asdict(self.request)))
        same = all(agrees(record["request"].get(name), asked[name]) for name in self.held)
        return record if same else None

    def lived(self) -> dict[str, Any]:
        """What it left; lived now unless it was before. Raises subprocess.CalledProcessError, and the log tells why."""
        record = self.recorded()
        if record is None:
            self.work.parent.mkdir(parents=True, exist_ok=True)
            self.record.parent.mkdir(parents=True, exist_ok=True)
            asked = Path(f"{self.work}.request.json")
            asked.write_text(json.dumps(asdict(self.request)))
            with open(f"{self.work}.log", "w") as log:
                command = [sys.executable, "-m", self.program, str(asked), str(self.record)]
                subprocess.run(command, check=True, stdout=log, stderr=subprocess.STDOUT, timeout=LIFE_SECONDS)
            record = json.loads(self.record.read_text())
        return record


def agrees(recorded: Any, asked: Any) -> bool:
    """Whether all that a record names is as it is asked for now; what it does not name came later."""
    if isinstance(recorded, dict) and isinstance(asked, dict):
        return all(name in asked and agrees(value, asked[name]) for name, value in recorded.items())
    return bool(recorded == asked)


class Lives:
    """Lives many, `jobs` at once, and shows how far it is."""

    def __init__(self, jobs: int | None) -> None:
        self.pool = ThreadPoolExecutor(jobs)
        self.progress = Progress(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())

    def __enter__(self) -> Lives:
        self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()
        self.pool.shutdown(cancel_futures=True)

    def live(self, title: str, lives: Sequence[Life]) -> list[dict[str, Any]]:
        """Their records, in order."""
        bar = self.progress.add_task(title, total=len(lives))

        def one(life: Life) -> dict[str, Any]:
            record = life.lived()
            self.progress.advance(bar)
            return record

        return list(self.pool.map(one, lives))
