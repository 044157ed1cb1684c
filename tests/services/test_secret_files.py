"""Secrets that are mounted as files."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from services.home import private_folder
from services.keys import Keys
from services.secret_files import FOLDER, SecretsUnreadable
from services.settings import Settings
from services.signing import Signing
from services.tables import Database

NOBODY = 65534
SIGNING_KEY = "0123456789abcdef" * 4


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """As Kubernetes mounts one: files are links into a folder that a link names, so that all change at once."""
    there = tmp_path / "secrets"
    (there / "..2026").mkdir(parents=True)
    (there / "..data").symlink_to("..2026")
    monkeypatch.setenv(FOLDER, str(there))
    return there


def put(folder: Path, **texts: str) -> None:
    for name, text in texts.items():
        (folder / "..2026" / name).write_text(text)
        (folder / name).symlink_to(Path("..data") / name)


def test_files_are_settings(folder: Path, tmp_path: Path) -> None:
    put(folder, database_url="postgresql://a:b@c/d\n", api_key="ck_given", key_pepper="salt and pepper", signing_key=SIGNING_KEY)
    settings = Settings(home=tmp_path / "home")
    assert settings.database_url == "postgresql://a:b@c/d"
    assert settings.api_key is not None
    assert settings.api_key.get_secret_value() == "ck_given"
    assert settings.signing_key_file == folder / "signing_key"
    assert settings.workflow_database == "postgresql://a:b@c/d"


def test_what_they_are_for_works_with_them(folder: Path, tmp_path: Path) -> None:
    put(folder, api_key="ck_given", key_pepper="salt and pepper", signing_key=SIGNING_KEY)
    settings = Settings(home=tmp_path / "home")
    database = Database(f"sqlite:///{tmp_path / 'some.db'}", 1.0)
    try:
        keys = Keys(settings, database)
        assert keys.provide() is None, "a key that is given is not shown"
        assert keys.hash("ck_given") != Keys(settings.model_copy(update={"key_pepper": None}), database).hash("ck_given")
    finally:
        database.close()
    assert Signing(settings).trusted_hex
    assert not (settings.home_folder / "signing_key").exists(), "none was made"


def test_a_variable_wins(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(folder, database_url="postgresql://file", api_key="ck_file")
    monkeypatch.setenv("CIRCADIAN_DATABASE_URL", "postgresql://variable")
    settings = Settings()
    assert settings.database_url == "postgresql://variable"
    assert settings.api_key is not None
    assert settings.api_key.get_secret_value() == "ck_file"


def test_without_a_folder_nothing_is_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(folder, api_key="ck_file")
    monkeypatch.delenv(FOLDER)
    assert Settings().api_key is None


def test_secrets_are_in_no_text(folder: Path) -> None:
    put(folder, database_url="postgresql://a:hidden@c/d", workflow_database_url="postgresql://a:hidden@c/e", api_key="hidden")
    assert "hidden" not in repr(Settings())


def test_a_folder_that_is_not_there_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FOLDER, str(tmp_path / "nowhere"))
    with pytest.raises(SecretsUnreadable, match=r"nowhere, the folder of CIRCADIAN_SECRETS_FOLDER, cannot be read: No such file"):
        Settings()


def test_an_empty_folder_is_a_mistake(folder: Path) -> None:
    with pytest.raises(SecretsUnreadable, match="has no secret in it"):
        Settings()


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [("api_key", " \n", "api_key is empty"), ("database-url", "postgresql://hidden", "database-url is no secret of this service")],
)
def test_a_file_that_cannot_be_a_secret_is_named(name: str, text: str, told: str, folder: Path) -> None:
    put(folder, **{name: text})
    with pytest.raises(SecretsUnreadable, match=told) as raised:
        Settings()
    assert "hidden" not in str(raised.value)


def test_a_link_to_nothing_is_named(folder: Path) -> None:
    (folder / "key_pepper").symlink_to("..data/key_pepper")
    with pytest.raises(SecretsUnreadable, match="key_pepper cannot be read: No such file"):
        Settings()


def test_what_is_no_text_is_named(folder: Path) -> None:
    (folder / "key_pepper").write_bytes(b"\xff\xfe")
    with pytest.raises(SecretsUnreadable, match="key_pepper cannot be read: it is no text"):
        Settings()


@pytest.mark.parametrize("module", ["services.migrate", "services.serve"])
def test_processes_end_with_the_sentence(module: str, folder: Path) -> None:
    put(folder, api_key="")
    done = subprocess.run([sys.executable, "-m", module], capture_output=True, text=True, timeout=120, env=dict(os.environ))
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1].endswith("api_key is empty; write the secret into it, or remove it")
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a folder that belongs to somebody else")
def test_a_home_that_is_a_volume_of_the_group_is_taken_as_it_is() -> None:
    """Kubernetes makes a volume's folder root's and the group's; whoever runs there may not change its mode, and need not."""
    with tempfile.TemporaryDirectory() as above:
        home = Path(above) / "volume"
        home.mkdir()
        os.chown(home, 0, NOBODY)
        home.chmod(0o2775)
        Path(above).chmod(0o755)
        group = os.getegid()
        os.setegid(NOBODY)
        os.seteuid(NOBODY)
        try:
            private_folder(home)
            with pytest.raises(PermissionError):
                home.chmod(0o770)
        finally:
            os.seteuid(0)
            os.setegid(group)
        assert (home / "circadian.home").stat().st_uid == NOBODY
