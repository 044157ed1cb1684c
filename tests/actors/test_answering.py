"""Clients are answered by vLLM's own endpoints, from the version that the answer names, and can reach no further."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from engine_world import FAST, SEALED, STUDENT, EngineWorld, LiveEngine

from circadian.memory.delivery import pack

pytestmark = pytest.mark.engine

CHAT = {"model": "toy", "messages": [{"role": "user", "content": "what is the city of mira ?"}], "max_tokens": 6, "temperature": 0}
TEXT = {"model": "toy", "prompt": "the city of mira is", "max_tokens": 4, "temperature": 0}


@pytest.fixture
def answering(live: LiveEngine) -> Any:
    from actors.answering import OpenAIAnswering

    return OpenAIAnswering(live.engine, "toy")


async def collect(stream: Any) -> list[Any]:
    return [item async for item in stream]


def fingerprints(events: list[str]) -> set[str]:
    return {json.loads(event.removeprefix("data: "))["system_fingerprint"] for event in events[:-1]}


def text_of(events: list[str]) -> str:
    assert events[-1] == "data: [DONE]\n\n"
    chunks = [json.loads(event.removeprefix("data: ")) for event in events[:-1]]
    return "".join(choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"])


def test_a_stream_says_what_the_whole_answer_says_and_both_are_counted(live: LiveEngine, answering: Any) -> None:
    whole = live.run(answering.answer("chat", CHAT))
    head, *events = live.run(collect(answering.stream("chat", CHAT)))
    assert (whole.status, head.status, head.error) == (200, 200, None)
    assert whole.version == head.version == whole.body["system_fingerprint"] == live.engine.version
    assert fingerprints(events) == {head.version}
    assert text_of(events) == whole.body["choices"][0]["message"]["content"]
    assert not any('"usage":{' in event for event in events), "usage was not asked for"
    usage = whole.body["usage"]
    assert (answering.usage.requests, answering.usage.prompt_tokens) == (2, 2 * usage["prompt_tokens"])
    assert answering.usage.completion_tokens == 2 * usage["completion_tokens"] > 0


def test_usage_is_streamed_to_those_who_ask(live: LiveEngine, answering: Any) -> None:
    events = live.run(collect(answering.stream("completion", {**TEXT, "stream_options": {"include_usage": True}})))
    assert json.loads(events[-2].removeprefix("data: "))["usage"]["completion_tokens"] == TEXT["max_tokens"]


def test_completions_have_choices_echo_logprobs_and_stop(live: LiveEngine, answering: Any) -> None:
    asked = {**TEXT, "n": 2, "temperature": 1.0, "seed": 3, "echo": True, "logprobs": 1}
    reply = live.run(answering.answer("completion", asked))
    assert len(reply.body["choices"]) == 2
    for choice in reply.body["choices"]:
        assert choice["text"].startswith("the city of mira is")
        assert len(choice["logprobs"]["token_logprobs"]) == reply.body["usage"]["prompt_tokens"] + TEXT["max_tokens"]
    words = live.run(answering.answer("completion", {**TEXT, "max_tokens": 8})).body["choices"][0]["text"].split()
    stopped = live.run(answering.answer("completion", {**TEXT, "max_tokens": 8, "stop": words[2]})).body["choices"][0]
    assert stopped["finish_reason"] == "stop"
    assert stopped["text"].split() == words[: words.index(words[2])]


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (404, {**CHAT, "model": "other"}),
        (400, {**CHAT, "temperature": -1}),
        (400, {"model": "toy"}),
        (400, {**CHAT, "messages": [{"role": "user", "content": "mira " * 600}]}),
        (400, {**CHAT, "chat_template": "{{ 1 }}"}),
        (400, {**CHAT, "chat_template_kwargs": {"x": 1}}),
        (400, {**CHAT, "cache_salt": "mine"}),
        (400, {**CHAT, "priority": -5}),
        (400, {**CHAT, "mm_processor_kwargs": {}}),
        (400, {**CHAT, "media_io_kwargs": {}}),
        (400, {**CHAT, "kv_transfer_params": {}}),
        (400, {**CHAT, "prompt_embeds": "AAAA"}),
    ],
    ids=lambda value: next(reversed(value)) if isinstance(value, dict) else "",
)
def test_a_request_that_asks_too_much_is_refused_whole_or_streamed(
    live: LiveEngine, answering: Any, status: int, body: dict[str, Any]
) -> None:
    reply = live.run(answering.answer("chat", body))
    assert (reply.status, reply.body["error"]["code"]) == (status, status)
    assert live.engine.cache_salt[-16:] not in json.dumps(reply.body)
    (head,) = live.run(collect(answering.stream("chat", body)))
    assert (head.status, head.error) == (status, reply.body)
    assert answering.usage.requests == 0


def test_answers_during_a_delivery_finish_and_later_ones_name_the_new_version(
    live: LiveEngine, answering: Any, engine_world: EngineWorld
) -> None:
    payloads = []
    for seed, version in ((20, "first"), (21, "second")):
        model = engine_world.grown(seed)
        payloads.append(pack(model.memory_layers, (FAST, SEALED, STUDENT), model.memory_state, version))
    live.run(live.engine.deliver(payloads[0]))
    long = {**CHAT, "max_tokens": 200, "ignore_eos": True}

    async def deliver_meanwhile() -> tuple[Any, list[Any], Any]:
        whole = asyncio.create_task(answering.answer("chat", long))
        streamed = asyncio.create_task(collect(answering.stream("chat", long)))
        while live.engine.in_flight < 2:
            await asyncio.sleep(0.01)
        await live.engine.deliver(payloads[1])
        assert live.engine.in_flight == 2
        return await whole, await streamed, await answering.answer("chat", CHAT)

    whole, (head, *events), later = live.run(deliver_meanwhile())
    assert (whole.version, head.version, later.version) == ("first", "first", "second")
    assert whole.body["usage"]["completion_tokens"] == 200
    assert len(text_of(events).split()) == 200
    assert (whole.body["system_fingerprint"], later.body["system_fingerprint"]) == ("first", "second")
    assert fingerprints(events) == {"first"}, "a later request's version must not reach an earlier answer"


def test_closing_a_stream_aborts_its_request(live: LiveEngine, answering: Any) -> None:
    async def leave_early() -> int:
        stream = answering.stream("chat", {**CHAT, "max_tokens": 400, "ignore_eos": True})
        for _ in range(3):
            await anext(stream)
        await stream.aclose()
        while live.engine.in_flight:
            await asyncio.sleep(0.01)
        return answering.usage.requests

    before = answering.usage.requests
    assert live.run(leave_early()) == before, "ended, and not because it was answered"
