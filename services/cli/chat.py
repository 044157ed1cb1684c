"""`circadian chat`: talk to a deployment, and let it keep what is said."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

import typer

from services.cli.output import line, plain, say
from services.cli.shared import DEFAULT_URL, SERVICE, AsJson, Deployment, Key, Url, asking

if TYPE_CHECKING:
    from services.client import Circadian

app = typer.Typer()
PROMPT = "> "
ANEW = "/new"
"""Said alone, it begins another conversation."""


@app.command(rich_help_panel=SERVICE)
def chat(
    name: Deployment,
    message: Annotated[
        str | None, typer.Argument(help="Said once; without it, a conversation: line by line, until Ctrl-D.")
    ] = None,
    store: Annotated[bool, typer.Option("--store", help="Keep what is said, for the next night.")] = False,
    alone: Annotated[bool, typer.Option("--alone", help="Each line is a conversation of its own.")] = False,
    system: Annotated[str | None, typer.Option(help="Said before everything.")] = None,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="Of each answer.")] = None,
    temperature: Annotated[float | None, typer.Option(min=0.0, help="0: always the likeliest.")] = None,
    key: Key = None,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Talk to a deployment; what it says is shown as it says it."""
    asked = {"store": store or None, "max_tokens": max_tokens, "temperature": temperature}
    more = {name: value for name, value in asked.items() if value is not None}
    talk = Talk(name, system, alone, more)
    with asking(url, key, as_json) as client:
        for said in [message] if message is not None else _lines(as_json):
            if said == ANEW:
                talk.said.clear()
            elif said.strip():
                talk.answer(client, said, as_json)


@dataclass
class Talk:
    """A conversation with one deployment."""

    model: str
    system: str | None
    alone: bool
    more: dict[str, Any]
    said: list[dict[str, str]] = field(default_factory=list)

    def answer(self, client: Circadian, said: str, as_json: bool) -> None:
        """Show what is said to this, and remember both."""
        if self.alone:
            self.said.clear()
        self.said.append({"role": "user", "content": said})
        first = [{"role": "system", "content": self.system}] if self.system else []
        heard, version, experience = "", None, None
        for piece in client.chat(self.model, [*first, *self.said], **self.more):
            heard, version, experience = heard + piece.text, piece.version, piece.experience
            if not as_json:
                typer.echo(plain(piece.text), nl=False)
        self.said.append({"role": "assistant", "content": heard})
        if as_json:
            line({"object": "chat.answer", "content": heard, "version": version, "experience": experience})
            return
        say("")
        if experience:
            say(f"({experience})")


def _lines(quietly: bool) -> Iterator[str]:
    """What is typed, or comes through a pipe, line by line."""
    if quietly or not sys.stdin.isatty():
        yield from (given.rstrip("\n") for given in sys.stdin)
        return
    import readline  # noqa: F401  # lines can be edited, and called back, once it is there

    while True:
        try:
            yield input(PROMPT)
        except EOFError:
            say("")
            return
