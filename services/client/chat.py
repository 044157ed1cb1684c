"""What a deployment says in a stream, as OpenAI's interface has it. No network here."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from services.client.errors import ClientError

ROUTE = "/v1/chat/completions"
VERSION_HEADER, EXPERIENCE_HEADER = "x-deployment-version", "x-experience-id"
END = "[DONE]"


class Broken(ClientError):
    """The answer ended in the middle."""


@dataclass(frozen=True)
class Piece:
    """Some of what is said."""

    text: str
    version: str | None
    """That says it."""
    experience: str | None
    """As which the whole is kept, where that was asked for."""


@dataclass
class Speech:
    """One answer."""

    headers: Mapping[str, str]
    ended: bool = field(default=False)

    def hear(self, line: str) -> Piece | None:
        """Raises Broken where the engine says that it failed."""
        if not line.startswith("data:"):
            return None
        data = line.removeprefix("data:").strip()
        if data == END:
            self.ended = True
            return None
        said = json.loads(data)
        if error := said.get("error"):
            raise Broken(f"the answer broke off: {error.get('message', error) if isinstance(error, dict) else error}")
        choices = said.get("choices") or [{}]
        text = (choices[0].get("delta") or {}).get("content") or ""
        return Piece(text, self.headers.get(VERSION_HEADER), self.headers.get(EXPERIENCE_HEADER)) if text else None

    def end(self) -> None:
        """Nothing more comes. Raises Broken where more should."""
        if not self.ended:
            raise Broken("the answer broke off: the service ended it without saying that it was done")
