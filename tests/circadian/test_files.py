"""A file appears whole or not at all, whoever else writes it at the same time."""

from __future__ import annotations

from pathlib import Path

import pytest

from circadian.files import take_back, write_whole


def test_two_who_write_one_file_at_once_each_write_it_whole(tmp_path: Path) -> None:
    path = tmp_path / "file"

    def another() -> None:
        write_whole(path, "another's")
        assert path.read_text() == "another's"

    write_whole(path, "mine", check=another)
    assert [(one.name, one.read_text()) for one in tmp_path.iterdir()] == [("file", "mine")]


def test_a_file_that_is_refused_at_the_last_moment_stays_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_whole(path, "first", 0o600)

    def refuses() -> None:
        raise PermissionError

    with pytest.raises(PermissionError):
        write_whole(path, "second", check=refuses)
    assert [(one.name, one.read_text()) for one in tmp_path.iterdir()] == [("file", "first")]
    assert path.stat().st_mode & 0o777 == 0o600


def test_what_is_taken_back_before_it_is_renamed_never_appears(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_whole(path, "first")
    with pytest.raises(FileNotFoundError):
        write_whole(path, "second", check=lambda: take_back(path))
    assert [(one.name, one.read_text()) for one in tmp_path.iterdir()] == [("file", "first")]
