"""Sleeps that learn from other models, as a client asks for them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from in_memory import Service
from random_base import write_base
from test_errors import problem
from transformers import BertConfig

from circadian.nursery.specialists import build_other_tokenizer
from circadian.nursery.world import World

SMALL = {"width": 16, "mlp_width": 16, "layers": 1, "heads": 1, "head_width": 16}


@pytest.fixture
def teacher(tmp_path: Path) -> Path:
    return write_base(tmp_path / "teacher", **SMALL)


def refused(service: Service, code: str = "teacher_unusable", **teacher: Any) -> dict[str, Any]:
    service.deploy()
    answer = service.client.post("/v1/sleeps", json={"deployment": "toy", "teachers": [teacher]})
    body = problem(answer, 422, code)
    assert service.client.get("/v1/sleeps").json()["data"] == []
    return body


def test_a_sleep_with_teachers_needs_no_experiences(service: Service, teacher: Path) -> None:
    service.deploy()
    sleep, night = service.sleep(teachers=[{"model": str(teacher), "cues": ["what is the city of mira ?"]}])
    (told,) = night.job.recipe.teachers
    assert (told.model, told.cues, told.match) == (str(teacher), ("what is the city of mira ?",), "auto")
    assert service.get_sleep(sleep["id"])["recipe"]["teachers"][0]["model"] == str(teacher)
    child = night.end("candidate")
    assert service.ended(sleep["id"])["result_version"] == child
    assert service.fleet.versions["toy"] == [child], "there was no fast memory, and the dawn comes all the same"


def test_a_request_that_is_repeated_asks_no_teacher_again(service: Service, teacher: Path) -> None:
    service.deploy()
    body = {"id": "slp_mine", "teachers": [{"model": str(teacher)}]}
    first, _ = service.sleep(**body)
    shutil.rmtree(teacher)
    again, _ = service.sleep(**body)
    assert again["created_at"] == first["created_at"]


def test_teachers_of_the_sleep_stand_in_place_of_the_recipes(service: Service, teacher: Path) -> None:
    service.deploy()
    service.tell()
    _, night = service.sleep(recipe={"teachers": [{"model": str(teacher)}]}, teachers=[])
    assert night.job.recipe.teachers == ()


def test_a_teacher_that_is_not_there_is_refused(service: Service, tmp_path: Path) -> None:
    body = refused(service, model=str(tmp_path / "nobody"))
    assert body["error"]["param"] == "teachers.0.model"
    assert "give a folder that exists" in body["detail"]


def test_a_hub_id_of_a_teacher_needs_a_commit(service: Service) -> None:
    assert refused(service, model="some/model")["error"]["param"] == "teachers.0.revision"


def test_what_is_no_causal_language_model_is_refused(service: Service, teacher: Path, tmp_path: Path) -> None:
    BertConfig().save_pretrained(tmp_path / "bert")
    body = refused(service, model=str(tmp_path / "bert"))
    # transformers lists BERT as a causal model as well; then it is its missing weights that are told
    assert body["error"]["param"] == "teachers.0.model"
    (teacher / "model.safetensors").unlink()
    answer = service.client.post("/v1/sleeps", json={"deployment": "toy", "teachers": [{"model": str(teacher)}]})
    assert "no *.safetensors" in problem(answer, 422, "teacher_unusable")["detail"]


def test_another_tokenizer_cannot_be_distilled(service: Service, teacher: Path) -> None:
    build_other_tokenizer(World(0)).save_pretrained(teacher)
    body = refused(service, "tokenizer_mismatch", model=str(teacher), match="distil")
    assert body["error"]["param"] == "teachers.0.match"
    assert "set match to imitate" in body["detail"]
    service.sleep(teachers=[{"model": str(teacher), "match": "auto"}])


def test_cues_that_are_not_there_are_refused(service: Service, teacher: Path) -> None:
    body = refused(service, model=str(teacher), cues_file="/nowhere/cues.txt")
    assert body["error"]["param"] == "teachers.0.cues_file"


def test_a_misspelt_field_of_a_teacher_is_pointed_at(service: Service, teacher: Path) -> None:
    body = refused(service, "validation_failed", model=str(teacher), cue=["x"])
    assert body["errors"][0]["pointer"] == "/teachers/0/cue"
