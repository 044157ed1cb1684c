"""deploy/secrets.py makes what compose.yaml names, once."""

from __future__ import annotations

import stat
import subprocess
import sys
from pathlib import Path

from sqlalchemy import make_url

from tests.deploy.tools import DEPLOY, configured

BUILD = "pip.conf"


def made(folder: Path) -> dict[str, str]:
    subprocess.run([sys.executable, "-I", DEPLOY / "secrets.py", folder], check=True, capture_output=True)
    return {path.name: path.read_text() for path in folder.iterdir()}


def test_every_secret_that_compose_names_is_made(tmp_path: Path) -> None:
    named = {Path(secret["file"]).name for name, secret in configured()["secrets"].items() if name != BUILD}
    assert set(made(tmp_path / "secrets")) == named


def test_a_secret_that_is_there_stays(tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    first = made(folder)
    assert made(folder) == first
    (folder / "api_key").unlink()
    second = made(folder)
    assert second["api_key"] != first["api_key"]
    assert {**second, "api_key": ""} == {**first, "api_key": ""}


def test_two_installations_share_no_secret(tmp_path: Path) -> None:
    first, second = made(tmp_path / "a"), made(tmp_path / "b")
    assert [name for name in first if first[name] == second[name]] == []
    values = [value for name, value in first.items() if name != "database_url"]
    assert len(set(values)) == len(values)


def test_the_folder_is_closed_to_others_and_containers_can_read_what_lies_in_it(tmp_path: Path) -> None:
    made(tmp_path / "secrets")
    assert stat.S_IMODE((tmp_path / "secrets").stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "secrets").iterdir()} == {0o444}


def test_the_database_url_opens_the_database_that_compose_starts(tmp_path: Path) -> None:
    secrets = made(tmp_path / "secrets")
    server = configured()["services"]["postgres"]["environment"]
    url = make_url(secrets["database_url"])
    assert (url.username, url.database, url.password) == (
        server["POSTGRES_USER"],
        server["POSTGRES_DB"],
        secrets["postgres_password"],
    )
    assert (url.drivername, url.host, url.port) == ("postgresql", "postgres", 5432)


def test_git_does_not_take_them() -> None:
    names = ["deploy/secrets/api_key", "deploy/.env"]
    done = subprocess.run(["git", "check-ignore", *names], cwd=DEPLOY.parent, capture_output=True, text=True)
    assert done.stdout.split() == names
