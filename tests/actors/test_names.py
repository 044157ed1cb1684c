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
