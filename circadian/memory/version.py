"""A version: a folder that is one state of a deployed model.

    memory.safetensors    every expert that holds something, as named tensors (tensors.py)
    version.json          VersionRecord: what it is made of, and from what
    config.json           the base's config, `architectures` naming the grafted class, `memory` holding spec and expert states
    tokenizer files       the base's, so that `vllm serve FOLDER` needs nothing else
    signature.json        of a version that was committed: what the controller signed (signature.py); not written here

The base's weights are never copied: version.json names them and their SHA-256, which is checked when they are loaded.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
import uuid
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

import torch
from huggingface_hub import snapshot_download
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, PretrainedConfig, PreTrainedTokenizerBase

from circadian.files import sha256, to_disk
from circadian.memory.folder import CONFIG_FILE, MEMORY_FILE, MODEL_FILES, RECORD_FILE, VersionBroken, read_record
from circadian.memory.graft import Grafted, graft_class, memory_config
from circadian.memory.state import written_experts
from circadian.memory.tensors import checksum, expert_tensors, write_tensors
from circadian.memory.tokenizer_files import copy_tokenizer
from circadian.specs import BaseModelRef, MemorySpec, VersionRecord


def base_folder(base: BaseModelRef) -> Path:
    """The local folder with the base's weights; a hub id is looked up in the local cache (and fetched where the network allows)."""
    if Path(base.model).is_dir():
        return Path(base.model).resolve()
    return Path(
        snapshot_download(
            base.model,
            revision=base.revision,
            allow_patterns=list(MODEL_FILES),
        )
    )


def weights_sha256(folder: Path) -> str:
    """SHA-256 over the folder's safetensors files, in the order of their names."""
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise VersionBroken(
            f"{folder} holds no *.safetensors; convert the base model with save_pretrained(safe_serialization=True)"
        )
    return _sha256(tuple((str(f), f.stat().st_size, f.stat().st_mtime_ns) for f in files))


@lru_cache(maxsize=8)
def _sha256(files: tuple[tuple[str, int, int], ...]) -> str:
    digest = hashlib.sha256()
    for name, _, _ in files:
        with open(name, "rb") as file:
            while chunk := file.read(1 << 22):
                digest.update(chunk)
    return digest.hexdigest()


def found_version(
    base_model: str, revision: str | None, spec: MemorySpec, folder: Path, source: Path | None = None
) -> VersionRecord:
    """Write the first version of a deployment: the base with a fresh, empty memory. Reads no weights, only hashes them.

    source: the base's folder, where it is known. Raises NoGraft for an architecture without a graft.
    """
    ref = BaseModelRef(model=str(Path(base_model).resolve()) if Path(base_model).is_dir() else base_model, revision=revision)
    source = source or base_folder(ref)
    config = memory_config(AutoConfig.from_pretrained(source), spec)
    ref = ref.model_copy(update={"sha256": weights_sha256(source)})
    record = VersionRecord(id=folder.name, base=ref, created_at=time.time())
    return _write(folder, config, {}, record, source, {}, {})


def load_version(folder: Path, dtype: torch.dtype | None = None) -> Grafted:
    """The model of a version, on the CPU, in evaluation mode, nothing requiring gradients.

    Raises VersionBroken where the base's or the memory's checksum differs from the record.
    """
    record, config = read_record(folder), AutoConfig.from_pretrained(folder)
    source = base_folder(record.base)
    if weights_sha256(source) != record.base.sha256:
        raise VersionBroken(
            f"the weights in {source} are not those that {record.id} was made from; restore the base of SHA-256 {record.base.sha256}"
        )
    model = graft_class(config).from_base(source, config, dtype or config.dtype)
    tensors = load_file(folder / MEMORY_FILE)
    if checksum(tensors) != record.memory_sha256:
        raise VersionBroken(f"{folder / MEMORY_FILE} does not match the checksum in {RECORD_FILE}")
    write_tensors(model.memory_layers, {name: tensor.to(model.dtype) for name, tensor in tensors.items()})
    return model.eval().requires_grad_(False)


def save_version(
    folder: Path,
    model: Grafted,
    record: VersionRecord,
    parent: Path,
    extra: Mapping[str, str] | None = None,
    folders: Mapping[str, Path] | None = None,
) -> VersionRecord:
    """Write a version folder; tokenizer files come from the parent version, `extra` are further text files by name, `folders` are folders
    of files that are copied, by name. Appears whole or not at all."""
    config = AutoConfig.from_pretrained(parent)
    config.memory = {"spec": model.memory_spec.model_dump(mode="json"), "experts": model.memory_state.names()}
    tensors = expert_tensors(model.memory_layers, written_experts(model.memory_state))
    return _write(folder, config, tensors, record, parent, extra or {}, folders or {})


def beginning_token(tokenizer: PreTrainedTokenizerBase) -> int:
    """The token that a text written from nothing begins with: the beginning of a sequence, or the end where there is none."""
    return tokenizer.eos_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id


def served_dtype(folder: Path) -> torch.dtype:
    """What a version is served in, hence what every worker that takes its deliveries holds."""
    return getattr(torch, json.loads((folder / CONFIG_FILE).read_text())["dtype"])


def _write(
    folder: Path,
    config: PretrainedConfig,
    tensors: dict[str, torch.Tensor],
    record: VersionRecord,
    source: Path,
    extra: Mapping[str, str],
    folders: Mapping[str, Path],
) -> VersionRecord:
    record = record.model_copy(update={"memory_sha256": checksum(tensors)})
    config.memory = {**config.memory, "base": record.base.model_dump(), "version": record.id}
    for left in folder.parent.glob(f".{folder.name}.tmp-*"):  # of a process that was killed, or deposed and finds nothing to rename
        shutil.rmtree(left, ignore_errors=True)
    staging = folder.with_name(f".{folder.name}.tmp-{uuid.uuid4().hex}")  # machines that share the disk may have equal process ids
    staging.mkdir(parents=True)
    config.save_pretrained(staging)
    copy_tokenizer(source, staging)
    for name, text in extra.items():
        (staging / name).write_text(text)
    for name, copied in folders.items():
        shutil.copytree(copied, staging / name, dirs_exist_ok=True)
    beside = [
        *extra,
        *(str(path.relative_to(staging)) for name in folders for path in (staging / name).rglob("*") if path.is_file()),
    ]
    record = record.model_copy(update={"files": {name: sha256(staging / name) for name in sorted(beside)}})
    save_file(tensors, staging / MEMORY_FILE)
    (staging / RECORD_FILE).write_text(record.model_dump_json(indent=2) + "\n")
    for path in (*staging.rglob("*"), staging):
        to_disk(path)
    staging.rename(folder)
    to_disk(folder.parent)
    return record
