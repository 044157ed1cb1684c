"""The workshop: what looks into models, and so needs torch and transformers, done on a node that has them for a service that has not.

    found            a deployment's first version, of a base model          founding.py
    check_teachers   whether other models can teach                         teacher_checks.py

Each is a Ray task that asks for no CPU: it works for seconds, and would otherwise wait for a night that holds them all. It is placed where
work is done: on a node of the role `wake`, or, where nodes have no roles, on one that offers CPUs; a controller's own node offers none.
What comes back is JSON, a refusal too: an exception could be of a class that whoever asked cannot import. Tasks whose node or process dies
are begun again by Ray, so each may be done twice.
"""

from __future__ import annotations

import random
from typing import Any

import ray
from ray import ObjectRef
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from actors import names
from actors.models import Refusal, Refused
from circadian.specs import BaseModelRef, MemorySpec, Spec, TeacherSpec, VersionRecord

FOUND, TEACHERS = "found", "check_teachers"
RETRIES = 2
"""Of a task whose node or process died."""
WORKS = "wake"
"""The role of the nodes that do it."""


class NoWorkplace(Exception):
    """The cluster has no node that does such work."""


class FoundRequest(Spec):
    """A deployment's first version."""

    base: BaseModelRef
    memory: MemorySpec
    folder: str
    """Where the version is to be, on storage that all nodes and the controllers share."""
    allowed_models: tuple[str, ...] = ()
    """Patterns, of which one must fit; none: every model may be loaded."""


class TeachersRequest(Spec):
    """Models that are to teach a version."""

    version: str
    """Its folder."""
    teachers: tuple[TeacherSpec, ...]
    allowed_models: tuple[str, ...] = ()


Request = FoundRequest | TeachersRequest


class Answer(Spec):
    """What came of a request: a version, a refusal, or neither, where there was nothing to object to."""

    record: VersionRecord | None = None
    refusal: Refusal | None = None


def work(request: Request) -> Answer:
    """Do it here."""
    try:
        if isinstance(request, FoundRequest):
            from actors.founding import found  # transformers, which whoever asks for it has not

            return Answer(record=found(request))
        from actors.teacher_checks import check_teachers

        check_teachers(request)
        return Answer()
    except Refused as refused:
        return Answer(refusal=refused.refusal)


def work_ref(request: Request) -> ObjectRef[str]:
    """Have it done on a node; an Answer as JSON comes of it. Raises NoWorkplace."""
    kind = FOUND if isinstance(request, FoundRequest) else TEACHERS
    task = ray.remote(_task).options(name=f"workshop/{kind}", num_cpus=0, max_retries=RETRIES, **_place())
    return task.remote(kind, request.model_dump_json())


def _task(kind: str, request: str) -> str:
    asked = FoundRequest if kind == FOUND else TeachersRequest
    return work(asked.model_validate_json(request)).model_dump_json()


def _place() -> dict[str, Any]:
    if role := names.role(WORKS):
        return {"resources": role}
    places = [node["NodeID"] for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU", 0.0) > 0.0]
    if not places:
        raise NoWorkplace("no node of the Ray cluster offers CPUs; start one that has torch and transformers")
    return {"scheduling_strategy": NodeAffinitySchedulingStrategy(random.choice(places), soft=False)}
