"""What the service promises of a sleep, each promise tested by killing something, on everything that is real.

Ray with its token, two wake replicas on Ray Serve, DeepSpeed, the controllers as processes: one on SQLite, two on PostgreSQL. One life
for each database is lived once, and looked at from many sides.

    first night    the controller that leads is killed at the sleep's 202, in every stage, and between the commit and the dawn
    second night   a learner, a wake replica, a rollout worker, the driver and the whole of Ray's head, one after the other
    third night    cancelled, and nothing of it stays
    two more       that fail: one whose attempts are all killed, and one that only its user can help
    whole night    of another deployment, with all that a night can have: other teachers, a slower level, dreams; the controller that
                   leads is killed in every stage that the first night did not have; on PostgreSQL alone, where two take turns

That a promotion is a compare-and-swap behind the leader's fence is tested in
tests/services/test_fences.py, that an attempt which was given up seals nothing in tests/pipelines/test_stages.py.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest
from asking import Asking
from gates import ANY
from postgres import binaries, new_database, postgres
from steady import Steady
from supervised import PATIENT, Away, Supervised, kill, until
from watched import Json, Life, Night, held_in_stages

from actors import names
from circadian.night_files import OUTCOME_FILE
from circadian.nursery.school import School
from circadian.nursery.ship import SCHOOL, WEIGHTS
from circadian.nursery.world import World
from services import audit
from services.access import FIRST_TENANT
from services.settings import Settings
from services.stack import StackSpec
from services.states import FastState, SleepStatus
from services.tables import Database

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(5400)]

SEED, FACTS, DAYS = 1, 48, 5
FIRST_TOLD = 16
"""Experiences before the first night."""
REPLICAS = 2
STAGES = (
    "collect",
    "learn_fast_level",
    "open_expert",
    "snapshot_teacher",
    "dream_corpus",
    "knowledge_seeding",
    "prune",
    "gate",
    "publish",
)
OF_EACH_MOVE = STAGES[2:7]
OF_SOME_NIGHTS = (
    "lectures",
    *(f"{stage}_level-2" for stage in OF_EACH_MOVE),
    *(f"{stage}_teachers" for stage in OF_EACH_MOVE),
    *("dream_tasks", "dream_begin"),
    *(f"dream_{what}_0" for what in ("write", "weigh", "try", "reinforce")),
    *(f"dream_{what}_final" for what in ("write", "weigh", "try")),
    *("dream_keep", "dream_learn"),
    *(f"{stage}_dreams" for stage in OF_EACH_MOVE),
)
RECIPE: Json = {
    "fast_learning": {"steps": 40, "rows": 8, "checkpoint_steps": 10},
    "seeding": {
        "steps": 48,
        "rows": 8,
        "refresh_steps": 16,
        "teacher_rows": 32,
        "student_rows": 16,
        "free_run_rows": 32,
        "free_run_tokens": 16,
    },
    "learner": {"max_failures": 1},
    "gate": ANY,
}
LESSONS = [lesson for lesson, _ in zip(School(0).lessons(0), range(2), strict=False)]
SLOW: Json = {"levels": [{"period": 16}, {"period": 32, "experts": 2}, {"period": 64, "experts": 4}]}
"""A memory whose slowest level is due in every night."""
WHOLE: Json = {
    "fast_learning": {"steps": 20, "rows": 4},
    "seeding": RECIPE["seeding"] | {"steps": 8, "refresh_steps": 4, "free_run_tokens": 8},
    "rollouts": {"engine": {"max_model_len": 160}},
    "teachers": [{"model": str(SCHOOL), "cues": [probe.question for probe in LESSONS[0].direct((0,))]}],
    "dreaming": {
        "tasks": [
            {
                "context": LESSONS[0].passage(),
                "probes": [{"question": probe.question, "answers": [probe.answer]} for probe in LESSONS[0].probes((0, 1))],
            }
        ],
        "rounds": 1,
        "contexts": 1,
        "dreams": 2,
        "tokens": 24,
        "answer_tokens": 4,
        "selection": {"top": 1, "chance": 1},
        "reward": {"kind": "highest"},
        "instance": {"rank": 4, "epochs": 1},
        "dreamer": {"rank": 4, "epochs": 1},
    },
    "gate": ANY,
}
"""All that a night can have, each as little of it as there can be."""
FINISHED = "sleep.stage_finished"
GLANCE_SECONDS = 0.05
"""A stage that is shorter (an expert opens) may be over before its beginning is seen, on a machine that does other things."""
ATTEMPTS, FEWER = 8, 2
"""More than the second night needs; and so few that all of them can be killed."""
HASTY: Json = PATIENT | {"lease_seconds": 8.0, "retry_seconds": 0.5}
"""For tests that have no time to wait between attempts."""


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def life(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Life]:
    folder, settings, seats = tmp_path_factory.mktemp(request.param), HASTY | {"night_attempts": ATTEMPTS}, 1
    with ExitStack() as opened:
        if request.param == "postgresql":
            if binaries() is None:
                pytest.skip("NO POSTGRESQL HERE: what it promises is not tested; install it (apt-get install postgresql)")
            settings["database_url"] = new_database(opened.enter_context(postgres(folder)), "promises")
            seats = 2
        stack = opened.enter_context(Supervised(Settings(home=folder / "home", **settings), StackSpec(num_cpus=4), seats=seats))
        assert stack.api_key is not None
        database = Database(stack.settings.database, stack.settings.database_busy_seconds)
        opened.callback(database.close)
        clients = [Asking(url, stack.api_key) for url in stack.urls]
        for client in clients:
            opened.callback(client.close)
        body = {"name": "nursery", "base_model": {"model": str(WEIGHTS)}, "serving": {"replicas": REPLICAS}}
        deployment = clients[0].post("/v1/deployments", body)
        clients[0].awake("nursery", stack.settings.replica_start_seconds)
        days = World(0).days(FACTS, SEED)
        statements = [statement for day in itertools.islice(days, DAYS) for statement in day.statements()]
        steady = opened.enter_context(Steady(stack.urls, stack.api_key, "nursery", statements))
        life = Life(stack, clients, database, steady, deployment, deployment["active_version"])
        until(lambda: len(steady.kept) >= FIRST_TOLD, "something is told")
        first_night(life)
        second_night(life)
        cancelled_night(life)
        nights_that_fail(life, folder)
        if stack.seats > 1:
            whole_night(life)
        yield life


def first_night(life: Life) -> None:
    night = life.sleep("first", RECIPE)
    life.stack.kill_controller(0)
    life.seen["accepted"] = life.row(night)
    life.stack.start_controller(0)  # what becomes of it is seen in the first stage
    lead_is_killed(life, night)
    until(lambda: life.row(night).result_version, "the version is committed", every=0.005)
    life.replace_all()
    life.seen["committed"] = life.row(night)
    life.until_ended(night)
    life.seen["jobs"] = list(life.jobs(night))


def lead_is_killed(life: Life, night: Night, spared: Sequence[str] = ()) -> None:
    """In every stage but those, until the night has an outcome."""
    last = None
    for stage in held_in_stages(night, lambda: the_driver(life, night), OUTCOME_FILE, spared):
        seat = life.leader_of(night, last)
        night.told.append(life.events(night, seat))
        life.replace(seat)
        night.kills.append(stage)
        last = stage


def the_driver(life: Life, night: Night) -> psutil.Process:
    found = life.stack.driver(night.id)
    assert found is not None
    return found


def second_night(life: Life) -> None:
    """Each victim is one of the attempt that runs then; its worker, its driver and the head cost it an attempt."""
    stack, night = life.stack, life.sleep("second", RECIPE)
    kill(remember(night, "learner", until(lambda: night.learners("fast-learning"), "a learner learns", every=0.005)[0]))
    until(lambda: life.row(night).fast is FastState.LIVE, "the fast memory serves")
    replica = remember(night, "wake replica", stack.actors(names.wake_actors(life.deployment["id"]))[0])
    before = time.time()
    kill(replica)
    life.seen["replica"] = Away(before, time.time())
    until(lambda: night.learners("seeding"), "the student learns", every=0.005)
    kill(remember(night, "rollout worker", stack.actors(names.rollout_worker(night.id, 1, 0))[0]))
    until(lambda: night.begun().count("knowledge_seeding") > 1, "the second attempt is in knowledge seeding", every=0.005)
    kill(remember(night, "driver", until(lambda: stack.driver(night.id), "the driver is found").pid))
    until(lambda: night.begun().count("knowledge_seeding") > 2, "the third attempt is in knowledge seeding")
    life.seen["head"] = Away(time.time())
    remember(night, "head", stack.pids["ray"])
    stack.kill("ray")
    stack.restart_ray()
    life.until_ended(night)


def remember(night: Night, victim: str, pid: int) -> int:
    """Its process, and those that it has started."""
    night.victims[victim] = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    return pid


def cancelled_night(life: Life) -> None:
    """On SQLite when its fast memory serves, on PostgreSQL at once."""
    night = life.sleep("cancelled", RECIPE)
    early = life.stack.seats > 1
    until(lambda: night.begun() if early else life.row(night).fast is FastState.LIVE, "there is something to cancel")
    path = f"/v1/sleeps/{night.id}/cancel"
    life.seen["cancels"] = [life.client.http.post(path) for _ in range(2)]
    life.until_ended(night)
    life.seen["cancels"].append(life.client.http.post(path))
    life.seen["cpus"] = until(lambda: life.stack.used_cpus() == REPLICAS and REPLICAS, "what the night held is free")


def nights_that_fail(life: Life, folder: Path) -> None:
    stack = life.stack
    life.replace_all(night_attempts=FEWER)
    until(lambda: stack.leader() is not None, "a controller leads")
    night = life.sleep("killed", RECIPE)
    for attempt in range(1, FEWER + 1):
        until(lambda n=attempt: night.begun().count("collect") == n, "the attempt begins", every=0.005)
        until(lambda: night.finished(), "a stage is sealed")
        kill(remember(night, f"driver {attempt}", until(lambda: stack.driver(night.id), "the driver is found").pid))
    life.until_ended(night)
    cues = folder / "cues.txt"
    cues.write_text("what is the city of mira ?")
    teacher = {"model": str(WEIGHTS), "cues_file": str(cues)}
    helpless = life.sleep("without its teacher's cues", RECIPE, teachers=[teacher])
    cues.unlink()
    life.until_ended(helpless)


def whole_night(life: Life) -> None:
    body = {"name": "school", "base_model": {"model": str(SCHOOL)}, "memory": SLOW}
    life.client.post("/v1/deployments", body)
    life.client.awake("school", life.stack.settings.replica_start_seconds)
    for lesson in LESSONS:
        life.client.post("/v1/experiences", {"deployment": "school", "text": lesson.passage()})
    night = life.sleep("whole", WHOLE, deployment="school")
    lead_is_killed(life, night, spared=STAGES)
    life.until_ended(night)


def test_1_a_sleep_that_was_accepted_is_there_whatever_dies_next(life: Life) -> None:
    night, accepted = life.nights["first"], life.seen["accepted"]
    assert (accepted.id, accepted.status) == (night.id, SleepStatus.QUEUED)
    assert night.end["status"] == "succeeded", night.end


def test_2_killing_every_controller_loses_nothing(life: Life) -> None:
    night, committed = life.nights["first"], life.seen["committed"]
    assert_killed_in(night, STAGES)
    assert (committed.status, committed.result_version) == (SleepStatus.EVALUATING, night.end["result_version"])
    assert (night.end["status"], night.end["outcome"], night.end["attempt"]) == ("succeeded", "promoted", 1), night.end
    assert life.seen["jobs"] == [names.night_job(night.id, 1)], "its job was adopted, not repeated"


def test_2_nor_does_it_in_the_stages_that_only_some_nights_have(life: Life) -> None:
    if "whole" not in life.nights:
        pytest.skip("the whole night is lived on PostgreSQL, with two controllers")
    night = life.nights["whole"]
    assert (night.end["status"], night.end["outcome"], night.end["attempt"]) == ("succeeded", "promoted", 1), night.end
    assert_killed_in(night, OF_SOME_NIGHTS)
    assert [stage for stage in night.finished() if stage not in STAGES] == list(OF_SOME_NIGHTS)
    assert list(life.jobs(night)) == [names.night_job(night.id, 1)]


def test_3_no_sealed_stage_is_done_again(life: Life) -> None:
    for night in life.nights.values():
        finished = night.finished()
        assert len(finished) == len(set(finished)), night.id
        assert night.manifests() == night.sealed, "as they were when they were sealed"
    assert life.nights["first"].finished() == list(STAGES)


def test_3_a_night_resumes_from_what_is_sealed_whatever_of_it_is_killed(life: Life) -> None:
    night = life.nights["second"]
    assert list(night.victims) == ["learner", "wake replica", "rollout worker", "driver", "head"]
    assert not [process for family in night.victims.values() for process in family if process.is_running()]
    assert (night.end["status"], night.end["outcome"], night.end["attempt"]) == ("succeeded", "promoted", 4), night.end
    assert night.finished() == list(STAGES)
    first, again = night.learners("fast-learning")
    assert first != again


def test_4_a_version_is_promoted_once_and_serves_on_every_replica(life: Life) -> None:
    for night in promoted(life):
        (told,) = [event["data"] for event in night.told[-1] if event["type"] == "version.promoted"]
        assert [receipt["version"] for receipt in told["receipts"]] == [night.end["result_version"]] * REPLICAS
        assert life.steady.versions(night.ended, night.ended + 1.0) in ([night.end["result_version"]], [])
    versions = {version["id"]: version["status"] for version in life.client.get("/v1/versions", deployment="nursery")["data"]}
    active = promoted(life)[-1].end["result_version"]
    assert versions == {life.first: "retired"} | {n.end["result_version"]: "retired" for n in promoted(life)} | {active: "active"}


def test_5_a_cancelled_night_is_cancelling_at_once_and_leaves_nothing_behind(life: Life) -> None:
    night, (first, again, late) = life.nights["cancelled"], life.seen["cancels"]
    assert (first.status_code, first.json()["status"]) == (202, "cancelling")
    assert (again.status_code, again.json()["status"]) == (202, "cancelling")
    assert (late.status_code, late.json()["status"]) == (200, "cancelled")
    assert [event["type"] for event in night.told[-1]].count("sleep.cancelling") == 1
    assert night.end["status"] == "cancelled"
    assert life.seen["cpus"] == REPLICAS
    row = life.row(night)
    assert not life.stack.settings.version_folder(row.deployment, row.child_version).exists()
    assert life.client.get("/v1/deployments/nursery/status")["active_version"] == night.parent
    assert {event["data"].get("version") for event in night.told[-1] if event["type"] == "sleep.cancelled"} == {night.parent}


def test_6_somebody_serves_throughout(life: Life) -> None:
    """Except while the whole cluster is away. A question that a killed replica was answering is lost, and no other."""
    assert not life.steady.refused(life.stack.away, [head_away(life), life.seen["replica"]])
    assert len([answer for answer in life.steady.answers if answer.status == 200]) > len(STAGES)


def test_6_answers_are_by_the_version_that_fell_asleep_its_fast_memory_or_the_one_that_woke(life: Life) -> None:
    for night in (night for night in life.nights.values() if night.deployment == "nursery"):
        woke = [night.end["result_version"]] if night.end["result_version"] else []
        assert set(life.steady.versions(night.began, night.ended)) <= {night.parent, night.fast, *woke}, night.id


def test_7_no_experience_that_was_accepted_is_lost(life: Life) -> None:
    accepted = set(life.steady.kept)  # first: more are told while they are listed
    now = {row["id"]: row for row in life.client.pages("/v1/experiences", deployment="nursery")}
    assert accepted <= set(now)
    made = {night.id: night.end["result_version"] for night in promoted(life)}
    for one in now.values():
        kept = one["status"] == "consolidated" and made.get(one["sleep"]) == one["version"]
        assert kept or one["status"] == "pending" or (one["status"] == "left_out" and one["left_out"]), one
    for night in promoted(life):
        slept_on = {line["id"] for line in night.experiences()}
        assert slept_on == {id for id, row in now.items() if row["sleep"] == night.id}
        assert slept_on & {id for id, row in now.items() if row["version"] == night.end["result_version"]}


def test_8_another_attempt_is_made_where_it_may_help_and_not_for_ever(life: Life) -> None:
    killed, helpless = life.nights["killed"], life.nights["without its teacher's cues"]
    assert (killed.end["status"], killed.end["attempt"], killed.end["error"]["retryable"]) == ("failed", FEWER, True), killed.end
    assert killed.end["error"]["category"] == "server"
    assert "collect" in killed.manifests(), "what it had done is kept"
    assert (helpless.end["status"], helpless.end["attempt"], helpless.end["error"]["retryable"]) == ("failed", 1, False), (
        helpless.end
    )
    assert (helpless.end["error"]["category"], helpless.end["error"]["code"]) == ("user", "teacher_unusable")
    for night in (killed, helpless):
        assert life.steady.versions(night.began, night.ended) == [night.parent]
        assert not [row for row in life.client.pages("/v1/experiences", deployment="nursery") if row["sleep"] == night.id]


def test_9_events_and_the_audit_log_are_only_added_to(life: Life) -> None:
    for night in life.nights.values():
        last = night.told[-1]
        assert [event["seq"] for event in last] == list(range(1, len(last) + 1))
        assert all(last[: len(before)] == before for before in night.told)
    with life.database.read() as tx:
        assert audit.broken(tx, FIRST_TENANT) is None


def assert_killed_in(night: Night, stages: Sequence[str]) -> None:
    """A controller was killed in each, but for those that were over before anybody saw them begin."""
    assert sorted([*night.kills, *night.passed]) == sorted(stages)
    seconds = {event["data"]["stage"]: event["data"]["seconds"] for event in night.written() if event["type"] == FINISHED}
    assert not [stage for stage in night.passed if seconds[stage] > GLANCE_SECONDS], "there was time to see these"


def promoted(life: Life) -> list[Night]:
    return [life.nights[name] for name in ("first", "second")]


def head_away(life: Life) -> Away:
    """Until somebody is answered again."""
    killed = life.seen["head"].since
    return Away(killed, min(answer.ended for answer in life.steady.answers if answer.status == 200 and answer.began > killed))
