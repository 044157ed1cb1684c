"""`circadian nursery`: the small models that tests and demo live with."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from services.cli.output import console, say

app = typer.Typer(no_args_is_help=True, help="The small models that tests and demo live with.")
NurseryWorld = Literal["toy", "school"]


@app.command()
def train(
    world: Annotated[NurseryWorld, typer.Option(help="What it lives in: facts to learn, or passages to dream of.")] = "toy",
    folder: Annotated[Path | None, typer.Option(help="Where the model goes; where the shipped one lies unless given.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Of pretraining; as many as it ships with unless given.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of weights and order of documents.")] = None,
) -> None:
    """Pretrain a nursery model from scratch."""
    from rich.progress import Progress

    from circadian.nursery.ship import SHIPPED, train_and_ship

    shipped, spec = next((path, spec) for path, spec in SHIPPED.items() if spec.world == world)
    given = {name: value for name, value in (("steps", steps), ("seed", seed)) if value is not None}
    spec = spec.model_copy(update=given)
    with Progress(console=console()) as progress:
        bar = progress.add_task("pretraining", total=spec.steps)
        report = train_and_ship(
            spec,
            folder or shipped,
            lambda step, total, loss: progress.update(bar, completed=step, description=f"loss {loss:.3f}"),
        )
    _say_accuracy(report)


def _say_accuracy(report: dict[str, Any]) -> None:
    for name, value in report["accuracy"].items():
        say(f"{name:<14} {value:.3f}")
