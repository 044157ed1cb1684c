"""How a command that has children is ended: in order, and once."""

from __future__ import annotations

import os
import signal
import stat
from types import FrameType

ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Ctrl-C, a service manager, and the terminal when it is closed."""


def end_in_order() -> None:
    """The first Ctrl-C, SIGTERM or SIGHUP ends the children, one after the other; no other one may interrupt that.

    What is ignored already stays so: `nohup circadian up` outlives its terminal.
    """

    def interrupt(number: int, frame: FrameType | None) -> None:
        for name in ENDINGS:
            signal.signal(name, signal.SIG_IGN)
        if number == signal.SIGHUP:
            without_terminal()
        raise KeyboardInterrupt

    for name in ENDINGS:
        if signal.getsignal(name) is not signal.SIG_IGN:
            signal.signal(name, interrupt)


def without_terminal() -> None:
    """Let what is still said go nowhere: writing to a terminal that has gone is an error, which would end us out of order."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for descriptor in (1, 2):
        if stat.S_ISCHR(os.fstat(descriptor).st_mode):  # a file or a pipe is still there
            os.dup2(nowhere, descriptor)
    os.close(nowhere)
