"""The OpenAPI file: what FastAPI finds out about the routes, and what holds for all of them, said once here.

    every operation     a summary, an id that clients can be generated with, the errors it can answer with, what it answers with
    every body          an example that is accepted as it stands

Rules go by path and method, so that a route of a new resource is described without a word here; examples are the exception.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import takewhile

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from services.api import objects
from services.api.examples import EXAMPLES
from services.api.objects import Schema
from services.api.repeats import repeatable

DESCRIPTION = """A deployed language model that sleeps: what it meets awake, it keeps.

`/v1/chat/completions` and `/v1/models` are OpenAI's. Errors are RFC 9457 problems with an `error` member that OpenAI's clients read.
Lists are paged by `after` (the `last_id` of the page before) and `limit`. A write with an `Idempotency-Key` is done once; a change with
`If-Match` only where the object is what its `ETag` said."""
TAGS = {
    "health": "Whether the service answers. These need no key.",
    "deployments": "A model, its memory and its replicas under one name.",
    "probes": "What an operator wants every version to be able to do, and how well each does.",
    "erasures": "What is to be forgotten, and what was done for it.",
    "lineage": "Which version keeps which experience.",
    "wake": "The deployed model, as OpenAI's clients know it.",
    "experiences": "What a deployment met while awake.",
    "sleeps": "Nights of a deployment. (Not vLLM's `/sleep`, which frees GPU memory.)",
    "versions": "The states a deployed model has been in.",
    "schedules": "When deployments fall asleep by themselves.",
    "webhooks": "Where events are sent, signed after Standard Webhooks.",
    "api keys": "Who may do what.",
    "audit": "Who did what, append-only.",
    "usage": "What deployments were asked, by day.",
}
SUMMARIES = {
    "get /livez": "Is the process alive?",
    "get /startupz": "Has the service started?",
    "get /readyz": "Can requests be answered?",
    "get /version": "Which release answers?",
    "post /v1/chat/completions": "Answer a chat",
    "post /v1/completions": "Complete a prompt",
    "get /v1/chat/completions": "List stored chats",
    "get /v1/chat/completions/{id}": "Get a stored chat",
    "post /v1/chat/completions/{id}": "Change metadata of a stored chat",
    "delete /v1/chat/completions/{id}": "Delete a stored chat",
    "get /v1/chat/completions/{id}/messages": "Messages of a stored chat",
    "post /v1/experiences/{id}/feedback": "Give feedback on an experience",
    "post /v1/schedules/{id}/run": "Run a schedule now",
    "post /v1/webhook_endpoints/{id}/deliveries/{delivery}/replay": "Send a delivery again",
    "get /v1/usage": "List usage by day",
}
"""Where the rule finds no good words."""
VERBS = {"post": "Create", "get": "Get", "patch": "Change", "put": "Replace", "delete": "Delete"}
WRITES = frozenset({"post", "patch", "put", "delete"})
PROBLEMS = {
    400: "The request cannot be read, or its cursor or Idempotency-Key is none",
    401: "No key, or one that opens nothing",
    403: "The key may not do this",
    404: "There is no such object",
    408: "The body did not come in time",
    409: "The object's state does not allow it, or the same request is still running",
    410: "What it said is gone: it was deleted, its time was over, or somebody is forgotten",
    412: "The object has changed since its ETag was read",
    413: "The body is too long",
    415: "The body is not of a kind that is read here",
    422: "Something in the request cannot be; `errors` points at each field",
    429: "This key asks too often; `Retry-After` says when to come back",
    500: "The service failed; its log has the reason under the `request_id`",
    503: "Not now; `Retry-After` says when to come back",
}
ASKED_OF_THE_MODEL = frozenset({"post /v1/chat/completions", "post /v1/completions"})
"""Whose answers are the engine's."""
MORE = {
    "get /v1/sleeps/{id}/report": (409,),
    "get /v1/sleeps/{id}/logs": (503,),
    "post /v1/experiences": (200,),
    "post /v1/sleeps": (200, 412),
    "post /v1/sleeps/{id}/cancel": (200,),
    "post /v1/versions/{id}/promote": (412,),
    "post /v1/deployments/{id_or_name}/rollback": (412,),
    "post /v1/chat/completions": (503,),
    "post /v1/completions": (503,),
}
"""Statuses beside those that the rules name."""
PROBLEM: Schema = {
    "type": "object",
    "required": ["type", "title", "status", "detail", "instance", "request_id", "error"],
    "properties": {
        "type": {"type": "string", "description": "urn:circadian:error:CODE"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "What is wrong, and the remedy"},
        "instance": {"type": "string"},
        "request_id": {"type": "string", "description": "As in the header x-request-id, and in the service's log"},
        "error": {
            "type": "object",
            "description": "The same, as OpenAI's clients read it",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"anyOf": [{"type": "string"}, {"type": "null"}]},
                "code": {"type": "string"},
            },
        },
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["pointer", "detail"],
                "properties": {"pointer": {"type": "string"}, "detail": {"type": "string"}},
            },
        },
    },
}
IDEMPOTENCY_KEY: Schema = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "Your name for this request: sent again with the same one, it is not done again, and the first answer is given",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255},
}


