"""What a night tells while it runs: one JSON object a line, appended to `events.jsonl` in the night's home.

The file is the only channel from the night to the controller, which reads it from where it stopped: a controller that was away misses
nothing. Lines are appended whole (a single write below the pipe limit), so several processes of one night may write.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

FILE = "events.jsonl"


class EventLog:
    """The events of one night."""

    def __init__(self, home: Path) -> None:
        self.path = home / FILE

    def emit(self, type: str, message: str, **data: object) -> None:
        """Append one event; `type` is dotted, `message` is for people."""
        line = json.dumps({"type": type, "created_at": time.time(), "message": message, "data": data}) + "\n"
        descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        left = line.encode()
        try:
            while left:
                left = left[os.write(descriptor, left) :]
        finally:
            os.close(descriptor)

    def read(self) -> list[dict[str, object]]:
        """Everything so far, without lines that a full disk tore."""
        if not self.path.exists():
            return []
        return [event for line in self.path.read_text().split("\n") if (event := parse(line)) is not None]


def parse(line: str) -> dict[str, object] | None:
    """An event from its line; None where the line is none."""
    try:
        event = json.loads(line)
    except ValueError:
        return None
    return event if isinstance(event, dict) else None
