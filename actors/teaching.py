"""Another model gives its lecture: a Ray task that holds it for that long, in the learner's place, which is free then.

Plain Hugging Face generation, because a teacher may be of any architecture, is asked once, and should not need an engine of its own beside
those of the night.
"""

from __future__ import annotations

from pathlib import Path

import ray

from actors import names
from circadian.experience import Reader
from circadian.memory.tokenizer_files import load_tokenizer
from circadian.memory.version import weights_sha256
from circadian.specs import LearnerSpec, SeedingSpec, Spec, TeacherSpec
from circadian.teachers.lecture import Audience, Lecture, lecture
from circadian.teachers.other import TeacherUnusable, load_other, load_other_tokenizer


class LectureRequest(Spec):
    """What one teacher is asked for."""

    name: str
    """As its rows name it."""
    folder: str
    """The model, on storage that the task reads."""
    teacher: TeacherSpec
    """With all its cues in `cues`."""
    version: str
    """Folder of the version whose tokenizer the student has."""
    held_out: tuple[str, ...] = ()
    longest: int
    """Tokens of a cue that leave room for its completion."""
    rows: int
    seeding: SeedingSpec
    seed: int


def hold(request: LectureRequest, learner: LearnerSpec) -> tuple[Lecture, str]:
    """The lecture, and the SHA-256 of the weights that gave it. Raises TeacherUnusable."""
    task = ray.remote(give_in_process).options(
        num_cpus=learner.cpus_per_worker,
        num_gpus=learner.gpus_per_worker,
        resources=names.role("learner"),
        max_retries=learner.max_failures,
        runtime_env={"env_vars": names.learner_environment()},
    )
    under_way = task.remote(request.model_dump_json(), bool(learner.gpus_per_worker))
    try:
        given = ray.get(under_way, timeout=learner.stage_seconds)
    except ray.exceptions.GetTimeoutError:
        ray.cancel(under_way, force=True)
        raise
    if isinstance(given, str):
        raise TeacherUnusable(given)
    return given


def give_in_process(request_json: str, on_gpu: bool) -> tuple[Lecture, str] | str:
    """The same in the process that is called; why a teacher is unusable comes back as text, which a restart would not change."""
    try:
        return give(LectureRequest.model_validate_json(request_json), on_gpu)
    except TeacherUnusable as error:
        return str(error)


def give(request: LectureRequest, on_gpu: bool = False) -> tuple[Lecture, str]:
    """Load the model, let it write. Raises TeacherUnusable."""
    import torch  # seconds to import, and the driver needs only `hold`

    folder = Path(request.folder)
    model = load_other(folder, "auto" if on_gpu else torch.float32, torch.device("cuda" if on_gpu else "cpu"))
    audience = Audience(Reader(load_tokenizer(Path(request.version)), request.held_out), request.longest)
    return (
        lecture(
            model,
            load_other_tokenizer(folder),
            audience,
            request.name,
            request.teacher,
            request.seeding,
            request.rows,
            request.seed,
        ),
        weights_sha256(folder),
    )
