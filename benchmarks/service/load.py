"""Clients that ask steadily: `python -m benchmarks.service.load URL MODEL OUT RATE`, the key in CIRCADIAN_API_KEY; SIGTERM ends it.

An open loop: a request is due every 1/RATE seconds whatever became of those before, and its latency counts from when it was due, so a
service that stands still is charged for every request that would have come. One line of JSON for each, with `at` (Unix seconds), `seconds`,
`status` (0: no answer), `version` and `error`.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any, TextIO

import httpx

TOKENS = 4
CLIENT_SECONDS = 120.0
CONNECTIONS = 256


async def ask(client: httpx.AsyncClient, model: str, due: float, number: int, out: TextIO) -> None:
    line: dict[str, Any] = {"at": due, "status": 0, "version": None, "error": None}
    body = {
        "model": model,
        "messages": [{"role": "user", "content": "what is the city of mira ?"}],
        "max_tokens": TOKENS,
        "temperature": 0.0,
        "user": f"client-{number % 64}",
    }
    try:
        answer = await client.post("/v1/chat/completions", json=body)
        line |= {"status": answer.status_code, "version": answer.headers.get("x-deployment-version")}
        if answer.is_error:
            line["error"] = answer.text[:300]
    except httpx.HTTPError as error:
        line["error"] = repr(error)
    line["seconds"] = round(time.time() - due, 6)
    out.write(json.dumps(line) + "\n")
    out.flush()


async def main(url: str, model: str, out: Path, rate: float) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    headers = {"Authorization": f"Bearer {os.environ['CIRCADIAN_API_KEY']}"}
    limits = httpx.Limits(max_connections=CONNECTIONS, max_keepalive_connections=CONNECTIONS)
    begin, number, under_way = time.time(), 0, set[asyncio.Task[None]]()
    async with httpx.AsyncClient(base_url=url, headers=headers, timeout=CLIENT_SECONDS, limits=limits) as client:
        with out.open("w") as file:
            while not stop.is_set():
                due = begin + number / rate
                await asyncio.sleep(max(0.0, due - time.time()))
                task = asyncio.create_task(ask(client, model, due, number, file))
                under_way.add(task)
                task.add_done_callback(under_way.discard)
                number += 1
            await asyncio.gather(*under_way)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], Path(sys.argv[3]), float(sys.argv[4])))
