"""`python3 deploy/secrets.py [FOLDER]`: make the secrets that deploy/compose.yaml names and that are not there yet.

It needs nothing but Python. The folder is its owner's alone. The files in it can be read by whoever reaches them, because compose hands
each to containers as it lies here and their users are not this one; nobody reaches them through the folder.
"""

from __future__ import annotations

import os
import secrets
import sys
from pathlib import Path

FOLDER = Path(__file__).parent / "secrets"
RANDOM = ("api_key", "grafana_password", "key_pepper", "postgres_password", "ray_token", "signing_key")
BYTES = 32
DATABASE = "postgresql://circadian:{password}@postgres:5432/circadian"
"""As compose.yaml names the server, the user and the database."""


def provide(folder: Path) -> list[str]:
    """Names of the files that were written. Raises OSError."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)
    written = [name for name in RANDOM if _write(folder / name, secrets.token_hex(BYTES))]
    password = (folder / "postgres_password").read_text()
    return written + ["database_url"] * _write(folder / "database_url", DATABASE.format(password=password))


def _write(path: Path, text: str) -> bool:
    """Whether it was written: a secret that is there is never replaced. It has its name when it is whole."""
    if path.exists():
        return False
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text)
    partial.chmod(0o444)
    os.replace(partial, path)
    return True


if __name__ == "__main__":
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER
    names = provide(folder)
    sys.stderr.write(f"{folder}: wrote {', '.join(names)}\n" if names else f"{folder}: everything is there\n")
