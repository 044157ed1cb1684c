"""Signed versions: what the controller committed, and nothing that somebody put there since, is promoted and loaded.

Against whom: somebody who can write the storage that holds the versions, and does not hold the controller's key. The checksums in
version.json do not stop them, because they can write that file too. So the controller, when it commits a version, signs with its Ed25519
key a manifest of every file in the folder, and leaves it there as signature.json:

    manifest     format, the version's id, and of every file its path in the folder, SHA-256 and bytes; but of signature.json itself
    signature    over the manifest as canonical JSON: keys in order, no spaces, ASCII
    key          which key signed: the first 16 hex digits of the SHA-256 over the public key
    algorithm    ed25519, no other

`verify` refuses, before it reads any other file, a folder whose manifest no trusted key signed, or that is another version than its place
says (an old one, signed and all, in the place of a new one). Then it walks the folder: every file must be in the manifest with its size
and its SHA-256, every one of the manifest's must be there, and nothing may be a link, a device or a pipe. It reads each file once, none
that is not in the manifest, and none that has another size.

What a verification is worth:
  1. It is worth what the public keys are (signing_keys.py tells where they may come from).
  2. It holds for what was read. Who loads the folder later and mistrusts its storage copies it to a place of its own, verifies the copy
     and loads that; or checks with `covers` the bytes that it goes on with, as whole.py does.

Signing again replaces the signature, so that after a change of keys versions can be verified with the old key and signed with the new.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import stat
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal, NoReturn

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from pydantic import AfterValidator, Field, ValidationError

from circadian.files import to_disk
from circadian.memory.folder import RECORD_FILE, VersionBroken
from circadian.memory.signing_keys import key_id
from circadian.specs import VersionRecord
from circadian.specs.base import Spec

SIGNATURE_FILE = "signature.json"
MOST_BYTES = 4 << 20
"""Of signature.json, before it is read whole: room for some twenty thousand files. A version has about twenty."""
READABLE = 0o644
"""Most that anybody may do with signature.json."""
RESTORE = "restore the folder from a copy of the version"
_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
"""Neither a link is followed nor a pipe waited for that takes a file's place while the folder is read."""


class SignatureBroken(VersionBroken):
    """A version folder is not what a trusted key signed."""


def _inside(path: str) -> str:
    """A path that leads to no other folder."""
    parts = PurePosixPath(path).parts
    if not parts or parts[0] == "/" or ".." in parts or str(PurePosixPath(path)) != path:
        raise ValueError(f"{path!r} is no path inside the folder; sign the version again")
    return path


class SignedFile(Spec):
    """One file of a version."""

    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    size: Annotated[int, Field(ge=0)]
    """Bytes."""


class Manifest(Spec):
    """Every file of a version."""

    format: Literal["circadian-manifest-1"] = "circadian-manifest-1"
    """Signed with the rest: what else the key may sign one day is not taken for a version."""
    version: Annotated[str, Field(min_length=1)]
    """Id, which is the name of its folder."""
    files: dict[Annotated[str, AfterValidator(_inside)], SignedFile]
    """By path in the folder."""

    def canonical(self) -> bytes:
        """What is signed."""
        return json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":")).encode()


class Signature(Spec):
    """signature.json."""

    manifest: Manifest
    algorithm: Literal["ed25519"] = "ed25519"
    key: str
    """Id of the key that signed."""
    signature: Annotated[str, Field(pattern=r"^[0-9a-f]{128}$")]

    def covers(self, path: str, content: bytes) -> bool:
        """Whether these are the bytes that were signed as the file of this path."""
        signed = self.manifest.files.get(path)
        return signed is not None and hashlib.sha256(content).hexdigest() == signed.sha256


def sign(folder: Path, private_key: Ed25519PrivateKey) -> Signature:
    """Sign a version as it lies there, and write signature.json in it, in the place of an earlier one. The same folder and key make the
    same file.

    Raises SignatureBroken for a folder that is no version of its name, or holds what is no plain file.
    """
    _check_folder(folder)
    manifest = Manifest(version=folder.absolute().name, files=_contents(folder))
    key = key_id(private_key.public_key())
    signature = Signature(manifest=manifest, key=key, signature=private_key.sign(manifest.canonical()).hex())
    _check_record(folder, signature)
    _write(folder, signature)
    return signature


def verify(folder: Path, *keys: Ed25519PublicKey, version: str | None = None) -> Signature:
    """What was signed, if the folder is exactly that and one of these keys signed it.

    version: the id it must have; its folder's name, unless it is a copy under another one.
    Raises SignatureBroken, which names the file and what to do, and OSError where a file cannot be read.
    """
    _check_folder(folder)
    signature, wanted = _signed(folder, keys), version or folder.absolute().name
    if signature.manifest.version != wanted:
        raise SignatureBroken(f"{folder} holds version {signature.manifest.version} in the place of {wanted}; {RESTORE}")
    promised = signature.manifest.files
    missing = sorted(promised.keys() - _contents(folder, promised).keys())
    if missing:
        raise SignatureBroken(f"{folder / missing[0]} was signed and is not there; {RESTORE}")
    return signature


