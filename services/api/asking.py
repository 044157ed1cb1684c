"""What a client may ask of a deployed model: OpenAI's fields and a few of vLLM's, by name. What they mean is the engine's business.

Fields that change how a request is run rather than what is answered (templates, embeddings, priorities, transfers) are not among them,
nor are tools, which nothing here could keep. Messages are text: what names a picture or a sound would be fetched by the engine.
"""

from __future__ import annotations

from typing import Annotated, Any, cast

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictInt, StrictStr, ValidationError

from services.errors import at_fault, faults
from services.fleet import Body, Route
from services.metadata import METADATA_PAIRS, Metadata
from services.settings import Settings

SAMPLING = frozenset(
    """model stream stream_options max_tokens n temperature top_p top_k min_p stop stop_token_ids seed logprobs presence_penalty
    frequency_penalty repetition_penalty logit_bias user ignore_eos min_tokens skip_special_tokens spaces_between_special_tokens
    include_stop_str_in_output add_special_tokens response_format return_token_ids""".split()
)
FIELDS: dict[Route, frozenset[str]] = {
    "chat": SAMPLING | {"messages", "max_completion_tokens", "top_logprobs", "add_generation_prompt", "continue_final_message"},
    "completion": SAMPLING | {"prompt", "echo", "suffix"},
}
OURS = frozenset({"store", "metadata", "safety_identifier"})
Count = Annotated[StrictInt, Field(ge=0)]
EXAMPLE_MESSAGES = [{"role": "user", "content": "what is the city of mira ?"}]


class Ours(BaseModel):
    """The fields that are ours, and those that are bounded here."""

    model_config = ConfigDict(extra="ignore", frozen=True)
    model: str
    stream: StrictBool = False
    store: StrictBool = False
    metadata: Metadata = {}
    safety_identifier: Annotated[StrictStr, Field(max_length=256)] = ""
    """OpenAI's newer name for `user`."""
    n: Count = 1
    max_tokens: Count = 0
    max_completion_tokens: Count = 0
    min_tokens: Count = 0


def described(route: Route) -> dict[str, Any]:
    """The body, for the OpenAPI file. What the engine reads is described by its own."""
    asks = "messages" if route == "chat" else "prompt"
    pairs: dict[str, Any] = {"type": "object", "maxProperties": METADATA_PAIRS, "additionalProperties": {"type": "string"}}
    known: dict[str, Any] = {
        "model": {"type": "string", "description": "A deployment's name"},
        "messages": {"type": "array", "items": {"type": "object"}},
        "stream": {"type": ["boolean", "null"]},
        "store": {"type": ["boolean", "null"], "description": "Keep the exchange as an experience"},
        "metadata": {"anyOf": [pairs, {"type": "null"}], "description": "Of that experience"},
        "safety_identifier": {"type": ["string", "null"], "maxLength": 256, "description": "Who asks; as `user`"},
        **{
            name: {"type": ["integer", "null"], "minimum": 0} for name in ("n", "max_tokens", "max_completion_tokens", "min_tokens")
        },
    }
    fields = {name: known.get(name, {}) for name in sorted(FIELDS[route] | OURS)}
    schema = {"type": "object", "required": ["model", asks], "properties": fields, "additionalProperties": False}
    example = {"model": "nursery", asks: EXAMPLE_MESSAGES if route == "chat" else "the city of mira is", "temperature": 0}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema, "example": example}}}}


def asked(given: Any, route: Route, settings: Settings) -> tuple[Body, Ours]:
    """The body for the engine, and what is ours in it; null means absent. Raises Problem (422), which names the field."""
    if not isinstance(given, dict):
        raise at_fault([], "give a JSON object")
    fields = {name: value for name, value in given.items() if value is not None}
    for name in fields:
        if name not in FIELDS[route] | OURS:
            raise at_fault([name], f"this service does not take it; it takes {', '.join(sorted(FIELDS[route] | OURS))}")
    try:
        ours = Ours.model_validate(fields)
    except ValidationError as error:
        raise faults(error.errors()) from error
    for name in ("max_tokens", "max_completion_tokens", "min_tokens"):
        _bounded(name, getattr(ours, name), settings.most_tokens)
    _bounded("n", ours.n, settings.most_choices)
    _bounded("prompt", _prompts(fields.get("prompt")), settings.most_prompts)
    named = {"user": ours.safety_identifier} if ours.safety_identifier else {}
    return named | {name: value for name, value in fields.items() if name in FIELDS[route]}, ours


def only_text(body: Body) -> None:
    """Raises Problem (422) where a message has anything but text in it: an engine would fetch what a URL there names."""
    messages = body.get("messages")
    for i, message in enumerate(messages if isinstance(messages, list) else []):
        content = message.get("content") if isinstance(message, dict) else None
        if isinstance(content, list) and not all(map(_is_text, content)):
            why = 'its parts may be text only: {"type": "text", "text": "..."}'
            raise at_fault(["messages", str(i), "content"], why)
        if isinstance(content, dict):
            raise at_fault(["messages", str(i), "content"], "give a text, or a list of text parts")


def _is_text(part: Any) -> bool:
    return isinstance(part, str) or (
        isinstance(part, dict) and part.keys() == {"type", "text"} and part["type"] == "text" and isinstance(part["text"], str)
    )


def _prompts(prompt: Any) -> int:
    """How many there are: a list of integers is one."""
    many = isinstance(prompt, list) and not all(isinstance(item, int) for item in prompt)
    return len(cast(list[Any], prompt)) if many else 1


def _bounded(name: str, value: int, most: int) -> None:
    if value > most:
        raise at_fault([name], f"{value} is more than the {most} that this service allows")
