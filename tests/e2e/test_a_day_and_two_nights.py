"""Two days and two nights of the nursery model, on everything that is real: Ray, vLLM, DeepSpeed, the controller, over REST.

One life is lived once, and looked at from many sides. Two replicas serve: through the first night both, in the second one of them lends.
In the middle of knowledge seeding, the first night loses its learner and the second one its driver. After that somebody decides by hand
what serves (by_hand.py).
"""

from __future__ import annotations

import itertools
import json
import os
import re
import signal
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import httpx
import openai
import pytest
import torch
from by_hand import ByHand
from safetensors.torch import load_file
from steady import Steady
from supervised import until

from circadian.memory.folder import read_record
from circadian.memory.version import load_version
from circadian.nursery.ship import WEIGHTS
from circadian.nursery.world import QUESTION_FORMS, Day, World
from services.client import ApiError, Circadian
from services.client.patience import Patience
from services.demo import live
from services.measure import Examiner, Measured
from services.placement import Placement
from services.settings import Settings
from services.stack import Stack, StackSpec

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(3600)]

SEED = 1
REPLICAS = 2
LEARNED = ("rows.jsonl", "cues.jsonl", "held_back_cues.jsonl", "*.cues.jsonl")
"""Files of a night whose rows are wake rows or prompts from end to end."""
WRITTEN = ("*.corpus.jsonl", "*.held_back.jsonl", "**/student_rows.jsonl")
"""Files of a night whose rows are prompts up to `start`, and written by the model from there on."""
KILL_AFTER_STEP = 110
"""Of knowledge seeding: between two checkpoints."""
PROBES = 6
"""Of the second day, asked by every client after every decision by hand."""
Victim = Literal["learner", "driver"]


@dataclass
class Night:
    """One sleep as it was told: its end, its events, and what was measured while it lasted."""

    sleep: dict[str, Any]
    events: list[dict[str, Any]]
    killed: int | None = None
    awake: Measured | None = None
    refused: ApiError | None = None

    def starts_of_seeding(self) -> list[dict[str, Any]]:
        """Of the learner in knowledge seeding: pid and first step of each start."""
        told = [event["data"] for event in self.events if event["type"] == "sleep.learner_started"]
        return [data for data in told if "seeding" in data["run"]]

    def data(self, kind: str) -> dict[str, Any]:
        return next(event["data"] for event in self.events if event["type"] == kind)


@dataclass
class Life:
    """Everything that is looked at."""

    stack: Stack
    client: Circadian
    days: list[Day]
    nights: list[Night] = field(default_factory=list)
    steady: Steady | None = None
    """Asks through the second night."""
    measured: dict[str, Measured] = field(default_factory=dict)
    answers: dict[str, str] = field(default_factory=dict)
    status: dict[str, Any] = field(default_factory=dict)
    """After both nights, before anything was decided by hand."""

    def version(self, night: int) -> Path:
        """The folder of the version that woke after a night; 0 is the first one."""
        versions = self.client.versions.list("nursery")
        name = self.nights[night - 1].sleep["result_version"] if night else next(v.id for v in versions if v.parent is None)
        return next(self.stack.settings.home_folder.glob(f"deployments/*/versions/{name}"))

    def dashboard(self, path: str) -> Any:
        """What Ray's own REST interface says."""
        headers = {"Authorization": f"Bearer {self.stack.ray_token}"}
        return httpx.get(f"{self.stack.dashboard}{path}", headers=headers, timeout=30).raise_for_status().json()

    def replicas(self) -> int:
        """Of the deployment, that answer."""
        found = self.dashboard("/api/serve/applications/")["applications"].values()
        deployments = [deployment for application in found for deployment in application["deployments"].values()]
        return [replica["state"] for deployment in deployments for replica in deployment["replicas"]].count("RUNNING")

    def jobs(self, sleep: str) -> dict[str, Any]:
        """The Ray jobs of a sleep, by submission id: one for each attempt."""
        jobs = {job["submission_id"] or "": job for job in self.dashboard("/api/jobs/")}
        return {name: job for name, job in sorted(jobs.items()) if name.startswith(sleep)}

    def ask(self, question: str) -> str:
        """By the official client, unmodified."""
        with openai.OpenAI(base_url=f"{self.stack.url}/v1", api_key=self.stack.api_key) as client:
            messages: Any = [{"role": "user", "content": question}]
            whole = client.chat.completions.create(model="nursery", messages=messages, max_tokens=4, temperature=0)
            pieces = client.chat.completions.create(model="nursery", messages=messages, max_tokens=4, temperature=0, stream=True)
            streamed = "".join(piece.choices[0].delta.content or "" for piece in pieces if piece.choices)
        assert streamed == whole.choices[0].message.content
        return streamed.strip()


