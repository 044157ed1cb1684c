"""Founding a deployment: is there a graft for this base model, and if so its first version, with an empty memory."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, RepositoryNotFoundError
from transformers import AutoConfig

from actors.models import COMMIT, Refused, check_model, is_path
from actors.workshop import FoundRequest
from circadian.memory.folder import RECORD_FILE, VersionBroken, read_record
from circadian.memory.graft import NoGraft, graft_class
from circadian.memory.version import base_folder, found_version, weights_sha256
from circadian.specs import BaseModelRef, VersionRecord

MODEL, SHA256 = "base_model.model", "base_model.sha256"
_UNREACHABLE = (HFValidationError, RepositoryNotFoundError, LocalEntryNotFoundError, HfHubHTTPError, OSError)


def found(request: FoundRequest) -> VersionRecord:
    """Write the first version; where it is there already, because who wrote it was killed before it could tell, it is left as it is. Raises
    Refused before anything is written."""
    base, folder = request.base, Path(request.folder)
    if (folder / RECORD_FILE).is_file():
        return read_record(folder)
    source = model_folder(base, request.allowed_models)
    try:
        config = AutoConfig.from_pretrained(source, trust_remote_code=False)
        graft_class(config)
    except NoGraft as error:
        raise Refused("no_graft", f"{MODEL}: {error}", MODEL) from error
    except (OSError, ValueError) as error:
        remedy = "give a folder that transformers' AutoConfig can read without running its code"
        raise Refused("model_not_allowed", f"{MODEL}: {source} is not a usable model ({error}); {remedy}", MODEL) from error
    try:
        if base.sha256 and base.sha256 != weights_sha256(source):
            detail = (
                f"{SHA256}: the weights in {source} have another one, {weights_sha256(source)}; leave it out, or give the right one"
            )
            raise Refused("model_not_allowed", detail, SHA256)
        return found_version(base.model, base.revision, request.memory, folder, source)
    except NoGraft as error:
        raise Refused("model_not_allowed", str(error), "memory.layers") from error
    except VersionBroken as error:
        raise Refused("model_not_allowed", f"{MODEL}: {error}", MODEL) from error


def model_folder(
    base: BaseModelRef,
    allowed: tuple[str, ...],
    where: str = "base_model",
    code: str = "model_not_allowed",
) -> Path:
    """The local folder of a model that a request names in its field `where`. Raises Refused.

    allowed: patterns, held against what the folder is here: links of this machine are not those of the service's.
    """
    model, revision = f"{where}.model", f"{where}.revision"
    check_model(base.model, allowed, model)
    if is_path(base.model):
        if not Path(base.model).is_dir():
            detail = f"{model}: there is no folder {base.model}; give a folder that exists on the cluster's machines, or a hub id"
            raise Refused(code, detail, model)
        return Path(base.model)
    if not COMMIT.fullmatch(base.revision or ""):
        detail = (
            f"{revision}: a hub id needs the commit it is meant at, and {base.revision} can move; give the 40 digits of a commit"
        )
        raise Refused(code, detail, revision)
    try:
        return base_folder(base)
    except _UNREACHABLE as error:
        remedy = "check id and revision, or download it and give the folder"
        raise Refused(code, f"{model}: {base.model} cannot be fetched ({error}); {remedy}", model) from error
