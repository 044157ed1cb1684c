"""Founding a deployment: is there a graft for this base model, and if so its first version, with an empty memory."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, RepositoryNotFoundError
from transformers import AutoConfig

from circadian.memory.graft import NoGraft, graft_class
from circadian.memory.version import VersionBroken, base_folder, found_version
from circadian.specs import BaseModelRef, MemorySpec, VersionRecord
from services.errors import Problem

MODEL = "base_model.model"
_UNREACHABLE = (HFValidationError, RepositoryNotFoundError, LocalEntryNotFoundError, HfHubHTTPError, OSError)


def found(base: BaseModelRef, memory: MemorySpec, folder: Path) -> VersionRecord:
    """Write the first version. Raises Problem (422), which names the field and the remedy, before anything is written."""
    source = _source(base)
    try:
        config = AutoConfig.from_pretrained(source)
        graft_class(config)
    except NoGraft as error:
        raise Problem(422, "no_graft", f"{MODEL}: {error}", param=MODEL) from error
    except (OSError, ValueError) as error:
        remedy = "give a folder that transformers' AutoConfig can read without running its code"
        raise Problem(
            422, "model_not_allowed", f"{MODEL}: {source} is not a usable model ({error}); {remedy}", param=MODEL
        ) from error
    try:
        return found_version(base.model, base.revision, memory, folder)
    except NoGraft as error:
        raise Problem(422, "model_not_allowed", str(error), param="memory.layers") from error
    except VersionBroken as error:
        raise Problem(422, "model_not_allowed", f"{MODEL}: {error}", param=MODEL) from error


def _source(base: BaseModelRef) -> Path:
    if _is_path(base.model):
        if not Path(base.model).is_dir():
            detail = f"{MODEL}: there is no folder {base.model}; give a folder that exists on the service's machine, or a hub id"
            raise Problem(422, "model_not_allowed", detail, param=MODEL)
        return Path(base.model)
    if not base.revision:
        detail = "base_model.revision: a hub id needs the commit it is meant at; give its full sha"
        raise Problem(422, "model_not_allowed", detail, param="base_model.revision")
    try:
        return base_folder(base)
    except _UNREACHABLE as error:
        remedy = "check id and revision, or download it and give the folder"
        raise Problem(
            422, "model_not_allowed", f"{MODEL}: {base.model} cannot be fetched ({error}); {remedy}", param=MODEL
        ) from error


def _is_path(model: str) -> bool:
    return Path(model).is_dir() or model.startswith(("/", ".", "~"))