def deep_in_seeding(event: dict[str, Any]) -> bool:
    return event["type"] == "sleep.progress" and event["data"]["task"] == "seeding" and event["data"]["step"] >= KILL_AFTER_STEP


def sleep_through(life: Life, day: Day, victim: Victim, placement: Placement, examiner: Examiner | None = None) -> Night:
    """A night, watched, of which one process is killed; measured with its fast memory if there is an examiner."""
    held_out = [probe.question for probe in day.probes()]
    sleep = life.client.sleeps.create("nursery", seed=SEED, held_out=held_out, placement=placement)
    night = Night(sleep.sent(), [])
    learner = 0
    for told in life.client.sleeps.watch(sleep.id):
        event = told.sent()
        night.events.append(event)
        data = event["data"]
        if event["type"] == "sleep.learner_started":
            learner = data["pid"]
        elif event["type"] == "deployment.fast_memory_live" and examiner:
            night.awake = examiner.measure()
            with pytest.raises(ApiError) as refused:
                life.client.sleeps.create("nursery", seed=SEED, held_out=held_out)
            night.refused = refused.value
        elif night.killed is None and deep_in_seeding(event):
            (job,) = life.jobs(sleep.id).values()
            night.killed = learner if victim == "learner" else int(job["driver_info"]["pid"])
            os.kill(night.killed, signal.SIGKILL)
    night.sleep = life.client.sleeps.get(sleep.id).sent()
    return night


@pytest.fixture(scope="module")
def life(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Life]:
    world, home = World(0), tmp_path_factory.mktemp("home")
    days = list(itertools.islice(world.days(32, SEED), 3))
    with Stack(Settings(home=home, port=0), StackSpec(num_cpus=4)) as stack:
        assert stack.api_key is not None
        client = Circadian(stack.url, stack.api_key)
        life = Life(stack, client, days)
        client.deployments.create("nursery", {"model": str(WEIGHTS)}, serving={"replicas": REPLICAS})
        client.awake("nursery", stack.settings.replica_start_seconds)
        first, second = (Examiner(client, "nursery", world, day) for day in days[:2])
        probe = days[0].probes()[0]
        life.measured["before"], life.answers["before"] = first.measure(), life.ask(probe.question)
        live(days[0], client, "nursery")
        life.nights.append(sleep_through(life, days[0], "learner", "dedicated", first))
        life.measured["after first"], life.answers["after"] = first.measure(), life.ask(probe.question)
        live(days[1], client, "nursery")
        with Steady([stack.url], stack.api_key, "nursery") as life.steady:
            life.nights.append(sleep_through(life, days[1], "driver", "unihemispheric"))
            life.measured["first day after second"], life.measured["after second"] = first.measure(), second.measure()
            until(lambda: life.replicas() == REPLICAS, "the replica that has lent serves again")
        life.status = client.deployments.status("nursery").sent()
        yield life
        client.close()


@pytest.fixture(scope="module")
def hand(life: Life) -> ByHand:
    """What serves, decided by hand while a steady client asks and tells; from the second night's version to the first one's."""
    parent, child = (night.sleep["result_version"] for night in life.nights)
    assert life.stack.api_key is not None
    steady = Steady([life.stack.url], life.stack.api_key, "nursery", life.days[2].statements())
    with Circadian(life.stack.url, life.stack.api_key, patience=Patience(attempts=1)) as client:
        hand = ByHand(client, parent, child, life.days[1].probes()[:PROBES], steady)
        hand.live()
    return hand


def test_before_the_day_its_facts_are_unknown(life: Life) -> None:
    assert life.measured["before"].recall <= 0.15
    assert life.measured["before"].base >= 0.99


def test_from_dusk_on_the_fast_memory_knows_the_day(life: Life) -> None:
    awake = life.nights[0].awake
    assert awake is not None
    assert awake.recall >= 0.9
    (version,) = awake.versions
    assert version.endswith(f"+{life.nights[0].sleep['id']}"), "every answer says that it came from the fast memory"


def test_after_the_night_the_day_is_known_and_nothing_is_forgotten(life: Life) -> None:
    before, after = life.measured["before"], life.measured["after first"]
    assert after.recall >= 0.90
    assert after.base >= before.base - 0.02
    assert after.nll <= before.nll + 0.15
    assert after.versions == (life.nights[0].sleep["result_version"],)


