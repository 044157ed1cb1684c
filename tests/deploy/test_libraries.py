"""What the extensions of an image's packages are linked to is in the image: in a wheel, in Python's own image, or installed by apt.

The packages of this environment are looked at, whose versions are those of runtime.lock (test_replay.py).
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from tests.deploy.stages import dockerfile

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="the images are Linux's, and so are extensions that can be looked at"),
    pytest.mark.skipif(shutil.which("readelf") is None, reason="there is no readelf: install binutils"),
]
PACKAGES = Path(sysconfig.get_path("platlib"))
COMPUTES = ("vllm", "torch", "numpy", "ray", "safetensors", "tokenizers", "sentencepiece", "triton")
"""Folders of what a replica or a learner loads. numba, for one, looks for libraries that it goes on without."""
OF_THE_BASE = re.compile(r"(ld-linux-[\w-]+|lib(c|m|dl|pthread|rt|util|resolv|gcc_s|stdc\+\+|z))\.so\.\d+")
"""glibc, and what apt and Python itself are linked to."""
OF_DEBIAN = {"libnuma1": "libnuma.so.1"}
"""A package of Debian's, and the library that it brings."""
ENTRY = re.compile(r"^File: (.+)$|\(NEEDED\).*\[(.+)\]$", re.MULTILINE)


def extensions(package: str) -> list[Path]:
    return [file for file in sorted((PACKAGES / package).rglob("*.so*")) if file.is_file() and file.read_bytes()[:4] == b"\x7fELF"]


def needed(files: list[Path]) -> dict[str, set[str]]:
    """Libraries, and the files that are linked to them."""
    twice = [*files, files[0]]  # of a single file readelf does not say the name
    done = subprocess.run(["readelf", "--dynamic", "--wide", *twice], capture_output=True, text=True, check=True)
    found: dict[str, set[str]] = {}
    file = ""
    for named, library in ENTRY.findall(done.stdout):
        file = named or file
        if library:
            found.setdefault(library, set()).add(Path(file).name)
    return found


def installed(image: str) -> set[str]:
    """Libraries that apt brings into an image."""
    runs = [step.value for stage in dockerfile().line(image) for step in stage.of("RUN")]
    words = {word for run in runs for part in re.findall(r"apt-get install ([^&]*)", run) for word in part.split()}
    return {OF_DEBIAN[word] for word in words if word in OF_DEBIAN}


def unmet(libraries: dict[str, set[str]], image: str) -> dict[str, set[str]]:
    wheels = {file.name for file in PACKAGES.rglob("*.so*")}
    there = wheels | installed(image)
    return {name: files for name, files in libraries.items() if name not in there and not OF_THE_BASE.fullmatch(name)}


@pytest.mark.parametrize("package", COMPUTES)
def test_the_image_for_cpus_has_what_its_extensions_are_linked_to(package: str) -> None:
    found = extensions(package)
    assert found, "a package without an extension proves nothing"
    assert unmet(needed(found), "cpu") == {}


def test_vllms_extensions_for_cpus_need_a_library_that_no_wheel_has() -> None:
    assert set(unmet(needed(extensions("vllm")), "node")) == set(OF_DEBIAN.values())