def _check_folder(folder: Path) -> None:
    if folder.is_symlink() or not folder.is_dir():
        raise SignatureBroken(f"{folder} is {'a link' if folder.is_symlink() else 'no folder'}; give the version's own folder")


def _check_record(folder: Path, signature: Signature) -> None:
    """The folder is the version that its name says."""
    path, version = folder / RECORD_FILE, signature.manifest.version
    if RECORD_FILE not in signature.manifest.files:
        raise SignatureBroken(f"{folder} is not a version folder: it has no {RECORD_FILE}; give one that has")
    content = path.read_bytes()
    try:
        record = VersionRecord.model_validate_json(content)
    except ValidationError as error:
        raise SignatureBroken(f"{path} is no record of a version ({error.errors()[0]['msg']}); {RESTORE}") from error
    if record.id != version or not signature.covers(RECORD_FILE, content):
        raise SignatureBroken(f"{path} is of {record.id}, or was being written; sign version {version} in a folder of that name")


def _signed(folder: Path, keys: Iterable[Ed25519PublicKey]) -> Signature:
    """signature.json, if one of these keys signed its manifest."""
    path, trusted = folder / SIGNATURE_FILE, {key_id(key): key for key in keys}
    if path.is_symlink() or not path.is_file():
        raise SignatureBroken(f"{path} is not there as a plain file: the controller has not signed this version; {RESTORE}")
    with open(os.open(path, _OPEN), "rb") as file:
        content = file.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise SignatureBroken(f"{path} has more than {MOST_BYTES} bytes, which no signature has; {RESTORE}")
    try:
        signature = Signature.model_validate_json(content)
    except ValidationError as error:
        raise SignatureBroken(f"{path} is no signature of a version ({error.errors()[0]['msg']}); {RESTORE}") from error
    if signature.key not in trusted:
        known = ", ".join(sorted(trusted)) or "none"
        raise SignatureBroken(
            f"{path}: key {signature.key} is not trusted, but {known}; {RESTORE}, or trust the key that signed it"
        )
    try:
        trusted[signature.key].verify(bytes.fromhex(signature.signature), signature.manifest.canonical())
    except InvalidSignature as error:
        raise SignatureBroken(f"{path}: its manifest is not what key {signature.key} signed; {RESTORE}") from error
    return signature


def _contents(folder: Path, promised: Mapping[str, SignedFile] | None = None) -> dict[str, SignedFile]:
    """Every file of the folder but its signature. With `promised` the first that differs is refused. No link is followed on the way."""
    found = {}
    for root, folders, files, descriptor in os.fwalk(folder, onerror=_fail):
        for name in (*folders, *files):
            _check_plain(Path(root, name), os.stat(name, dir_fd=descriptor, follow_symlinks=False).st_mode)
        for name in files:
            place = Path(root, name)
            path = place.relative_to(folder).as_posix()
            if path == SIGNATURE_FILE:
                continue
            if promised is not None and path not in promised:
                raise SignatureBroken(f"{place} was not signed with the version; remove it")
            with open(os.open(name, _OPEN, dir_fd=descriptor), "rb") as file:
                found[path] = _entry(file, place, promised[path] if promised is not None else None)
    return dict(sorted(found.items()))


def _entry(file: io.BufferedReader, place: Path, promised: SignedFile | None) -> SignedFile:
    """What is in the file, if it is as promised."""
    info = os.fstat(file.fileno())
    size = info.st_size
    _check_plain(place, info.st_mode)  # again: what was looked at may have been replaced before it was opened
    if promised is not None and size != promised.size:
        raise SignatureBroken(f"{place} has {size} bytes, signed were {promised.size}; {RESTORE}")
    entry = SignedFile(sha256=hashlib.file_digest(file, "sha256").hexdigest(), size=size)
    if promised is not None and entry != promised:
        raise SignatureBroken(
            f"{place} is not what was signed (SHA-256 {entry.sha256[:12]}, not {promised.sha256[:12]}); {RESTORE}"
        )
    return entry


def _check_plain(place: Path, mode: int) -> None:
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        kind = "a link" if stat.S_ISLNK(mode) else "neither file nor folder"
        raise SignatureBroken(f"{str(place)!r} is {kind}, which no version holds; remove it, or {RESTORE}")
    if not place.name.isprintable():
        raise SignatureBroken(f"{str(place)!r} has a name that cannot be shown, as nothing in a version has; remove it")


def _fail(error: OSError) -> NoReturn:
    """A folder that cannot be read is not one that is empty."""
    raise error


def _write(folder: Path, signature: Signature) -> None:
    """Staged beside the folder, which so never holds a file that nobody signed, under a name that nobody can take first; readable for
    whoever reads the version."""
    descriptor, staging = tempfile.mkstemp(prefix=f".{folder.name}.{SIGNATURE_FILE}.", dir=folder.parent)
    with open(descriptor, "w") as file:
        file.write(signature.model_dump_json(indent=2) + "\n")
        os.fchmod(descriptor, stat.S_IMODE((folder / RECORD_FILE).stat().st_mode) & READABLE)
        file.flush()
        os.fsync(descriptor)
    os.replace(staging, folder / SIGNATURE_FILE)
    to_disk(folder)
