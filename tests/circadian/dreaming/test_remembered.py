"""What a version remembers of its dreams."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from circadian.dreaming.instances import fine_tune
from circadian.dreaming.peft_files import CONFIG_FILE, WEIGHTS_FILE, write_adapter
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
from circadian.memory.folder import RECORD_FILE, VersionBroken
from circadian.specs import BaseModelRef, VersionRecord
from tests.circadian.dreaming.small import DREAMS, SPEC, small_model


def version(folder: Path, *names: str) -> Path:
    """A version whose record knows these files."""
    folder.mkdir(exist_ok=True)
    files = {name: sha256(folder / name) for name in names}
    record = VersionRecord(id="v", base=BaseModelRef(model="b"), created_at=0.0, files=files)
    (folder / RECORD_FILE).write_text(record.model_dump_json())
    return folder


@pytest.mark.parametrize("name", [WEIGHTS_FILE, CONFIG_FILE])
@pytest.mark.parametrize("gone", [True, False])
def test_a_dreamer_is_found_whole_or_the_version_is_broken(tmp_path: Path, name: str, gone: bool) -> None:
    assert dreamer_of(version(tmp_path / "none")) is None
    (adapter,) = fine_tune(small_model(), DREAMS[:1], SPEC, seed=0)
    folder = tmp_path / "v" / DREAMER_FOLDER
    write_adapter(folder, adapter)
    own = version(tmp_path / "v", f"{DREAMER_FOLDER}/{WEIGHTS_FILE}", f"{DREAMER_FOLDER}/{CONFIG_FILE}")
    assert dreamer_of(own) == folder
    assert of_one_shape(folder, SPEC)
    for other in ({"rank": 8}, {"alpha": 1.0}, {"targets": ("q_proj",)}):
        assert not of_one_shape(folder, SPEC.model_copy(update=other))
    (folder / name).unlink() if gone else (folder / name).write_bytes((folder / name).read_bytes() + b" ")
    with pytest.raises(VersionBroken, match=r"checksum.*restore it"):
        dreamer_of(own)


def test_standings_are_scores_by_digest_and_the_oldest_are_forgotten(tmp_path: Path) -> None:
    assert read_standings(version(tmp_path)) == {}
    before = {"old": [0.1], "seen": [0.5] * NIGHTS}
    text = standings_json(before, {"seen": 0.25, "new": 1.0})
    (tmp_path / STANDINGS_FILE).write_text(text)
    assert read_standings(version(tmp_path, STANDINGS_FILE)) == {"old": [0.1], "seen": [0.5] * (NIGHTS - 1) + [0.25], "new": [1.0]}
    many = standings_json(before, {str(i): 0.0 for i in range(CONTEXTS)})
    assert list(json.loads(many)) == [str(i) for i in range(CONTEXTS)]
    (tmp_path / STANDINGS_FILE).write_text(text[:-1])
    with pytest.raises(VersionBroken, match="checksum"):
        read_standings(tmp_path)
    assert "mira" not in digest_of("the city of mira is oslo .")
