"""Secrets as files: a folder that CIRCADIAN_SECRETS_FOLDER names, with a file for each, as Kubernetes mounts them.

    database_url    workflow_database_url    api_key    key_pepper    signing_key

What a variable says wins over a file. The signing key stays where it lies: its setting is a path.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from pydantic.fields import FieldInfo
from pydantic_settings import PydanticBaseSettingsSource

FOLDER = "CIRCADIAN_SECRETS_FOLDER"
SIGNING_KEY = "signing_key"
KNOWN = ("database_url", "workflow_database_url", "api_key", "key_pepper", SIGNING_KEY)
"""Names of files, each that of a setting, except for the signing key's: `signing_key_file`."""


class SecretsUnreadable(Exception):
    """A folder of secrets was named, and cannot be used as it is."""


class SecretFiles(PydanticBaseSettingsSource):
    """The settings that lie in files. Nothing where no folder is named."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        """Not asked: all files are read at once."""
        return None, field_name, False

    def __call__(self) -> dict[str, Any]:
        """Raises SecretsUnreadable, which names the file and the remedy, never what is in it."""
        named = os.environ.get(FOLDER)
        return secrets_in(Path(named)) if named else {}


def secrets_in(folder: Path) -> dict[str, Any]:
    """Settings from the files of a folder. Raises SecretsUnreadable."""
    files = _files(folder)
    if strange := sorted(set(files) - set(KNOWN)):
        raise SecretsUnreadable(f"{folder / strange[0]} is no secret of this service; its name must be one of {', '.join(KNOWN)}")
    if not files:
        raise SecretsUnreadable(f"{folder} has no secret in it; it needs files named {', '.join(KNOWN)}, or leave {FOLDER} unset")
    texts = {name: _text(path) for name, path in files.items()}
    if texts.pop(SIGNING_KEY, None) is not None:
        texts["signing_key_file"] = str(files[SIGNING_KEY])
    return texts


def _files(folder: Path) -> dict[str, Path]:
    """By name. Kubernetes keeps links of its own there, whose names begin with two dots."""
    try:
        return {path.name: path for path in folder.iterdir() if not path.name.startswith(".")}
    except OSError as error:
        raise SecretsUnreadable(
            f"{folder}, the folder of {FOLDER}, cannot be read: {error.strerror}; mount the secrets there"
        ) from error


def _text(path: Path) -> str:
    """Without the line's end that an editor leaves."""
    try:
        text = path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise SecretsUnreadable(
            f"{path} cannot be read: {reason}; it must be a file that this process's user or group may read"
        ) from error
    if not text:
        raise SecretsUnreadable(f"{path} is empty; write the secret into it, or remove it")
    return text
