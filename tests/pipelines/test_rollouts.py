"""Who of several rollout workers answers what."""

from __future__ import annotations

from pipelines.rollouts import dealt_out


def test_prompts_are_dealt_in_turn_and_all_of_an_adapter_to_one_worker() -> None:
    assert dealt_out(5, (), 2) == [[0, 2, 4], [1, 3]]
    assert dealt_out(4, ["a", "a", "a", "a"], 2) == [[0, 2], [1, 3]], "one adapter for all is no reason to idle"
    assert dealt_out(6, ["a", "a", "b", "b", "c", "a"], 2) == [[0, 1, 4, 5], [2, 3]]
    assert dealt_out(0, (), 3) == [[], [], []]
