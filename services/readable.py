"""Bodies that nothing could write down, or that break what reads them: found before a route sees them.

    no text               not UTF-8; half of a surrogate pair; the character NUL, which PostgreSQL cannot hold
    nested too deeply     each level costs whoever walks through it a frame of his stack: no JSON that means something here goes so far
    no number             NaN and Infinity, which are no JSON, and numbers beyond a double, which would be read as Infinity

Most bodies are passed after a look at their bytes: only one that may have something of these in it is read twice.
"""

from __future__ import annotations

import json
import math
import re
from itertools import accumulate
from typing import Any

from services.errors import Problem, at_fault, malformed

MOST_DEPTH = 64
DOUBTFUL = re.compile(rb"\\u(?:[dD][89a-fA-F]|0000)|NaN|Infinity|[eE][+]?[0-9]{3}|[0-9]{300}")
"""Of half a pair, of NUL, and of a number that is none, or too large."""
UNWRITABLE = re.compile("[\x00\ud800-\udfff]")
"""Half of a pair is no character, and nothing that UTF-8, and so a file, an answer or the database, can hold."""
NUL = "\x00"
STRING = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
STEP = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}
NOT_BRACKETS = bytes(set(range(256)) - set(STEP))


class _NoNumber(ValueError):
    """A number that JSON, or a double, does not have."""


def fault(body: bytes) -> Problem | None:
    """What is wrong with a body, whatever it is meant for; the field, where it can be named."""
    try:
        body.decode()
    except UnicodeDecodeError as error:
        return malformed(f"it is not in UTF-8 ({error})")
    if NUL.encode() in body:
        return malformed("it has the character NUL in it; leave it out")
    if is_deep(body):
        return malformed(f"it is nested more than {MOST_DEPTH} deep; send flatter objects")
    if not DOUBTFUL.search(body):
        return None
    try:
        value = json.loads(body, parse_constant=_no_number, parse_float=_number)
    except _NoNumber as error:
        return malformed(f"{error} is no number that can be kept; leave it out, or send text")
    except (ValueError, RecursionError):
        return None  # it is no JSON, which the route says
    way = unwritable(value)
    return at_fault(way, _why(way, value)) if way else None


def is_deep(body: bytes) -> bool:
    """Whether its brackets are open too deep. Those in strings count for nothing."""
    if body.count(b"[") + body.count(b"{") <= MOST_DEPTH:
        return False
    brackets = STRING.sub(b"", body).translate(None, NOT_BRACKETS)
    return any(depth > MOST_DEPTH for depth in accumulate(map(STEP.__getitem__, brackets)))


def _number(text: str) -> float:
    value = float(text)
    return value if math.isfinite(value) else _no_number(text[:32])


def _no_number(text: str) -> float:
    raise _NoNumber(text)


def _why(way: list[str], value: Any) -> str:
    for name in way:
        value = value[int(name)] if isinstance(value, list) else value.get(name, name)
    if isinstance(value, str) and NUL in value:
        return "this text has the character NUL (\\u0000) in it, which not every database can hold; leave it out"
    return (
        "this text has half of a surrogate pair (\\ud800 to \\udfff), which is no character; leave it out, or send the whole pair"
    )


def unwritable(value: Any) -> list[str]:
    """The way to the first text of a JSON value, a name or a value, that cannot be written down."""
    inside, way = [iter([("", value)])], [""]
    while inside:
        for name, item in inside[-1]:
            way[-1] = name.encode("utf-8", "backslashreplace").decode()
            if UNWRITABLE.search(name) or (isinstance(item, str) and UNWRITABLE.search(item)):
                return way[1:]
            if isinstance(item, dict | list):
                named = item.items() if isinstance(item, dict) else ((str(i), part) for i, part in enumerate(item))
                inside.append(iter(named))
                way.append("")
                break
        else:
            inside.pop()
            way.pop()
    return []
