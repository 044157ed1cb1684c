"""What the verbs share: how the service is found, how it is asked, and with which status a command ends."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from services.cli.output import line, warn

if TYPE_CHECKING:
    from services.client import ApiError, Circadian, ClientError

FAILED, WRONG_USE, REFUSED, NO_ACCESS, NOT_NOW = 1, 2, 3, 4, 5
INTERRUPTED = 130
EXITS = {
    0: "done",
    FAILED: "what was asked for has failed: a night, a rollout, a start",
    WRONG_USE: "the command line is wrong, or a file that it names",
    REFUSED: "the service refuses it: there is no such thing, things have changed, a value cannot be",
    NO_ACCESS: "the key is missing, or may not do this",
    NOT_NOW: "nothing answers, or not now; trying again later may help",
    INTERRUPTED: "Ctrl-C",
}
"""What the exit status of a command means."""
DEFAULT_URL = "http://127.0.0.1:8700"
NO_KEY = (
    "no API key: `export CIRCADIAN_API_KEY=...` (or --key). The first `circadian up` of a home printed it, once; the service keeps only "
    "its hash, so it can be found nowhere else. If it is lost, start `circadian up` with CIRCADIAN_API_KEY set to a new one, which "
    "replaces it."
)
HOW_TO_REACH = "start the service with `circadian up`, or name another with --url"
SERVICE, NIGHTS, VERSIONS, AUTOMATIC, LOCAL = (
    "Deployments and what they meet",
    "Nights",
    "Versions",
    "What goes by itself, and who may",
    "On this machine",
)
"""Headings of `--help`."""

Url = Annotated[str, typer.Option(envvar="CIRCADIAN_URL", help="Of the service.")]
Key = Annotated[str | None, typer.Option(envvar="CIRCADIAN_API_KEY", help="API key, as the first `circadian up` printed it.")]
AsJson = Annotated[bool, typer.Option("--json", help="Each object a line of JSON, and nothing else.")]
Most = Annotated[int, typer.Option(min=1, help="Shown at most.")]
Reason = Annotated[str, typer.Option(help="Why; it is kept in the audit log.")]
Deployment = Annotated[str, typer.Argument(help="Name or id of a deployment.")]
SomeDeployment = Annotated[str | None, typer.Argument(help="Name or id of a deployment; all unless given.")]
MOST = 20


@contextmanager
def asking(url: str, key: str | None, as_json: bool = False) -> Iterator[Circadian]:
    """A client whose errors end the command, in one line and with the status that says what kind they are."""
    from services.client import ApiError, Circadian, ClientError, Unreachable

    if not key:
        if as_json:
            line({"error": {"code": "missing_key", "message": NO_KEY}}, err=True)
        else:
            warn(NO_KEY)
        raise typer.Exit(NO_ACCESS)
    try:
        with Circadian(url, key) as client:
            yield client
    except ApiError as error:
        _end(error, as_json, status_of(error), _told(error))
    except Unreachable as error:
        message, code = f"{error}; {HOW_TO_REACH}", "unreachable"
        _end(error, as_json, NOT_NOW, {"code": code, "message": message}, message)
    except ClientError as error:
        _end(error, as_json, FAILED, {"code": "failed", "message": str(error)})


def _end(error: ClientError, as_json: bool, status: int, told: dict[str, Any], text: str = "") -> NoReturn:
    if as_json:
        line({"error": told}, err=True)
    else:
        warn(text or str(error))
    raise typer.Exit(status) from error


def status_of(error: ApiError) -> int:
    from services.client import NotAllowed, Unavailable

    return NO_ACCESS if isinstance(error, NotAllowed) else NOT_NOW if isinstance(error, Unavailable) else REFUSED


def _told(error: ApiError) -> dict[str, Any]:
    names = ("code", "status", "message", "remedy", "param", "errors", "request_id")
    return {name: value for name in names if (value := getattr(error, name))}


def fail(text: str, status: int = FAILED, as_json: bool = False) -> NoReturn:
    """Error texts are not ours: no markup."""
    if as_json:
        line({"error": {"code": "failed", "message": text}}, err=True)
    else:
        warn(text)
    raise typer.Exit(status)


def json_file(path: Path, option: str) -> dict[str, Any]:
    """A JSON object, of a file or (`-`) standard input. Ends the command where there is none."""
    try:
        text = typer.get_text_stream("stdin").read() if str(path) == "-" else path.read_text(encoding="utf-8")
        value = json.loads(text)
    except (OSError, ValueError) as error:
        fail(
            f"{option}: {path} cannot be read as JSON ({error}); give a file with a JSON object, or - for standard input", WRONG_USE
        )
    if not isinstance(value, dict):
        fail(f"{option}: {path} holds no JSON object; write {{...}}", WRONG_USE)
    return value


def pairs(given: list[str], option: str) -> dict[str, str] | None:
    """Of KEY=VALUE, given several times; None where there are none."""
    found = dict[str, str]()
    for item in given:
        name, sign, value = item.partition("=")
        if not sign or not name:
            fail(f"{option}: {item!r} is no KEY=VALUE; write it like team=blue", WRONG_USE)
        found[name] = value
    return found or None