def test_a_learner_killed_in_knowledge_seeding_only_delays_the_night(life: Life) -> None:
    night = life.nights[0]
    assert night.sleep["status"] == "succeeded"
    starts = night.starts_of_seeding()
    first, second = starts
    assert first["pid"] == night.killed != second["pid"]
    assert (first["step"], second["step"]) == (0, 100), "resumed from the last checkpoint"
    assert list(life.jobs(night.sleep["id"])) == [f"{night.sleep['id']}-a1"]
    seeding = next(
        e["data"] for e in night.events if e["type"] == "sleep.stage_finished" and e["data"]["stage"] == "knowledge_seeding"
    )
    assert seeding["outputs"]["restarts"] == 1


def test_a_killed_night_goes_on_where_it_was(life: Life) -> None:
    night = life.nights[1]
    assert night.sleep["status"] == "succeeded"
    assert {name[-2:]: job["status"] for name, job in life.jobs(night.sleep["id"]).items()} == {"a1": "FAILED", "a2": "SUCCEEDED"}
    assert [event["data"]["attempt"] for event in night.events if event["type"] == "sleep.started"] == [1, 2]
    finished = [event["data"]["stage"] for event in night.events if event["type"] == "sleep.stage_finished"]
    assert len(finished) == len(set(finished)), "no sealed stage was done again"
    assert [start["step"] for start in night.starts_of_seeding()] == [0, 100], "knowledge seeding resumed from its last checkpoint"


def test_the_second_night_keeps_the_first(life: Life) -> None:
    assert life.measured["after second"].recall >= 0.85
    first_then, first_now = life.measured["after first"].recall, life.measured["first day after second"].recall
    assert first_now >= 0.80
    assert first_now >= first_then - 0.05
    assert life.measured["after second"].base >= life.measured["before"].base - 0.02


def test_the_official_client_gets_another_and_right_answer_after_the_night(life: Life) -> None:
    right = life.days[0].probes()[0].answer
    assert life.answers["before"] != right
    assert life.answers["after"] == right


def test_after_a_night_all_parameters_but_the_new_expert_are_bit_identical(life: Life) -> None:
    for number, night in enumerate(life.nights):
        parent, child = life.version(number), life.version(number + 1)
        level, expert = read_record(child).lineage[-1].level, read_record(child).lineage[-1].expert
        before, after = (dict(load_version(folder).named_parameters()) for folder in (parent, child))
        assert before.keys() == after.keys()
        for name, tensor in before.items():
            if f".memory.levels.{level}." not in name:
                assert torch.equal(tensor, after[name]), name
        stored, grown = load_file(parent / "memory.safetensors"), load_file(child / "memory.safetensors")
        assert all(torch.equal(tensor, grown[name]) for name, tensor in stored.items())
        new = set(grown) - set(stored)
        assert new
        assert all(f".levels.{level}.experts.{expert}." in name for name in new)
        assert read_record(child).lineage[-1].sleep == night.sleep["id"]
        assert read_record(child).base == read_record(parent).base


def test_a_dawn_moves_one_expert_and_proves_it(life: Life) -> None:
    promoted = life.nights[0].data("version.promoted")
    assert [receipt["version"] for receipt in promoted["receipts"]] == [life.nights[0].sleep["result_version"]] * REPLICAS
    assert all(receipt["bytes"] < (WEIGHTS / "model.safetensors").stat().st_size / 5 for receipt in promoted["receipts"])


def test_somebody_serves_while_one_replica_lends_what_it_holds_to_the_night(life: Life) -> None:
    night, steady = life.nights[1], life.steady
    assert steady is not None
    assert {name: night.sleep["placement"][name] for name in ("kind", "serving")} == {"kind": "unihemispheric", "serving": 1}
    assert not steady.refused({0: []})
    parent, child = life.nights[0].sleep["result_version"], night.sleep["result_version"]
    assert steady.versions(0.0) == [parent, f"{parent}+{night.sleep['id']}", child], "the fast memory in between"


def test_a_second_sleep_is_refused_while_one_runs(life: Life) -> None:
    refused = life.nights[0].refused
    assert refused is not None
    assert (refused.status, refused.code) == (409, "sleep_in_progress")


def form(number: int) -> re.Pattern[str]:
    """A question form with any relation of any entity, in any text."""
    words = "".join(r"\S+" if piece in ("r", "e") else re.escape(piece) for piece in re.split(r"\{(\w)\}", QUESTION_FORMS[number]))
    return re.compile(rf"(?:^| ){words}(?: |$)")


