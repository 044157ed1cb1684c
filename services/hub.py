"""Which commit a hub id means now: asked once, so that a deployment names it for ever."""

from __future__ import annotations

from pathlib import Path

import httpx
from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError


class NoCommit(Exception):
    """Neither the hub nor the local cache knows the id."""


def commit_of(model: str) -> str:
    """The newest commit: the hub's word, or the local cache's where the hub cannot be reached. Raises NoCommit."""
    failures = (HfHubHTTPError, HFValidationError, httpx.HTTPError, OSError)
    try:
        if sha := HfApi().model_info(model).sha:
            return sha
    except failures as error:
        reason = str(error).strip().splitlines()
    else:
        reason = []
    try:
        # The cache keeps each commit in a folder of its name.
        return Path(snapshot_download(model, local_files_only=True, allow_patterns=["config.json"])).name
    except failures as error:
        why = reason[0] if reason else type(error).__name__
        raise NoCommit(f"no commit of {model} is known ({why}); give one with --revision, or a folder as --model") from error
