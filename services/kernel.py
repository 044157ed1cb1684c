"""What a process asks the kernel for itself: prctl, of Linux. Other systems have nothing like it, and there nothing is asked."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
"""Both from linux/prctl.h."""


def end_with_parent() -> None:
    """Be asked to end when the thread that started this process ends. It stays so when the process becomes another command."""
    _set(PR_SET_PDEATHSIG, signal.SIGTERM)


def adopt_orphans() -> None:
    """Be the parent of whatever below this process loses its own."""
    _set(PR_SET_CHILD_SUBREAPER, 1)


def _set(option: int, value: int) -> None:
    """Raises OSError."""
    if sys.platform != "linux":
        return
    if ctypes.CDLL(None, use_errno=True).prctl(option, ctypes.c_ulong(value), *[ctypes.c_ulong(0)] * 3):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
