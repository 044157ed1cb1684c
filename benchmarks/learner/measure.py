"""Seconds and bytes of this process."""

from __future__ import annotations

import ctypes
import gc
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

CLOCKS = ("wall", "cpu")
"""Which seconds count: those that passed, or those that this process computed on all its threads."""
STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
RESET_PEAK = "5"
"""What Linux is told to begin the peak of resident memory anew."""


def resident() -> int:
    """Bytes of memory that are resident now."""
    return _field("VmRSS")


def release() -> None:
    """Give what earlier work has freed back to the system, so that it does not count as this one's."""
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)


def forget_peak() -> None:
    """Begin the peak anew."""
    CLEAR.write_text(RESET_PEAK)


def peak() -> int:
    """Highest resident bytes since `forget_peak`."""
    return _field("VmHWM")


def peak_of_life() -> int:
    """Highest resident bytes of the process's whole life."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def seconds(work: Callable[[], Any]) -> tuple[float, float]:
    """Of one call: by the wall, and of this process's own computing on all its threads."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


def _field(name: str) -> int:
    (line,) = (line for line in STATUS.read_text().splitlines() if line.startswith(name + ":"))
    return int(line.split()[1]) * 1024
