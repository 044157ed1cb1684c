"""Other models as teachers: what they say is written down before anything is learned, so that one who cannot teach ends the night early.

    lectures   every teacher completes its cues (or writes from nothing), in a process of its own, one after the other
    then       one more transfer, after the day's own: a fresh expert of the slowest level learns from them, and from the rested self that
               keeps what was known (consolidation.py)

The slowest level, because nothing moves on from there: what another model knows is no matter of the day.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

from actors.learn_request import OtherModel
from actors.teaching import LectureRequest, hold
from circadian.experience import Tokens
from circadian.memory.cues import Cue
from circadian.memory.version import base_folder
from circadian.objectives.rows import write_rows
from circadian.specs import BaseModelRef, LearnerSpec, NightJob, TeacherSpec
from circadian.teachers.lecture import Lecture
from circadian.teachers.other import TeacherUnusable
from pipelines.stages import Outputs, read_lines, write_lines
from pipelines.wake import Bounds

ROWS, CUES, SURE = "lectures.jsonl", "lectures.cues.jsonl", "lectures.sure.jsonl"
Hold = Callable[[LectureRequest, LearnerSpec], tuple[Lecture, str]]


def taught_in(sleep: str) -> str:
    """What a sleep's other teachers taught, as `lineage` and the cue store name it: apart from its day, which may move on without it."""
    return f"{sleep}+teachers"


def lectures(job: NightJob, give: Hold = hold) -> Outputs:
    """What every teacher says. Raises TeacherUnusable, which names the teacher's field."""
    home, teachers = Path(job.home), job.recipe.teachers
    held = [_lecture(job, number, give) for number in range(1, len(teachers) + 1)]
    others = [other for other, _ in held]
    write_rows(home / ROWS, [row for _, given in held for row in given.rows])
    lines = [{"ids": ids, "kind": "day", "teacher": other.name} for other, given in held for ids in given.cues]
    write_lines(home / CUES, lines)
    asked = [(other.name, ids, given.sure.get(ids)) for other, given in held for ids in given.asked]
    write_lines(home / SURE, [{"teacher": name, "ids": ids, "said": said} for name, ids, said in asked])
    return {
        "rows_file": ROWS,
        "cues_file": CUES,
        "sure_file": SURE,
        "others": [other.model_dump() for other in others],
        "told": {other.name: _told(spec, given) for spec, (other, given) in zip(teachers, held, strict=True)},
    }


def sure_of(job: NightJob, said: Outputs) -> dict[str, dict[Tokens, Tokens]]:
    """Of every teacher the cues of which it is sure, and how it completes them."""
    sure: dict[str, dict[Tokens, Tokens]] = {other["name"]: {} for other in said["others"]}
    for line in read_lines(Path(job.home) / said["sure_file"]):
        if line["said"]:
            sure[line["teacher"]][tuple(line["ids"])] = tuple(line["said"])
    return sure


def asked_of(job: NightJob, said: Outputs) -> list[Cue]:
    """The cues of all teachers, for later nights to keep. They are an operator's questions and hold no answer."""
    lines = read_lines(Path(job.home) / said["sure_file"])
    return list(dict.fromkeys(Cue(tuple(line["ids"]), taught_in(job.sleep), True) for line in lines))


def _lecture(job: NightJob, number: int, give: Hold) -> tuple[OtherModel, Lecture]:
    spec, name = job.recipe.teachers[number - 1], f"other-{number}"
    whole = sum(teacher.share for teacher in job.recipe.teachers)
    try:
        folder = _folder(spec)
        request = LectureRequest(
            name=name,
            folder=str(folder),
            teacher=spec.model_copy(update={"cues": (*spec.cues, *_cues(spec))}),
            version=str(Path(job.parent).resolve()),
            held_out=job.held_out,
            longest=Bounds.of(job).cue,
            rows=max(1, round(job.recipe.seeding.teacher_rows * spec.share / whole)),
            seeding=job.recipe.seeding,
            seed=job.seed,
        )
        given, sha256 = give(request, job.recipe.learner)
    except TeacherUnusable as error:
        raise TeacherUnusable(f"teachers.{number - 1}.{error}") from error
    return OtherModel(name=name, folder=str(folder), sha256=sha256, match=given.match), given


def _folder(spec: TeacherSpec) -> Path:
    try:
        return base_folder(BaseModelRef(model=spec.model, revision=spec.revision))
    except (OSError, HFValidationError, HfHubHTTPError, LocalEntryNotFoundError) as error:
        remedy = "give a folder that every machine of the night reads, or a hub id and its commit"
        raise TeacherUnusable(f"model: {spec.model} is not there ({error}); {remedy}") from error


def _cues(spec: TeacherSpec) -> list[str]:
    """Those of the file, one a line."""
    if spec.cues_file is None:
        return []
    try:
        cues = [line.strip() for line in Path(spec.cues_file).read_text().splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        remedy = "give a text file on storage that the night reads"
        raise TeacherUnusable(f"cues_file: {spec.cues_file} cannot be read ({error}); {remedy}") from error
    if not cues:
        raise TeacherUnusable(f"cues_file: {spec.cues_file} holds no cue; put one a line there, or leave it out")
    return cues


def _told(spec: TeacherSpec, given: Lecture) -> Outputs:
    """For the report."""
    return {
        "model": spec.model,
        "revision": spec.revision,
        "match": given.match,
        "why": given.why,
        "rows": len(given.rows),
        "cues": len(given.asked),
        "sure": len(given.sure),
        "dropped": given.dropped,
    }
