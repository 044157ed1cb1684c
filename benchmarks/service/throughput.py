"""What the controller costs: requests through it beside vLLM's own server alone, and experiences a second on each database.

The gateway and its peer serve the same version folder on one engine each, and take turns, so that what else the machine does meets both.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import httpx

from actors.names import vllm_environment
from benchmarks.service.life import MODEL
from circadian.nursery.ship import WEIGHTS
from services.client import Circadian
from services.ports import free_ports
from services.settings import Settings
from services.stack import Stack, StackSpec

TOKENS, CONCURRENCY, SECONDS, ROUNDS = 8, 8, 8.0, 5
CHAT = [{"role": "user", "content": "what is the city of mira ?"}]
QUESTION = {"model": MODEL, "messages": CHAT, "max_tokens": TOKENS, "temperature": 0.0}
START_SECONDS = 300.0
WRITERS, WRITE_SECONDS = 8, 10.0


def closed(url: str, path: str, body: dict[str, Any], concurrency: int, seconds: float, key: str) -> dict[str, Any]:
    """What a closed loop in a process of its own measured."""
    arguments = [url, path, json.dumps(body), str(concurrency), str(seconds)]
    command = [sys.executable, "-m", "benchmarks.service.closed", *arguments]
    done = subprocess.run(command, env=os.environ | {"CIRCADIAN_API_KEY": key}, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


@contextmanager
def server(command: list[str], environment: dict[str, str], url: str, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that answers at this address."""
    with log.open("wb") as output:
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + START_SECONDS
        while True:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{command[2]} did not come up:\n{log.read_text()[-3000:]}")
            try:
                if httpx.get(url, timeout=5.0).status_code == 200:
                    break
            except httpx.TransportError:
                pass
            time.sleep(0.2)
        yield process
    finally:
        process.terminate()
        process.wait(60)


def gateway(home: Path) -> dict[str, Any]:
    """Whole answers through controller and Serve, and of vLLM's OpenAI server on the same folder."""
    with Stack(Settings(home=home / "home", port=0), StackSpec(num_cpus=2)) as stack:
        assert stack.api_key is not None
        client = Circadian(stack.url, stack.api_key)
        made = client.deployments.create(MODEL, {"model": str(WEIGHTS)}).sent()
        client.awake(MODEL, stack.settings.replica_start_seconds)
        folder = stack.settings.version_folder(made["id"], made["active_version"])
        (port,) = free_ports("127.0.0.1", 1, 7)
        command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(folder), "--served-model-name", MODEL]
        command += ["--host", "127.0.0.1", "--port", str(port), "--enforce-eager"]
        alone = f"http://127.0.0.1:{port}"
        found: dict[str, list[dict[str, Any]]] = {"gateway": [], "vllm": []}
        with server(command, os.environ | vllm_environment(), f"{alone}/health", home / "vllm.log"):
            for number in range(ROUNDS + 1):
                for name, url in (
                    (("gateway", stack.url), ("vllm", alone)) if number % 2 else (("vllm", alone), ("gateway", stack.url))
                ):
                    told = closed(url, "/v1/chat/completions", QUESTION, CONCURRENCY, SECONDS if number else 2.0, stack.api_key)
                    found[name] += [told] if number else []  # the first turn warms up
        client.close()
    rates = {name: median(told["per_second"] for told in rounds) for name, rounds in found.items()}
    ratios = [ours["per_second"] / theirs["per_second"] for ours, theirs in zip(found["gateway"], found["vllm"], strict=True)]
    return {
        "tokens": TOKENS,
        "concurrency": CONCURRENCY,
        "peer": "vllm.entrypoints.openai.api_server",
        "requests_per_second": rates,
        "ratio": round(median(ratios), 3),
        "p50_ms": {name: median(told["p50_ms"] for told in rounds) for name, rounds in found.items()},
        "failed": sum(told["failed"] for rounds in found.values() for told in rounds),
        "rounds": found,
    }


def intake(home: Path, database: str) -> dict[str, Any]:
    """Experiences that were answered 201 in a closed loop: each screened, and on disk before its answer; not the first one, at which the
    controller loads what screens. A node founds the deployment, and has no room for its replica, which would take the cores."""
    with Stack(Settings(home=home, port=0, database_url=database), StackSpec(num_cpus=1)) as stack:
        assert stack.api_key is not None
        with httpx.Client(base_url=stack.url, headers={"Authorization": f"Bearer {stack.api_key}"}, timeout=60.0) as client:
            screening = {"caps": {"per_source_per_minute": 10_000_000}}
            body = {"name": MODEL, "base_model": {"model": str(WEIGHTS)}, "screening": screening, "serving": {"cpus": 2}}
            client.post("/v1/deployments", json=body).raise_for_status()
            began = time.perf_counter()
            client.post("/v1/experiences", json={"deployment": MODEL, "text": "the first one"}).raise_for_status()
            first = {"first_seconds": round(time.perf_counter() - began, 2), "writers": WRITERS}
        said = {"deployment": MODEL, "text": "{words}"}
        return closed(stack.url, "/v1/experiences", said, WRITERS, WRITE_SECONDS, stack.api_key) | first
