"""OpenAI's chat and completion endpoints over a MemoryEngine, answered by vLLM's own serving classes.

Everything a client can ask of vLLM's server (streams, log-probs, echo, stop, n, usage) is answered by the same code here. Ours is
only what stands in front of it: fields that would reach past the deployment's settings are refused, the prefix cache is salted,
tokens are counted, and each answer says (`system_fingerprint`) which version was in force when it was admitted. A delivery while it is
being written lets a newer version write the rest; it still names the one that was asked.

No Ray here: wake.py puts this class into an actor.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from jinja2 import TemplateError
from pydantic import ValidationError
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
from vllm.entrypoints.openai.chat_completion.serving import OpenAIServingChat
from vllm.entrypoints.openai.completion.protocol import CompletionRequest
from vllm.entrypoints.openai.completion.serving import OpenAIServingCompletion
from vllm.entrypoints.openai.models.protocol import BaseModelPath
from vllm.entrypoints.openai.models.serving import OpenAIServingModels
from vllm.entrypoints.serve.engine.protocol import ErrorResponse
from vllm.entrypoints.serve.exception_handling.error_response import create_error_response
from vllm.exceptions import GracefulHTTPError, VLLMClientError, VLLMValidationError
from vllm.renderers.online_renderer import OnlineRenderer

from actors.engine import MemoryEngine
from actors.replies import Endpoint, Reply, StreamHead

OK = 200

DENIED_FIELDS = frozenset(
    {
        "prompt_embeds",  # a tensor that is unpickled
        "mm_processor_kwargs",
        "media_io_kwargs",
        "chat_template",  # a program that runs in this process
        "chat_template_kwargs",
        "priority",  # one client before another
        "kv_transfer_params",
        "ec_transfer_params",
        "vllm_xargs",
        "cache_salt",  # ours, or a stale cache would be read
    }
)
"""Fields of vLLM's that a client may not set."""

REQUEST_ERRORS = (VLLMClientError, GracefulHTTPError, ValueError, TypeError, OverflowError, NotImplementedError, TemplateError)
"""What vLLM's server turns into an error answer. Anything else is a fault of ours and is raised."""


@dataclass
class Usage:
    """What was answered since the start."""

    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0

    def count(self, usage: dict[str, Any]) -> None:
        self.requests += 1
        self.prompt_tokens += usage.get("prompt_tokens") or 0
        self.completion_tokens += usage.get("completion_tokens") or 0


@dataclass
class OpenAIAnswering:
    """The two endpoints of one engine under one model name."""

    engine: MemoryEngine
    model_name: str
    usage: Usage = field(default_factory=Usage)

    def __post_init__(self) -> None:
        client = self.engine.client
        models = OpenAIServingModels(client, [BaseModelPath(name=self.model_name, model_path=client.model_config.model)])
        renderer = OnlineRenderer(
            client.model_config, client.renderer, request_logger=None, chat_template=None, chat_template_content_format="auto"
        )
        self._chat = OpenAIServingChat(
            client,
            models,
            "assistant",
            online_renderer=renderer,
            request_logger=None,
            chat_template=None,
            chat_template_content_format="auto",
        )
        self._completion = OpenAIServingCompletion(client, models, online_renderer=renderer, request_logger=None)
        # One for all requests in vLLM; here each answer has its own, written in below.
        self._chat.system_fingerprint = self._completion.system_fingerprint = None

    async def answer(self, endpoint: Endpoint, body: dict[str, Any]) -> Reply:
        """The whole answer to a request's body; `stream` in it is not looked at."""
        version, result = await self._create(endpoint, {**body, "stream": False, "stream_options": None})
        if isinstance(result, ErrorResponse):
            return Reply(result.error.code, result.model_dump(mode="json"), version)
        answered = {**result.model_dump(mode="json"), "system_fingerprint": version}
        self.usage.count(answered["usage"])
        return Reply(OK, answered, version)

    async def stream(self, endpoint: Endpoint, body: dict[str, Any]) -> AsyncIterator[StreamHead | str]:
        """A head, then server-sent events as vLLM writes them."""
        options = body.get("stream_options") or {}
        # Usage is always asked for, because it is counted; its event is passed on to those who asked for it themselves.
        streaming = {**body, "stream": True, "stream_options": {**options, "include_usage": True}}
        version, result = await self._create(endpoint, streaming)
        if isinstance(result, ErrorResponse):
            yield StreamHead(result.error.code, version, result.model_dump(mode="json"))
            return
        yield StreamHead(OK, version)
        async for event in result:
            usage = _final_usage(event)
            if usage is not None:
                self.usage.count(usage)
            if usage is None or options.get("include_usage"):
                yield _signed(event, version)

    async def _create(self, endpoint: Endpoint, body: dict[str, Any]) -> tuple[str, Any]:
        """The version at admission, and vLLM's response, generator of events, or ErrorResponse."""
        version, salt = await self.engine.settled()
        denied = sorted(name for name in DENIED_FIELDS if body.get(name) is not None)
        if denied:
            reason = VLLMValidationError(f"{denied[0]} cannot be set here; leave it out", parameter=denied[0])
            return version, create_error_response(reason)
        try:
            return version, await self._ask(endpoint, {**body, "cache_salt": salt})
        except ValidationError as error:
            first = error.errors(include_input=False, include_url=False)[0]  # its own text would quote the cache salt
            where = ".".join(map(str, first["loc"]))
            return version, create_error_response(VLLMValidationError(f"{where}: {first['msg']}", parameter=where))
        except REQUEST_ERRORS as error:
            return version, create_error_response(error)

    async def _ask(self, endpoint: Endpoint, body: dict[str, Any]) -> Any:
        if endpoint == "chat":
            return await self._chat.create_chat_completion(ChatCompletionRequest.model_validate(body))
        return await self._completion.create_completion(CompletionRequest.model_validate(body))


def _signed(event: str, version: str) -> str:
    """The event with the version in it, unless it is an error or [DONE]."""
    if event.startswith('data: {"error"'):
        return event
    return (
        event.replace('data: {"', f'data: {{"system_fingerprint":{json.dumps(version)},"', 1)
        if event.startswith("data: {")
        else event
    )


def _final_usage(event: str) -> dict[str, Any] | None:
    """The usage in the event that has nothing else, the last before [DONE]."""
    if '"choices":[]' not in event:
        return None
    return json.loads(event.removeprefix("data: ")).get("usage")
