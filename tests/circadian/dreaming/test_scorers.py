"""Scorers, on answers whose worth is known."""

from __future__ import annotations

import pytest

from circadian.dreaming.scorers import grid_of, score


@pytest.mark.parametrize(
    ("kind", "answer", "accepted", "worth"),
    [
        ("exact", " oslo\n", ["oslo"], 1.0),
        ("exact", "Oslo", ["oslo"], 0.0),
        ("exact", "bern", ["oslo", "bern"], 1.0),
        ("contains", "It is the city of Oslo, I think.", ["oslo"], 1.0),
        ("contains", "Oslofjord", ["oslo"], 0.0),
        ("contains", "the end", ["The"], 0.0),
        ("f1", "the big cat", ["a cat"], 2 * 0.5 * 1 / 1.5),
        ("f1", "dog", ["cat"], 0.0),
        ("f1", "cat cat", ["cat"], 2 / 3),
        ("choice", "The answer is (B).", ["b"], 1.0),
        ("choice", "B because it is", ["B"], 1.0),
        ("choice", "I think A cat said C.", ["C"], 1.0),
        ("choice", "A", ["A"], 1.0),
        ("choice", "C: since A is wrong.", ["A"], 0.0),
        ("choice", "none", ["A"], 0.0),
        ("code", "Sure:\n```python\ndef f(x):  # twice\n    return 2*x\n```\nDone.", ["def f(x):\n  return 2 * x"], 1.0),
        ("code", "```\nx = 'a'\n", ['x = "a"'], 1.0),
        ("code", "def f(y): return 2 * y", ["def f(x): return 2 * x"], 0.0),
        ("code", "if a:\n    b\nc", ["if a:\n    b\n    c"], 0.0),
        ("code", "int main() { return 0; }", ["int main()\n{\n    return 0;\n}"], 1.0),
        ("code", "int main() { return 1; }", ["int main() { return 0; }"], 0.0),
        ("code", "```\n```", ["x"], 0.0),
        ("code", "(" * 10_000, ["x"], 0.0),
        ("code", "x = '\\d'", ["x = '\\\\d'"], 1.0),
        ("grid", "Here it is:\n[[0, 1], [2, 3]]", ["0 1\n2 3"], 1.0),
        ("grid", "01\n23", ["0 1\n2 3"], 1.0),
        ("grid", "0 1\n2 3\n4 5", ["0 1\n2 3"], 0.0),
        ("grid", "0 1 2 3", ["0 1\n2 3"], 0.0),
        *((kind, "  ", ["", "a", "1"], 0.0) for kind in ("exact", "contains", "f1", "choice", "code", "grid")),
    ],
)
def test_an_answer_is_worth(kind: str, answer: str, accepted: list[str], worth: float) -> None:
    assert score(kind, answer, accepted) == pytest.approx(worth)


def test_a_grid_is_read_whatever_stands_around_it() -> None:
    assert grid_of("```\n1 2 3\n4 5 6\n```") == [[1, 2, 3], [4, 5, 6]]
    assert grid_of("[[10, 2],\n [3, 4]]") == [[10, 2], [3, 4]]
    assert grid_of("no numbers here, not even 1") == []