def describe(app: FastAPI) -> Schema:
    """The file, made once."""
    if app.openapi_schema is None:
        tags = [{"name": name, "description": text} for name, text in TAGS.items()]
        found = get_openapi(title=app.title, version=app.version, description=DESCRIPTION, routes=app.routes, tags=tags)
        for path, method, operation in operations(found):
            _describe(path, method, operation)
        schemas = found["components"]["schemas"]
        for name in ("HTTPValidationError", "ValidationError"):
            schemas.pop(name, None)
        schemas |= objects.components() | {"Problem": PROBLEM}
        app.openapi_schema = found
    return app.openapi_schema


def operations(schema: Schema) -> Iterator[tuple[str, str, Schema]]:
    """Path, method and operation."""
    for path, methods in schema["paths"].items():
        for method, operation in methods.items():
            yield path, method, operation


def _describe(path: str, method: str, operation: Schema) -> None:
    operation["summary"] = summary(path, method)
    operation["operationId"] = re.sub(r"\W+", "_", re.sub(r"\b(an?|of|on|the)\b ?", "", operation["summary"].lower())).strip("_")
    if not path.startswith("/v1/"):
        return
    names = {parameter["name"].lower() for parameter in operation.get("parameters", [])}
    if repeatable(method.upper(), path) and IDEMPOTENCY_KEY["name"].lower() not in names:
        operation.setdefault("parameters", []).append(IDEMPOTENCY_KEY)
    responses = operation["responses"]
    for status in [status for status in responses if status.startswith("2") and status != "204"] + _more_successes(path, method):
        if f"{method} {path}" not in ASKED_OF_THE_MODEL:
            responses.setdefault(status, {"description": "As before"})["content"] = _contents(path, method, status)
    for problem in sorted(problems(path, method, operation)):
        content = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
        responses[str(problem)] = {"description": PROBLEMS[problem], "content": content}
    for content in operation.get("requestBody", {}).get("content", {}).values():
        one = content["schema"].get("anyOf", [content["schema"]])[0]  # a body that may be left out, or null
        if (name := one.get("$ref", "").rsplit("/", 1)[-1]) in EXAMPLES:
            content.setdefault("example", EXAMPLES[name])


def _contents(path: str, method: str, status: str) -> Schema:
    """Media types of an answer, and what it looks like in each."""
    others = {kind: {"schema": {"type": "string"}} for kind in objects.OTHER_MEDIA.get(f"{method} {path}", ())}
    json = {} if "*/*" in others else {"application/json": {"schema": objects.answer(path, method, status)}}
    return json | others


def _more_successes(path: str, method: str) -> list[str]:
    return [str(status) for status in MORE.get(f"{method} {path}", ()) if status < 300]


def problems(path: str, method: str, operation: Schema) -> set[int]:
    """Statuses of the errors that a route can answer with."""
    parameters, body = operation.get("parameters", []), "requestBody" in operation
    names = {parameter["name"].lower() for parameter in parameters}
    found = {400, 401, 403, 429, 500}
    found |= {404} if "{" in path or body or "deployment" in names else set()
    found |= {409, 422} if method in WRITES else set()
    found |= {412} if "if-match" in names else set()
    found |= {408, 413, 415} if body else set()
    found |= {410} if path.startswith("/v1/experiences") and repeatable(method.upper(), path) else set()
    found |= {422} if body or parameters else set()
    return found | {status for status in MORE.get(f"{method} {path}", ()) if status >= 400}


def summary(path: str, method: str) -> str:
    """In words: `List sleeps`, `Cancel a sleep`, `Events of a sleep`."""
    if f"{method} {path}" in SUMMARIES:
        return SUMMARIES[f"{method} {path}"]
    parts = [part.replace("_", " ").replace("api", "API") for part in path.split("/")[2:]]
    names = list(takewhile(lambda part: not part.startswith("{"), parts))
    within = "".join(f" of {name}" for name in reversed(names[:-1]))
    one, below = f"{_one(names[-1])}{within}", parts[len(names) + 1 :]
    if len(parts) == len(names):
        return f"List {names[-1]}{within}" if method == "get" else f"{VERBS[method]} {one}"
    if not below:
        return f"{VERBS[method]} {one}"
    if len(below) > 1:
        return f"{VERBS[method]} {_one(below[0])} of {one}"
    return f"{below[0].capitalize()} of {one}" if method == "get" else f"{below[0].removesuffix('s').capitalize()} {one}"


def _one(many: str) -> str:
    """`an experience` of `experiences`."""
    one = f"{many[:-3]}y" if many.endswith("ies") else many[:-2] if many.endswith("ches") else many.removesuffix("s")
    return f"{'an' if one[0].lower() in 'aeiou' else 'a'} {one}"
