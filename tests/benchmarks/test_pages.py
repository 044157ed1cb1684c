"""What the pages say of a benchmark is what its result in git says."""

from __future__ import annotations

import json

from benchmarks.learner import tables
from benchmarks.learner.__main__ import RESULT


def test_the_page_on_the_learners_speed_shows_the_result_that_is_in_git() -> None:
    assert tables.tables(json.loads(RESULT.read_text())) in tables.PAGE.read_text()
