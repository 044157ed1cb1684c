"""Founding a deployment: is there a graft for this base model, and if so its first version, with an empty memory."""

from __future__ import annotations

import re
from pathlib import Path

from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, RepositoryNotFoundError
from transformers import AutoConfig

from circadian.memory.folder import VersionBroken
from circadian.memory.graft import NoGraft, graft_class
from circadian.memory.version import base_folder, found_version, weights_sha256
from circadian.specs import BaseModelRef, MemorySpec, VersionRecord
from services.errors import Problem
from services.outside import is_path

MODEL, SHA256 = "base_model.model", "base_model.sha256"
COMMIT = re.compile(r"[0-9a-f]{40}")
_UNREACHABLE = (HFValidationError, RepositoryNotFoundError, LocalEntryNotFoundError, HfHubHTTPError, OSError)


def found(base: BaseModelRef, memory: MemorySpec, folder: Path) -> VersionRecord:
    """Write the first version. Raises Problem (422), which names the field and the remedy, before anything is written."""
    source = model_folder(base)
    try:
        config = AutoConfig.from_pretrained(source, trust_remote_code=False)
        graft_class(config)
    except NoGraft as error:
        raise Problem(422, "no_graft", f"{MODEL}: {error}", param=MODEL) from error
    except (OSError, ValueError) as error:
        remedy = "give a folder that transformers' AutoConfig can read without running its code"
        raise Problem(
            422, "model_not_allowed", f"{MODEL}: {source} is not a usable model ({error}); {remedy}", param=MODEL
        ) from error
    try:
        if base.sha256 and base.sha256 != weights_sha256(source):
            detail = (
                f"{SHA256}: the weights in {source} have another one, {weights_sha256(source)}; leave it out, or give the right one"
            )
            raise Problem(422, "model_not_allowed", detail, param=SHA256)
        return found_version(base.model, base.revision, memory, folder)
    except NoGraft as error:
        raise Problem(422, "model_not_allowed", str(error), param="memory.layers") from error
    except VersionBroken as error:
        raise Problem(422, "model_not_allowed", f"{MODEL}: {error}", param=MODEL) from error


def model_folder(base: BaseModelRef, where: str = "base_model", code: str = "model_not_allowed") -> Path:
    """The local folder of a model that a request names in its field `where`. Raises Problem (422)."""
    model, revision = f"{where}.model", f"{where}.revision"
    if is_path(base.model):
        if not Path(base.model).is_dir():
            detail = f"{model}: there is no folder {base.model}; give a folder that exists on the service's machine, or a hub id"
            raise Problem(422, code, detail, param=model)
        return Path(base.model)
    if not COMMIT.fullmatch(base.revision or ""):
        detail = (
            f"{revision}: a hub id needs the commit it is meant at, and {base.revision} can move; give the 40 digits of a commit"
        )
        raise Problem(422, code, detail, param=revision)
    try:
        return base_folder(base)
    except _UNREACHABLE as error:
        remedy = "check id and revision, or download it and give the folder"
        raise Problem(422, code, f"{model}: {base.model} cannot be fetched ({error}); {remedy}", param=model) from error
