"""What asks Ray for room asks for a role's node where nodes have roles, and who waits can say what no node offers."""

from __future__ import annotations

import pytest

from actors import names
from actors.learner import _scaling
from actors.room import are_apart, lacks
from actors.wake import replica_options
from circadian.specs import LearnerSpec, RolloutSpec
from pipelines.rollouts import room_of
from services.launcher import PASSED_ON, driver_room

NODES = [{"CPU": 0.0, "memory": 1.0}, {"CPU": 2.0, "circadian_wake": 1000.0}, {"CPU": 8.0, "GPU": 1.0, "circadian_learner": 1000.0}]


@pytest.fixture
def roles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(names.ROLES_VARIABLE, "1")


@pytest.fixture
def no_roles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(names.ROLES_VARIABLE, raising=False)


def test_replicas_learners_rollout_workers_and_the_driver_ask_for_their_nodes(roles: None) -> None:
    assert replica_options(1.0, 0.5)["resources"] == {"circadian_wake": 0.001}
    assert _scaling(LearnerSpec(gpus_per_worker=1.0)).resources_per_worker == {"CPU": 1.0, "GPU": 1.0, "circadian_learner": 0.001}
    assert room_of(RolloutSpec()) == {"CPU": 1.0, "GPU": 0.0, "circadian_rollout": 0.001}
    assert driver_room() == {"entrypoint_num_cpus": 0, "entrypoint_resources": {"circadian_learner": 0.001}}
    assert names.ROLES_VARIABLE in PASSED_ON, "the driver starts the rollout workers and the learners"


def test_where_nodes_have_no_roles_nothing_is_asked_for(no_roles: None) -> None:
    assert "resources" not in replica_options(1.0, 0.5)
    assert _scaling(LearnerSpec()).resources_per_worker == {"CPU": 1.0}
    assert room_of(RolloutSpec()) == {"CPU": 1.0, "GPU": 0.0}
    assert driver_room() == {}


def test_replicas_lend_nothing_to_nights_that_have_nodes_of_their_own(roles: None, monkeypatch: pytest.MonkeyPatch) -> None:
    assert are_apart(NODES)
    assert not are_apart([*NODES, {"CPU": 8.0, "circadian_wake": 1000.0, "circadian_rollout": 1000.0}]), (
        "one machine for everything"
    )
    monkeypatch.delenv(names.ROLES_VARIABLE)
    assert not are_apart(NODES)


@pytest.mark.parametrize(
    ("wanted", "why"),
    [
        ({"CPU": 8.0, "GPU": 1.0, "circadian_learner": 0.001}, ""),
        ({"CPU": 1.0, "GPU": 0.0, "circadian_wake": 0.001}, ""),
        (
            {"CPU": 1.0, "circadian_rollout": 0.001},
            "no node of the cluster offers circadian_rollout 0.001: add a node of the role rollout, or unset NODES_HAVE_ROLES",
        ),
        ({"CPU": 16.0, "GPU": 2.0}, "no node of the cluster offers CPU 16, GPU 2"),
        ({"GPU": 1.0, "circadian_wake": 0.001}, "no node of the cluster offers GPU 1, circadian_wake 0.001 together"),
    ],
)
def test_who_waits_says_what_no_node_offers(wanted: dict[str, float], why: str) -> None:
    assert lacks(wanted, NODES) == why
    assert lacks({"CPU": 1.0}, []) == "no node of the cluster offers CPU 1"
