"""What a version remembers of its dreams."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from circadian.dreaming.instances import fine_tune
from circadian.dreaming.peft_files import WEIGHTS_FILE, write_adapter
from circadian.dreaming.remembered import (
    CONTEXTS,
    DREAMER_FOLDER,
    NIGHTS,
    STANDINGS_FILE,
    digest_of,
    dreamer_of,
    of_one_shape,
    read_standings,
    standings_json,
)
from circadian.files import sha256
from circadian.memory.version import RECORD_FILE, VersionBroken
from circadian.specs import BaseModelRef, VersionRecord
from tests.circadian.dreaming.small import DREAMS, SPEC, small_model


def version(folder: Path, digest: str = "") -> Path:
    folder.mkdir(exist_ok=True)
    record = VersionRecord(id="v", base=BaseModelRef(model="b"), created_at=0.0, dreamer_sha256=digest)
    (folder / RECORD_FILE).write_text(record.model_dump_json())
    return folder


def test_a_dreamer_is_found_whole_or_the_version_is_broken(tmp_path: Path) -> None:
    assert dreamer_of(version(tmp_path / "none")) is None
    (adapter,) = fine_tune(small_model(), DREAMS[:1], SPEC, seed=0)
    folder = tmp_path / "v" / DREAMER_FOLDER
    write_adapter(folder, adapter)
    own = version(tmp_path / "v", sha256(folder / WEIGHTS_FILE))
    assert dreamer_of(own) == folder
    assert of_one_shape(folder, SPEC)
    for other in ({"rank": 8}, {"alpha": 1.0}, {"targets": ("q_proj",)}):
        assert not of_one_shape(folder, SPEC.model_copy(update=other))
    (folder / WEIGHTS_FILE).write_bytes(b"x")
    with pytest.raises(VersionBroken, match="checksum"):
        dreamer_of(own)
    (folder / WEIGHTS_FILE).unlink()
    with pytest.raises(VersionBroken, match="restore it"):
        dreamer_of(own)


def test_standings_are_scores_by_digest_and_the_oldest_are_forgotten(tmp_path: Path) -> None:
    assert read_standings(tmp_path) == {}
    before = {"old": [0.1], "seen": [0.5] * NIGHTS}
    text = standings_json(before, {"seen": 0.25, "new": 1.0})
    (tmp_path / STANDINGS_FILE).write_text(text)
    assert read_standings(tmp_path) == {"old": [0.1], "seen": [0.5] * (NIGHTS - 1) + [0.25], "new": [1.0]}
    many = standings_json(before, {str(i): 0.0 for i in range(CONTEXTS)})
    assert list(json.loads(many)) == [str(i) for i in range(CONTEXTS)]
    assert "mira" not in digest_of("the city of mira is oslo .")
