"""The suite itself: what would be seen only after an hour of it."""

from __future__ import annotations

import re
from pathlib import Path

FILES = sorted(Path(__file__).parent.rglob("test_*.py"))
STARTS_RAY = re.compile(r"\bray\.init\(|\b(RolesStack|Supervised)\(|\breal_cluster\b|^\s*with Stack\(", re.MULTILINE)


def test_whoever_starts_ray_says_so() -> None:
    """Or it runs beside another cluster (tests/conftest.py)."""
    starts = [file for file in FILES if STARTS_RAY.search(text := file.read_text()) and "pytest.mark.cluster" not in text]
    assert starts == []
