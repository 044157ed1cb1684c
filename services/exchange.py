"""An exchange with a client that is to be kept: what was said to the model, and what it answered."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy.orm import Session

from circadian.specs import Experience, Message
from services.errors import Problem
from services.fleet import Body, Route
from services.metadata import NUL
from services.tables import ExperienceRow, Json, StoredCompletion, new_id

DATA = "data: "
MOST_SUBJECT = 256
"""Characters of a name that is kept."""
ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
"""Roles that can be kept, and as which."""


@dataclass
class Exchange:
    """Prompt messages, and the pieces of the answer heard so far."""

    prompt: tuple[Message, ...]
    metadata: dict[str, str]
    route: Route
    subject: str | None = None
    """Whom the client speaks for, where it says so (`user`)."""
    id: str = field(default_factory=lambda: new_id("exp"))
    completion: str = field(default_factory=lambda: new_id("chatcmpl"))
    """What a chat is listed and found under: in its answer it takes the place of the engine's own id."""
    heard: list[str] = field(default_factory=list)
    finish_reason: str = "stop"
    usage: Json | None = None
    fingerprint: str | None = None
    broken: bool = False
    """The engine said in the stream that it failed: what was heard is a fragment, though a regular end follows."""

    @classmethod
    def of(cls, body: Body, route: Route, metadata: dict[str, str]) -> Exchange:
        """Raises Problem (422) for a prompt that cannot be kept, before the model is asked."""
        if route == "completion":
            if not isinstance(body.get("prompt"), str) or not body["prompt"]:
                raise _not_storable("prompt", "only one prompt, given as text, can be stored")
            return cls((Message(role="user", content=body["prompt"]),), metadata, route, _subject(body))
        messages = body.get("messages")
        if not isinstance(messages, list) or not messages:
            raise _not_storable("messages", "there are none")
        return cls(tuple(_message(message) for message in messages), metadata, route, _subject(body))

    def hear(self, piece: str) -> str:
        """Take the text out of a piece of a stream. Returns the piece, under our id."""
        # Not `splitlines`: that also cuts at U+2028 and its like, which JSON text may hold as they are.
        return "\n".join(self._heard_line(line) for line in piece.split("\n"))

    def _heard_line(self, line: str) -> str:
        if not line.startswith(DATA) or line == f"{DATA}[DONE]":
            return line
        said = json.loads(line.removeprefix(DATA))
        self.broken = self.broken or bool(said.get("error"))
        self.heard.append(said_in(said, self.route))
        told = self.note(said)
        return line if told is said else DATA + json.dumps(told, ensure_ascii=False, separators=(",", ":"))

    def note(self, body: dict[str, Any]) -> dict[str, Any]:
        """Keep what is told beside the text, in an answer or a piece of one. Returns the body, under our id."""
        first: dict[str, Any] = next((choice for choice in body.get("choices") or [] if choice.get("index", 0) == 0), {})
        self.finish_reason = first.get("finish_reason") or self.finish_reason
        self.usage, self.fingerprint = body.get("usage") or self.usage, body.get("system_fingerprint") or self.fingerprint
        return body | {"id": self.completion} if self.route == "chat" and "id" in body else body

    def stored(self, tx: Session, row: ExperienceRow, model: str, version: str) -> None:
        """Written with the experience: a chat can be listed."""
        if self.route != "chat":
            return
        tx.add(
            StoredCompletion(
                id=self.completion,
                deployment=row.deployment,
                experience=row.id,
                model=model,
                version=version,
                prompt=len(self.prompt),
                finish_reason=self.finish_reason,
                fingerprint=self.fingerprint,
                usage=self.usage,
                meta=self.metadata,
            )
        )

    def experience(self, answer: str) -> Experience:
        """The exchange as an experience; an empty answer is left out."""
        reply = (Message(role="assistant", content=answer),) if answer else ()
        return Experience(id=self.id, messages=self.prompt + reply, source="wake")


def _subject(body: Body) -> str | None:
    user = body.get("user")
    return user.replace(NUL, "")[:MOST_SUBJECT] or None if isinstance(user, str) else None


def said_in(body: dict[str, Any], route: Route) -> str:
    """The first choice's text, of a whole answer or a piece of one."""
    choices = body.get("choices") or []
    if not choices or choices[0].get("index", 0) != 0:
        return ""
    if route == "completion":
        return choices[0].get("text") or ""
    return (choices[0].get("message") or choices[0].get("delta") or {}).get("content") or ""


def _message(given: Any) -> Message:
    role = given.get("role") if isinstance(given, dict) else None
    if not isinstance(role, str) or role not in ROLES:
        raise _not_storable("messages", f"a message's role must be one of {', '.join(ROLES)}")
    content = given.get("content")
    if isinstance(content, list):
        content = "".join(_part(part) for part in content)
    if not isinstance(content, str) or not content:
        raise _not_storable("messages", "a message's content must be text")
    return Message.model_validate({"role": ROLES[role], "content": content})


def _part(given: Any) -> str:
    """A text part's text."""
    if not isinstance(given, dict) or given.get("type") != "text" or not isinstance(given.get("text"), str):
        raise _not_storable("messages", 'the parts of a content must be text: {"type": "text", "text": "..."}')
    return given["text"]


def _not_storable(param: str, why: str) -> Problem:
    return Problem(422, "not_storable", f"{param}: {why}; send the request without `store`", param=param)
