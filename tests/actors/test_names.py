from __future__ import annotations

import pytest

from actors import names


def test_a_role_is_asked_for_only_where_nodes_have_roles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(names.ROLES_VARIABLE, raising=False)
    assert names.role("wake") == {}
    monkeypatch.setenv(names.ROLES_VARIABLE, "0")
    assert names.role("wake") == {}
    monkeypatch.setenv(names.ROLES_VARIABLE, "1")
    assert names.role("wake") == {"circadian_wake": 0.001}
    assert names.role("learner") == {"circadian_learner": 0.001}


def test_whether_the_hub_is_asked_is_said_by_whoever_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    assert names.workshop_environment() == {"HF_HUB_OFFLINE": "0"}
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert names.workshop_environment() == {"HF_HUB_OFFLINE": "1"}
