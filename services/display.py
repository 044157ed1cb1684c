"""A night on the terminal: a progress bar for each stage, or plain lines where the output is no terminal."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from services.client.answers import Event

QUIET = frozenset({"sleep.stage_started", "sleep.stage_finished", "sleep.stage_resumed", "sleep.progress"})
"""Events that the bars show."""
SILENT = frozenset({"sleep.checkpoint_saved"})
"""Events of which there are many, and that matter to nobody who watches."""
GATES = frozenset({"sleep.gate_passed", "sleep.gate_failed"})
SILENT = frozenset({"sleep.checkpoint_saved"})
"""Events of which there are many, and that matter to nobody who watches."""


class NightDisplay:
    """Shows events as they come. `seconds` holds the duration of every finished stage."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.seconds: dict[str, float] = {}
        self._bars: dict[str, TaskID] = {}
        self._running = ""
        columns = (TextColumn("{task.description:<20}"), BarColumn(), TextColumn("{task.fields[note]}"), TimeElapsedColumn())
        self._progress = Progress(*columns, console=console, disable=not console.is_terminal)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._progress.stop()

    def show(self, event: Event) -> None:
        kind, data = event.type, event.data
        if kind in SILENT:
            return
        if kind not in QUIET:
            told = f"{kind:<28} {event.message}{measured(data) if kind in GATES else ''}"
            self._progress.console.print(told, highlight=False, markup=False, soft_wrap=True)
        elif kind == "sleep.progress":
            self._advance(data)
        elif kind == "sleep.stage_finished":
            self._finish(data)
        else:
            self._start(data["stage"])

    def _start(self, stage: str) -> None:
        self._running = stage
        if stage not in self._bars:
            self._bars[stage] = self._progress.add_task(stage.replace("_", " "), total=None, note="")
        if not self.console.is_terminal:
            self.console.print(f"  {stage} ...", highlight=False)

    def _advance(self, data: dict[str, Any]) -> None:
        bar = self._bars.get(data.get("stage", self._running))
        if bar is not None and data.get("total_steps"):
            loss = f"  loss {data['loss']:.3f}" if data.get("loss") is not None else ""
            note = f"{data['step']}/{data['total_steps']}{loss}"
            self._progress.update(bar, total=data["total_steps"], completed=data["step"], note=note)

    def _finish(self, data: dict[str, Any]) -> None:
        stage = data["stage"]
        self.seconds[stage] = data["seconds"]
        if stage in self._bars:
            self._progress.update(self._bars[stage], total=1, completed=1, note="")
            self._progress.stop_task(self._bars[stage])
        if not self.console.is_terminal:
            self.console.print(f"  {stage} {data['seconds']:.1f} s", highlight=False)


def measured(data: dict[str, Any]) -> str:
    """What a gate rests on, in brackets: of these numbers `agreement` is the recall of what the day has told."""
    names = {"agreement": "recall"}
    numbers = [f"{names.get(name, name)} {value:.3f}" for name, value in data.items() if isinstance(value, float)]
    return f" ({', '.join(numbers)})" if numbers else ""
