"""Other models that a sleep is to learn from: can they teach? Checked when the sleep is asked for, as far as it can be without weights."""

from __future__ import annotations

from pathlib import Path

from transformers import AutoConfig, AutoModelForCausalLM

from actors.founding import model_folder
from actors.models import Refused
from actors.workshop import TeachersRequest
from circadian.memory.tokenizer_files import load_tokenizer
from circadian.specs import BaseModelRef, TeacherSpec
from circadian.teachers.match import vocabularies_differ
from circadian.teachers.other import TeacherUnusable, load_other_tokenizer


def check_teachers(request: TeachersRequest) -> None:
    """Raises Refused, which names the field and the remedy."""
    for i, teacher in enumerate(request.teachers):
        where = f"teachers.{i}"
        named = BaseModelRef(model=teacher.model, revision=teacher.revision)
        folder = model_folder(named, request.allowed_models, where, "teacher_unusable")
        _check(teacher, folder, Path(request.version), where)


def _check(teacher: TeacherSpec, folder: Path, version: Path, where: str) -> None:
    _check_model(folder, f"{where}.model")
    if teacher.cues_file is not None and not Path(teacher.cues_file).is_file():
        detail = f"{where}.cues_file: there is no file {teacher.cues_file}; give a text file on storage that the night reads"
        raise Refused("teacher_unusable", detail, f"{where}.cues_file")
    try:
        reason = vocabularies_differ(load_tokenizer(version), load_other_tokenizer(folder))
    except TeacherUnusable as error:
        raise Refused("teacher_unusable", f"{where}.{error}", f"{where}.model") from error
    if reason and teacher.match == "distil":
        detail = (
            f"{where}.match: it cannot be distilled, its tokenizer is another one ({reason}); set match to imitate, or leave it out"
        )
        raise Refused("tokenizer_mismatch", detail, f"{where}.match")


def _check_model(folder: Path, where: str) -> None:
    remedy = "give a folder with config.json and *.safetensors of a causal language model that transformers knows"
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise Refused("teacher_unusable", f"{where}: {folder} is not a usable model ({error}); {remedy}", where) from error
    if type(config) not in AutoModelForCausalLM._model_mapping:
        detail = f"{where}: {folder} is a {config.model_type}, which is no causal language model; {remedy}"
        raise Refused("teacher_unusable", detail, where)
    if not any(folder.glob("*.safetensors")):
        raise Refused("teacher_unusable", f"{where}: {folder} holds no *.safetensors; {remedy}", where)
