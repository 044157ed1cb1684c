"""A night's log, as far as it may be told: what our own code has logged, where an error passed, and of which kind it was.

A log is free text. An error of a library may quote the text that it stumbled over, which is what somebody said to the deployment, so only
lines of three forms are kept, and what secrets look like is replaced in them:

    2026-11-03 02:14:07,123 pipelines.night night slp_1 ended after 3.0 s      logged by us (pipelines/night.py sets the form)
    File "pipelines/wake.py", line 105, in collect                             of a traceback, without the file's folder
    ValueError                                                                 the kind of an error, without its words

The night's own word on why it failed is its sleep's `error`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import PurePosixPath

from circadian.specs.screening import RedactionSpec, ScreeningSpec
from services.screening.clock import TooSlow
from services.screening.redaction import redact

OURS = ("pipelines", "actors", "circadian", "services", "__main__")
LOGGED = re.compile(rf"\d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d,\d{{3}} (?:{'|'.join(OURS)})(?:\.\w+)* .*")
FRAME = re.compile(r'\s*File "([^"]+)", line (\d+), in ([\w<>.]+)\s*')
ERROR = re.compile(
    r"\s*((?:[A-Za-z_]\w*\.)*[A-Z]\w*(?:Error|Exception|Warning|Interrupt|Exit|Broken|Full|Failed|Unusable|Lost))(?::.*)?\s*"
)
SECRETS = ScreeningSpec(redaction=RedactionSpec(kinds=()))
"""Are looked for; a time of day would be taken for a telephone number."""
LONGEST_LINE = 2000
MOST_LINES = 5000
FOLDERS = 2
"""Of a file's path, the last ones, its name among them."""


def safe(log: str, most_bytes: int) -> tuple[list[str], bool]:
    """The end of a log, and whether there was more. Lines that may not be told are left out, and counted in their place."""
    raw = log.encode("utf-8", "replace")
    end = raw[-most_bytes:].decode("utf-8", "replace")
    lines = end.splitlines()[1 if len(raw) > most_bytes else 0 :]  # the first may be half a line
    kept = list(_kept(lines))
    return _without_secrets(kept[-MOST_LINES:]), len(raw) > most_bytes or len(kept) > MOST_LINES


def _kept(lines: list[str]) -> Iterator[str]:
    left_out = 0
    for line in [*lines, None]:
        told = _told(line) if line is not None else ""
        if told is None:
            left_out += 1
            continue
        if left_out:
            yield f"[{left_out} lines left out]"
            left_out = 0
        if line is not None:
            yield told


def _told(line: str) -> str | None:
    """A line as it may be told, or that it may not."""
    if LOGGED.fullmatch(line):
        return line[:LONGEST_LINE]
    if frame := FRAME.fullmatch(line):
        path, number, name = frame.groups()
        return f'  File "{"/".join(PurePosixPath(path).parts[-FOLDERS:])}", line {number}, in {name}'
    error = ERROR.fullmatch(line)
    return error.group(1) if error else None


def _without_secrets(lines: list[str]) -> list[str]:
    """What looks like one is replaced; nothing is told where it cannot be found out in time."""
    try:
        return redact("\n".join(lines), SECRETS).text.split("\n") if lines else []
    except TooSlow:
        return [f"[{len(lines)} lines left out]"]
