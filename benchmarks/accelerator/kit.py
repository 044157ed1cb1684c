"""Milliseconds and bytes of a device, by methods that hold on a GPU: events around the work, nothing timed before it ran a few times,
contenders in turns, the median over rounds, and what a contender costs as the median of its ratios to the first one in the same round.

On a CPU the wall clock stands in, there are no bytes and nothing is captured; that is for tests.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping
from statistics import median, quantiles
from typing import Any

import torch

Work = Callable[[], Any]
Times = dict[str, list[float]]
"""Milliseconds by contender, one a round."""
WARM = 3
"""Calls before any that counts."""
COPY_BYTES = 2**32
PRODUCT = 8192
"""Rows and columns of the matrices whose product tells the device's rate."""


def milliseconds(work: Work, device: torch.device) -> float:
    """Of one call, until the device is done with it."""
    if device.type != "cuda":
        started = time.perf_counter()
        work()
        return 1000 * (time.perf_counter() - started)
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    work()
    end.record()
    end.synchronize()
    return start.elapsed_time(end)


def interleaved(contenders: Mapping[str, Work], device: torch.device, rounds: int, warm: int = WARM) -> Times:
    """Every contender once a round; who begins changes from round to round."""
    names = list(contenders)
    for work in contenders.values():
        for _ in range(warm):
            work()
    times: Times = {name: [] for name in names}
    for turn in range(rounds):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            times[name].append(milliseconds(contenders[name], device))
    return times


def summary(times: Times, against: str) -> dict[str, dict[str, float]]:
    """Of each contender its median, and the median and quartiles of its ratios to `against` in the same rounds."""
    found = {}
    for name, mine in times.items():
        ratios = [one / base for one, base in zip(mine, times[against], strict=True)]
        low, _, high = quantiles(ratios, n=4) if len(ratios) > 1 else (ratios[0],) * 3
        found[name] = {
            "ms": round(median(mine), 4),
            "ratio": round(median(ratios), 4),
            "low": round(low, 4),
            "high": round(high, 4),
        }
    return found


def captured(work: Work) -> Work:
    """The same work as a CUDA graph, which is what an engine replays: no time passes between two kernels."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(WARM):
            work()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()
    return graph.replay


def transient(work: Work, device: torch.device) -> int:
    """Bytes that one call needs at its peak, beyond what is there before it. 0 on a CPU."""
    if device.type != "cuda":
        work()
        return 0
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    work()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before


def release(device: torch.device) -> None:
    """Give back what nobody holds any more, where bytes are counted."""
    if device.type == "cuda":
        gc.collect()
        torch.cuda.synchronize()
        torch.cuda.empty_cache()


def ceilings(device: torch.device) -> dict[str, float]:
    """What the device reaches: bytes a second of a copy, read and written, and operations a second of a product in bfloat16."""
    if device.type != "cuda":
        return {}
    source = torch.randint(0, 255, (COPY_BYTES,), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    a, b = (torch.randn(PRODUCT, PRODUCT, device=device, dtype=torch.bfloat16) for _ in range(2))
    times = interleaved({"copy": lambda: target.copy_(source), "product": lambda: a @ b}, device, 11)
    copy, product = (median(times[name]) / 1000 for name in ("copy", "product"))
    return {"copy_bytes_per_second": round(2 * COPY_BYTES / copy), "bf16_operations_per_second": round(2 * PRODUCT**3 / product)}
