"""The hub, as the controller asks it: which commit an id means now, once, so that a deployment names it for ever; and its files."""

from __future__ import annotations

from pathlib import Path

import httpx
from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError

from circadian.memory.folder import MODEL_FILES

FAILURES = (HfHubHTTPError, HFValidationError, httpx.HTTPError, OSError)


class NoCommit(Exception):
    """Neither the hub nor the local cache knows the id."""


def commit_of(model: str) -> str:
    """The newest commit: the hub's word, or the local cache's where the hub cannot be reached. Raises NoCommit."""
    try:
        if sha := HfApi().model_info(model).sha:
            return sha
    except FAILURES as error:
        reason = str(error).strip().splitlines()
    else:
        reason = []
    try:
        # The cache keeps each commit in a folder of its name.
        return Path(snapshot_download(model, local_files_only=True, allow_patterns=["config.json"])).name
    except FAILURES as error:
        why = reason[0] if reason else type(error).__name__
        raise NoCommit(f"no commit of {model} is known ({why}); give one with --revision, or a folder as --model") from error


def fetch(model: str, commit: str) -> None:
    """Into the cache that the cluster's nodes read: they have neither a token of the hub nor a way out. Raises one of FAILURES."""
    snapshot_download(model, revision=commit, allow_patterns=list(MODEL_FILES))
