"""`circadian completion`: what a shell must know to complete verbs and options."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from services.cli.shared import LOCAL

app = typer.Typer()
PROGRAM, VARIABLE = "circadian", "_CIRCADIAN_COMPLETE"
Shell = Literal["bash", "zsh", "fish"]


@app.command(rich_help_panel=LOCAL)
def completion(shell: Annotated[Shell, typer.Argument(help="That is to complete.")]) -> None:
    """Print a script for your shell; for example `eval "$(circadian completion bash)"` in ~/.bashrc."""
    from typer.completion import get_completion_script

    typer.echo(get_completion_script(prog_name=PROGRAM, complete_var=VARIABLE, shell=shell))
