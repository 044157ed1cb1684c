"""deploy/Dockerfile: what a linter says, and what every image that comes of it is held to."""

from __future__ import annotations

import re
import subprocess

import pytest

from tests.deploy.stages import Step, dockerfile, reaches_the_build, sources
from tests.deploy.tools import DEPLOY, ROOT, hadolint

IMAGES = ("controller", "cpu", "cuda")
USER = "1000:1000"
SECRET = re.compile(r"(?i)(password|token|secret|api_key|pepper|signing)\w*\s*=")
HOST = re.compile(r"\b[a-z0-9-]+(\.[a-z0-9-]+)*\.(org|com|io|net|dev)\b(?!\.image)")


def steps() -> list[tuple[str, Step]]:
    return [(stage.name, step) for stage in dockerfile().stages.values() for step in stage.steps]


def test_hadolint_has_nothing_to_say() -> None:
    done = subprocess.run([hadolint(), "--no-color", DEPLOY / "Dockerfile"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


def test_hadolint_would_say_something() -> None:
    bad = "FROM python:latest\nADD https://example.com/x /x\nUSER root\n"
    done = subprocess.run([hadolint(), "-"], input=bad, capture_output=True, text=True)
    assert done.returncode == 1
    assert {"DL3007", "DL3002"} <= set(re.findall(r"DL\d+", done.stdout))


@pytest.mark.parametrize("image", [*IMAGES, "sbom"])
def test_an_image_runs_as_a_user_without_rights(image: str) -> None:
    users = [step.value for stage in dockerfile().line(image) for step in stage.of("USER")]
    assert users[-1:] == [USER], "the last USER decides"
    assert dockerfile().stages[image].steps[-1].instruction in ("USER", "CMD"), "nothing is done after the user was changed"


@pytest.mark.parametrize("image", IMAGES)
def test_an_image_starts_one_process_without_a_shell(image: str) -> None:
    stages = dockerfile().line(image)
    assert [step for stage in stages for step in stage.of("ENTRYPOINT")] == []
    (command,) = [step.value for stage in stages for step in stage.of("CMD")]
    assert command.startswith("["), f"{command} would be run by a shell"
    assert not [step for stage in stages for step in stage.of("HEALTHCHECK")], "compose and the chart ask, each in its way"


@pytest.mark.parametrize("image", IMAGES)
def test_what_an_image_writes_lies_on_volumes(image: str) -> None:
    values = {}
    for stage in dockerfile().line(image):
        values |= stage.environment()
    written = [value for name, value in values.items() if value.startswith("/") and name != "PATH"]
    assert {values["HOME"], values["TMPDIR"]} == {"/tmp"}
    assert [path for path in written if not path.startswith(("/tmp", "/var/lib/circadian", "/var/cache/circadian"))] == []


@pytest.mark.parametrize("image", IMAGES)
def test_what_an_image_runs_is_found_in_its_environment(image: str) -> None:
    paths = [value for stage in dockerfile().line(image) for name, value in stage.environment().items() if name == "PATH"]
    assert paths == ["/opt/circadian/bin:$PATH"]


def test_pip_is_the_base_images_wherever_something_is_installed() -> None:
    """With the new environment, which has no pip, first on the path, `python -m pip` would be looked for in it."""
    for name, stage in dockerfile().stages.items():
        if any(" install --no-c" in step.value for step in stage.of("RUN")):
            assert not [part for above in dockerfile().line(name) for part in above.environment() if part == "PATH"], name


def test_no_image_has_a_secret_or_names_where_packages_come_from() -> None:
    text = (DEPLOY / "Dockerfile").read_text()
    words = [step.value for _, step in steps() if step.instruction in ("ENV", "ARG", "LABEL", "RUN")]
    assert [word for word in words if SECRET.search(word)] == []
    assert [match.group() for match in HOST.finditer(text) if not match.group().startswith("org.")] == []
    assert SECRET.search("API_KEY=abc")
    assert HOST.search("pip install --index-url https://packages.example.org/simple")


def test_base_images_have_a_tag_and_take_a_digest() -> None:
    arguments, stages = dockerfile().arguments, dockerfile().stages
    images = {stage.base for stage in stages.values() if dockerfile().expand(stage.base) not in stages}
    assert images == {"${PYTHON_IMAGE}${PYTHON_DIGEST:+@${PYTHON_DIGEST}}", "scratch"}
    assert re.fullmatch(r"python:3\.11-[\w-]+", arguments["PYTHON_IMAGE"])
    assert arguments["PYTHON_DIGEST"] == "", "whoever builds gives the digest of an image that was looked at"


def test_nothing_is_added_from_elsewhere() -> None:
    assert [step.value for _, step in steps() if step.instruction == "ADD"] == []
    assert [step.value for _, step in steps() if re.search(r"\b(curl|wget|git clone)\b", step.value)] == []


def test_every_install_is_hashed_or_of_what_was_built_here() -> None:
    installs = [
        line for _, step in steps() if step.instruction == "RUN" for line in step.value.split("&&") if " install --no-c" in line
    ]
    assert len(installs) >= 9
    for line in installs:
        assert "--no-deps" in line
        assert "--require-hashes" in line or "--no-index" in line, line


def test_what_is_copied_reaches_the_build_and_nothing_else_does() -> None:
    copied = {
        name
        for stage in dockerfile().stages.values()
        for step in stage.of("COPY")
        if not step.flags
        for name in step.value.split()[:-1]
    }
    assert {name for name in copied if not sources(name)} == set()
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    sent = {name for name in tracked if reaches_the_build(name)}
    taken = {file.as_posix() for name in copied for file in sources(name)}
    assert sent - taken == set(), "sent to the build and used by nothing"


@pytest.mark.parametrize(
    "path",
    [
        ".git/config",
        ".venv/bin/python",
        "runs/demo/report.md",
        "deploy/secrets/api_key",
        "services/__pycache__/serve.cpython-311.pyc",
        "tests/conftest.py",
    ],
)
def test_what_is_no_part_of_an_image_is_not_sent(path: str) -> None:
    assert not reaches_the_build(path)


@pytest.mark.parametrize(
    "path",
    [
        "services/serve.py",
        "services/ui/static/app.js",
        "circadian/nursery/weights/model.safetensors",
        "requirements/vllm-name/pyproject.toml",
    ],
)
def test_what_an_image_needs_is_sent(path: str) -> None:
    assert reaches_the_build(path)


def test_labels_say_what_an_image_is() -> None:
    for image in IMAGES:
        text = " ".join(step.value for step in dockerfile().stages[image].of("LABEL"))
        names = set(re.findall(r"org\.opencontainers\.image\.(\w+)=", text))
        assert names == {"title", "description", "licenses", "version", "revision"}
        assert f'title="circadian/{image}"' in text