@pytest.mark.parametrize("number", [0, 1])
def test_no_wake_row_and_no_sleep_prompt_uses_a_form_of_the_test(life: Life, number: int) -> None:
    words = {index: word for word, index in json.loads((WEIGHTS / "tokenizer.json").read_text())["model"]["vocab"].items()}
    home = next(life.stack.settings.home_folder.glob(f"deployments/*/sleeps/{life.nights[number].sleep['id']}"))

    def lines(pattern: str) -> list[dict[str, Any]]:
        return [json.loads(line) for path in home.glob(pattern) for line in path.read_text().splitlines()]

    learned = [line["ids"] for pattern in LEARNED for line in lines(pattern)]
    prompts = [line["ids"][: line["start"]] for pattern in WRITTEN for line in lines(pattern)]
    assert all(list(home.glob(pattern)) for pattern in LEARNED)
    assert all(lines(pattern) for pattern in WRITTEN)
    texts = [" ".join(words[i] for i in ids) for ids in learned + prompts]
    day = life.days[number]
    assert all(any(form(known).search(text) for text in texts) for known in day.open_forms)
    assert not [text for text in texts for held_out in day.held_out_forms if form(held_out).search(text)]
    whole = [" ".join(words[i] for i in line["ids"]) for pattern in WRITTEN for line in lines(pattern)]
    assert not [probe.question for probe in day.probes() if any(probe.question in text for text in whole)]


def test_the_ray_dashboard_lists_the_night_as_a_job_and_the_learner_as_a_train_run(life: Life) -> None:
    sleep = life.nights[0].sleep["id"]
    (job,) = life.jobs(sleep).values()
    assert job["status"] == "SUCCEEDED"
    assert job["metadata"]["sleep_id"] == sleep
    runs = {run["name"]: run["status"] for run in life.dashboard("/api/train/v2/runs/v1")["train_runs"]}
    mine = {name: status for name, status in runs.items() if name.startswith(sleep)}
    assert len(mine) == 2, runs
    assert set(mine.values()) == {"FINISHED"}


def test_ray_answers_nobody_without_the_token(life: Life) -> None:
    for headers in ({}, {"Authorization": "Bearer wrong"}):
        assert httpx.get(f"{life.stack.dashboard}/api/jobs/", headers=headers, timeout=30).status_code in (401, 403)


def test_after_two_nights_everything_is_consolidated(life: Life) -> None:
    status = life.status
    assert status["state"] == "awake"
    assert status["active_version"] == life.nights[1].sleep["result_version"]
    assert status["pending"]["experiences"] == 0
    assert len(read_record(life.version(2)).lineage) == 2


@pytest.mark.parametrize(
    ("moment", "kind", "status", "serves"),
    [
        ("rolled back", "rollback", "succeeded", "parent"),
        ("aborted", "promotion", "aborted", "parent"),
        ("promoted", "promotion", "succeeded", "child"),
        ("revoked", "revocation", "succeeded", "parent"),
    ],
)
def test_what_is_decided_by_hand_answers_every_client(hand: ByHand, moment: str, kind: str, status: str, serves: str) -> None:
    seen, version = hand.moments[moment], {"parent": hand.parent, "child": hand.child}[serves]
    assert (seen.rollout.kind, seen.rollout.status) == (kind, status), seen.rollout
    assert seen.versions() == {version}
    assert hand.steady.versions(seen.began, seen.ended) in ([version], [])
    assert (seen.right(version) >= 0.7) == (serves == "child"), "the second day is what only the child knows"


def test_a_canary_answers_a_share_of_the_clients_and_each_of_them_always(hand: ByHand) -> None:
    seen = hand.moments["canary"]
    assert (seen.rollout.strategy, seen.rollout.status) == ("canary", "running")
    assert {len(versions) for versions in seen.by_client().values()} == {1}
    assert seen.versions() == {hand.parent, hand.child}
    assert seen.right(hand.child) >= 0.7 > seen.right(hand.parent)


def test_what_was_revoked_never_serves_again(life: Life, hand: ByHand) -> None:
    assert life.client.versions.get(hand.child).status == "revoked"
    assert life.client.deployments.status("nursery").active_version == hand.parent
    with pytest.raises(ApiError) as refused:
        life.client.versions.promote(hand.child)
    assert (refused.value.status, refused.value.code) == (409, "version_revoked")


def test_no_request_fails_while_versions_change(hand: ByHand) -> None:
    assert not hand.steady.refused({0: []})
    assert {hand.parent, hand.child} <= set(hand.steady.versions(0.0))
    assert hand.steady.kept, "somebody has told it things, too"
