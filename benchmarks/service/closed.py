"""A closed loop: `python -m benchmarks.service.closed URL PATH BODY CONCURRENCY SECONDS`, the key in CIRCADIAN_API_KEY.

BODY is JSON; `{words}` in one of its strings is replaced by words that differ from request to request. Prints one line of JSON: requests,
failures, requests a second, and quantiles of the latency.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
import time
from itertools import count

import httpx

from benchmarks.service.life import quantile

CLIENT_SECONDS = 120.0
SYLLABLES = "ba do fi gu ka le mo nu pa re so ti va wo xe zu".split()
WORDS = 24


def words(number: int) -> str:
    """No two of these are nearly the same."""
    rng = random.Random(number)
    return " ".join("".join(rng.choices(SYLLABLES, k=3)) for _ in range(WORDS))


async def main(url: str, path: str, body: str, concurrency: int, seconds: float) -> None:
    numbers, latencies, failed = count(), list[float](), 0
    headers = {"Authorization": f"Bearer {os.environ['CIRCADIAN_API_KEY']}", "Content-Type": "application/json"}
    limits = httpx.Limits(max_connections=concurrency, max_keepalive_connections=concurrency)
    async with httpx.AsyncClient(base_url=url, headers=headers, timeout=CLIENT_SECONDS, limits=limits) as client:
        begin = time.perf_counter()

        async def loop() -> None:
            nonlocal failed
            while (now := time.perf_counter()) - begin < seconds:
                answer = await client.post(path, content=body.replace("{words}", words(next(numbers))))
                failed += answer.is_error
                latencies.append(time.perf_counter() - now)

        await asyncio.gather(*(loop() for _ in range(concurrency)))
        lasted = time.perf_counter() - begin
    told = {"requests": len(latencies), "failed": failed, "per_second": round(len(latencies) / lasted, 2)}
    sys.stdout.write(json.dumps(told | {"p50_ms": quantile(latencies, 0.5), "p99_ms": quantile(latencies, 0.99)}) + "\n")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]), float(sys.argv[5])))
