"""`python -m services.child PARENT COMMAND...`: become COMMAND, and be asked to end when the process PARENT dies, even by SIGKILL.

Linux sends the signal when the *thread* that started the child ends: children are started by a thread that lives as long as they may.
Other systems have nothing like it; there a child outlives a parent that is killed.
"""

from __future__ import annotations

import os
import sys

from services.kernel import end_with_parent


def command(words: list[str]) -> list[str]:
    """What to start so that `words` runs as a child that does not outlive this process."""
    return [sys.executable, "-m", "services.child", str(os.getpid()), *words]


def main(parent: int, words: list[str]) -> None:
    """Raises OSError where the command cannot be started."""
    end_with_parent()
    if os.getppid() != parent:
        sys.exit("the parent died before its child had begun")
    os.execvp(words[0], words)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
