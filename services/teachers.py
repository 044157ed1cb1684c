"""Other models that a sleep is to learn from: can they teach? Checked when the sleep is asked for, as far as it can be without weights."""

from __future__ import annotations

from pathlib import Path

from transformers import AutoConfig, AutoModelForCausalLM

from circadian.memory.version import load_tokenizer
from circadian.specs import BaseModelRef, Recipe, TeacherSpec
from circadian.teachers.match import vocabularies_differ
from circadian.teachers.other import TeacherUnusable, load_other_tokenizer
from services.errors import Problem
from services.founding import model_folder
from services.outside import check_recipe
from services.settings import Settings
from services.tables import Deployment


def check_teachers_of(settings: Settings, deployment: Deployment, recipe: Recipe) -> None:
    """Those that a sleep of this recipe would have now, after what the operator allows. Raises Problem (422), which names the field and
    the remedy."""
    check_recipe(settings, recipe)
    version = settings.version_folder(deployment.id, deployment.active_version)
    for i, teacher in enumerate(recipe.teachers):
        _check(teacher, version, f"teachers.{i}")


def _check(teacher: TeacherSpec, version: Path, where: str) -> None:
    folder = model_folder(BaseModelRef(model=teacher.model, revision=teacher.revision), where, "teacher_unusable")
    _check_model(folder, f"{where}.model")
    if teacher.cues_file is not None and not Path(teacher.cues_file).is_file():
        detail = f"{where}.cues_file: there is no file {teacher.cues_file}; give a text file on storage that the night reads"
        raise Problem(422, "teacher_unusable", detail, param=f"{where}.cues_file")
    try:
        reason = vocabularies_differ(load_tokenizer(version), load_other_tokenizer(folder))
    except TeacherUnusable as error:
        raise Problem(422, "teacher_unusable", f"{where}.{error}", param=f"{where}.model") from error
    if reason and teacher.match == "distil":
        detail = (
            f"{where}.match: it cannot be distilled, its tokenizer is another one ({reason}); set match to imitate, or leave it out"
        )
        raise Problem(422, "tokenizer_mismatch", detail, param=f"{where}.match")


def _check_model(folder: Path, where: str) -> None:
    remedy = "give a folder with config.json and *.safetensors of a causal language model that transformers knows"
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise Problem(
            422, "teacher_unusable", f"{where}: {folder} is not a usable model ({error}); {remedy}", param=where
        ) from error
    if type(config) not in AutoModelForCausalLM._model_mapping:
        detail = f"{where}: {folder} is a {config.model_type}, which is no causal language model; {remedy}"
        raise Problem(422, "teacher_unusable", detail, param=where)
    if not any(folder.glob("*.safetensors")):
        raise Problem(422, "teacher_unusable", f"{where}: {folder} holds no *.safetensors; {remedy}", param=where)
