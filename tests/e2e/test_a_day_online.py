"""A day that is learned while it is lived, and its night, on everything that is real: Ray, vLLM, DeepSpeed, the controller, over REST.

The night is a short one: what nights keep is proven in test_a_day_and_two_nights.py.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from circadian.memory.folder import version_state
from circadian.memory.state import MemoryState
from circadian.nursery.ship import WEIGHTS
from circadian.nursery.world import Day, World
from circadian.specs import MemorySpec
from services.client import Circadian
from services.demo import live
from services.measure import VERSION_HEADER, Examiner, Measured
from services.settings import Settings
from services.stack import Stack, StackSpec

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1500)]

SEED = 1
FACTS = 32
CHUNKS = 3
"""Full periods of level 0 in the day."""
WAIT_SECONDS = 400.0
SEEDING = {"steps": 250}


@dataclass
class Life:
    """Everything that is looked at."""

    stack: Stack
    client: Circadian
    measured: dict[str, Measured] = field(default_factory=dict)
    status: dict[str, dict[str, Any]] = field(default_factory=dict)
    sleep: dict[str, Any] = field(default_factory=dict)
    events: list[dict[str, Any]] = field(default_factory=list)

    def look(self, moment: str, examiner: Examiner) -> None:
        self.status[moment] = self.client.deployments.status("nursery").sent()
        self.measured[moment] = examiner.measure()

    def learned(self, chunks: int) -> None:
        """Wait until every replica serves with so many chunks."""
        body = {"model": "nursery", "prompt": "mira", "max_tokens": 1}
        self.until(lambda _: self.client.request("POST", "/v1/completions", body).headers[VERSION_HEADER].endswith(f"+w{chunks}"))

    def until(self, so: Callable[[dict[str, Any]], bool]) -> None:
        """Wait until it is so, of the deployment's status."""
        deadline = time.monotonic() + WAIT_SECONDS
        while not so(self.client.deployments.status("nursery").sent()):
            assert time.monotonic() < deadline, "the service did not get there in time"
            time.sleep(0.5)

    def version(self, name: str) -> Path:
        return next(self.stack.settings.home_folder.glob(f"deployments/*/versions/{name}"))


@pytest.fixture(scope="module")
def life(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Life]:
    world, home = World(0), tmp_path_factory.mktemp("home")
    day: Day = next(world.days(FACTS, SEED))
    with Stack(Settings(home=home, port=0), StackSpec(num_cpus=3)) as stack:
        assert stack.api_key is not None
        client = Circadian(stack.url, stack.api_key)
        life, examiner = Life(stack, client), Examiner(client, "nursery", world, day)
        client.deployments.create("nursery", {"model": str(WEIGHTS)}, wake="online", recipe={"seeding": SEEDING})
        client.awake("nursery", stack.settings.replica_start_seconds)
        life.look("before", examiner)
        live(day, client, "nursery")
        life.learned(CHUNKS)
        life.look("awake", examiner)
        held_out = [probe.question for probe in day.probes()]
        sleep = client.sleeps.create("nursery", seed=SEED, held_out=held_out)
        life.events = [event.sent() for event in client.sleeps.watch(sleep.id)]
        life.sleep = client.sleeps.get(sleep.id).sent()
        life.until(lambda status: status["fast_memory"]["chunks"] == 0)
        life.look("after", examiner)
        yield life
        client.close()


def test_what_was_told_is_answered_before_any_night_in_forms_that_nobody_used(life: Life) -> None:
    before, awake = life.measured["before"], life.measured["awake"]
    assert before.recall <= 0.15
    assert awake.recall >= 0.8
    assert awake.base >= 0.95


def test_answers_say_which_chunk_they_are_from_and_the_version_stays(life: Life) -> None:
    before, awake = life.status["before"], life.status["awake"]
    assert awake["active_version"] == before["active_version"]
    assert life.measured["before"].versions == (before["active_version"],)
    assert life.measured["awake"].versions == (f"{before['active_version']}+w{CHUNKS}",)
    assert awake["fast_memory"]["version"] == f"{before['active_version']}+w{CHUNKS}"
    period = MemorySpec().levels[0].period
    assert awake["fast_memory"]["tokens"] >= CHUNKS * period
    assert 0 < awake["fast_memory"]["tokens_until_update"] < period
    assert awake["last_sleep"] is None


def test_the_night_begins_with_what_was_learned_online(life: Life) -> None:
    finished = [event["data"] for event in life.events if event["type"] == "sleep.stage_finished"]
    fast = next(data["outputs"] for data in finished if data["stage"] == "learn_fast_level")
    assert fast["begins"] == f"online, {CHUNKS} chunks"
    assert fast["first_loss"] < 1.0, "most of the day is known already"


def test_after_the_night_the_day_is_kept_and_the_fast_level_is_empty(life: Life) -> None:
    assert (life.sleep["status"], life.sleep["outcome"]) == ("succeeded", "promoted")
    after, child = life.measured["after"], life.sleep["result_version"]
    assert after.versions == (child,)
    assert after.recall >= 0.8
    assert after.base >= life.measured["before"].base - 0.02
    state: MemoryState = version_state(life.version(child))
    assert [expert.value for expert in state.experts[0]] == ["pruned"]
    memory = life.status["after"]["fast_memory"]
    assert (memory["version"], memory["chunks"], memory["tokens"]) == (child, 0, 0)
