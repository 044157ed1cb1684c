"""The home folder: that it is one, that nobody else can look into it, and that one service lives in it at a time."""

from __future__ import annotations

import fcntl
import logging
import os
import stat
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

log = logging.getLogger(__name__)
Tenant = Literal["controller", "stack"]
"""Who holds a home: the process that writes its database, and the one that started Ray and that process."""
MARK = "circadian.home"
MARKS = (MARK, "circadian.db", "controller.lock", "stack.lock")
"""Files of which a home has at least one from its first moment on; the first is there for that alone, since controllers of a PostgreSQL
share a home and write no other at once."""
OTHERS = 0o007
"""Permissions of everybody who is neither owner nor in the group."""


class HomeRefused(Exception):
    """The folder cannot be, or cannot now be, the home of a service."""


def private_folder(folder: Path) -> None:
    """Make a home that only its owner can look into; one that is there is closed to everybody but owner and group.

    One of another user, in which this one may write, is taken as it is. Raises HomeRefused for a folder that has something in it and
    is no home: it is not ours to close.
    """
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
        (folder / MARK).touch(mode=0o600)
        return
    if not folder.is_dir():
        raise HomeRefused(f"{folder} is no folder; choose another --home (or CIRCADIAN_HOME)")
    if any(folder.iterdir()) and not any((folder / mark).exists() for mark in MARKS):
        raise HomeRefused(
            f"{folder} has something in it and is not the home of a Circadian service; choose a new or an empty folder as --home "
            "(or CIRCADIAN_HOME)"
        )
    (folder / MARK).touch(mode=0o600)
    there = folder.stat()
    mode = stat.S_IMODE(there.st_mode)
    if not mode & OTHERS:
        return
    if there.st_uid == os.geteuid():
        folder.chmod(mode & ~OTHERS)
    else:
        # A volume that belongs to root and the group, as Kubernetes mounts them: what is written into it is closed by the umask.
        log.info("%s belongs to another user, who alone could close it", folder)


class HomeLock:
    """A home, held until `release` or the process's end, whatever ends it. Use as a context manager, or keep it.

    Two controllers on one database would each believe that every deployment and every sleep is its own.
    """

    def __init__(self, home: Path, tenant: Tenant) -> None:
        """Raises HomeRefused where another process holds it, and as `private_folder` does."""
        private_folder(home)
        path = home / f"{tenant}.lock"
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.read(self._descriptor, 32).decode(errors="replace").strip() or "unknown"
            os.close(self._descriptor)
            raise HomeRefused(
                f"{home} is in use by a service that runs (process {holder}); end that one first, or choose another --home (or "
                "CIRCADIAN_HOME)"
            ) from error
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        """Let go; harmless when repeated."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.release()
