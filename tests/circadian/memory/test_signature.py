"""A version folder is exactly what the controller signed, or it is refused by name."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from random_base import write_base

from circadian.memory.folder import VersionBroken, read_record
from circadian.memory.graft import Grafted
from circadian.memory.signature import (
    MOST_BYTES,
    SIGNATURE_FILE,
    Manifest,
    Signature,
    SignatureBroken,
    SignedFile,
    sign,
    verify,
)
from circadian.memory.signing_keys import key_id, private_key, public_hex, public_key, public_keys, write_public_keys
from circadian.memory.version import found_version, load_tokenizer, load_version, save_version
from circadian.specs import Level, MemorySpec
from services.keys import owned_secret

SPEC = MemorySpec(levels=(Level(period=4, experts=1, rank=2), Level(period=8, experts=2, rank=2)))
KEY, OTHER = Ed25519PrivateKey.from_private_bytes(b"k" * 32), Ed25519PrivateKey.from_private_bytes(b"o" * 32)
PUBLIC = KEY.public_key()
DREAMER = "dreamer/adapter_model.safetensors"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a version as a night leaves it: an expert, cues, standings and a dreamer."""
    folder = tmp_path_factory.mktemp("versions")
    found_version(str(write_base(folder / "base", layers=1)), None, SPEC, folder / "ver_0")
    model: Grafted = load_version(folder / "ver_0")
    model.seal(model.open_expert(1, seed=1))
    dreamer = folder / "dreamt"
    dreamer.mkdir()
    (dreamer / "adapter_model.safetensors").write_bytes(bytes(range(256)))
    (dreamer / "adapter_config.json").write_text('{"r": 4}')
    record = read_record(folder / "ver_0").model_copy(update={"id": "ver_1", "parent": "ver_0"})
    extra = {"cues.json": '{"cues": []}', "standings.json": "{}"}
    save_version(folder / "ver_1", model, record, folder / "ver_0", extra, {"dreamer": dreamer})
    return folder / "ver_1"


@pytest.fixture
def version(made: Path, tmp_path: Path) -> Path:
    """A copy of it, signed."""
    folder = shutil.copytree(made, tmp_path / "versions" / "ver_1")
    sign(folder, KEY)
    return folder


def edited(folder: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    """signature.json with something changed in it."""
    told = json.loads((folder / SIGNATURE_FILE).read_text())
    edit(told)
    (folder / SIGNATURE_FILE).write_text(json.dumps(told))


def flip(path: Path) -> None:
    """One bit, and the size stays."""
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def swapped_and_listed(folder: Path) -> None:
    """A memory edited, and the manifest edited to match."""
    flip(folder / "memory.safetensors")
    forged = sign(shutil.copytree(folder, folder.parent / "forge" / folder.name), OTHER)
    edited(folder, lambda told: told.update(manifest=forged.manifest.model_dump()))


def struck_out(folder: Path) -> None:
    """A file less, and the manifest edited to match."""
    (folder / "cues.json").unlink()
    edited(folder, lambda told: told["manifest"]["files"].pop("cues.json"))


def as_an_older_one(folder: Path, named: str = "ver_0") -> None:
    """Another version, rightly signed, in the place of this one; named otherwise by whoever put it there."""
    other = folder.with_name("ver_0")
    folder.rename(other)
    record = json.loads((other / "version.json").read_text())
    (other / "version.json").write_text(json.dumps(record | {"id": "ver_0"}))
    sign(other, KEY)
    other.rename(folder)
    edited(folder, lambda told: told["manifest"].update(version=named))


def as_a_link(path: Path) -> None:
    """The same content, but elsewhere."""
    versions = next(parent for parent in path.parents if parent.name == "versions")
    elsewhere = versions.with_name("elsewhere")
    path.rename(elsewhere)
    path.symlink_to(elsewhere, target_is_directory=elsewhere.is_dir())


def test_what_was_signed_is_verified_and_still_a_version(version: Path) -> None:
    signature = verify(version, PUBLIC)
    files = {str(path.relative_to(version)) for path in version.rglob("*") if path.is_file()}
    assert set(signature.manifest.files) == files - {SIGNATURE_FILE}
    assert {"memory.safetensors", "version.json", "config.json", "cues.json", "tokenizer.json", DREAMER} < files
    assert signature.covers("cues.json", b'{"cues": []}')
    assert not signature.covers("cues.json", b'{"cues": [] }')
    assert not signature.covers("elsewhere.json", b'{"cues": []}')
    assert load_version(version).memory_state.names() == [["reserved"], ["sealed", "reserved"]]
    assert len(load_tokenizer(version)) > 0


EDITED = ("memory.safetensors", "version.json", "config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
BESIDE = ("cues.json", "standings.json", DREAMER, "dreamer/adapter_config.json")


@pytest.mark.parametrize("name", [*EDITED, *BESIDE])
@pytest.mark.parametrize("how", ["a bit", "longer", "gone", "a link", "a pipe"])
def test_a_file_that_is_not_what_was_signed_is_named(version: Path, name: str, how: str) -> None:
    path = version / name
    if how == "a bit":
        flip(path)
    elif how == "longer":
        path.write_bytes(path.read_bytes() + b" ")
    elif how == "a link":
        as_a_link(path)
    else:
        path.unlink()
        if how == "a pipe":
            os.mkfifo(path)
    said = {"a bit": "not what was signed", "longer": "bytes, signed were", "gone": "not there"}.get(how, "which no version holds")
    with pytest.raises(SignatureBroken, match=rf"{name}.*{said}.*restore the folder") as refused:
        verify(version, PUBLIC)
    assert isinstance(refused.value, VersionBroken)  # whoever refuses a broken version refuses this one


REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "a file more": (lambda v: (v / "pytorch_model.bin").write_bytes(b"x"), r"pytorch_model\.bin was not signed.*remove it"),
    "a hidden file more": (lambda v: (v / "dreamer/.hidden").write_bytes(b""), r"\.hidden was not signed"),
    "a folder with a file": (lambda v: shutil.copytree(v / "dreamer", v / "code"), r"code/adapter_\w+\.\w+ was not signed"),
    "a link more": (lambda v: (v / "more").symlink_to("/nowhere"), r"more' is a link"),
    "a folder linked": (lambda v: as_a_link(v / "dreamer"), r"dreamer' is a link"),
    "a folder linked more": (lambda v: (v / "more").symlink_to("/"), r"more' is a link"),
    "a name that hides": (lambda v: (v / "a\nb").write_bytes(b""), r"a\\nb' has a name that cannot be shown"),
    "the version itself a link": (as_a_link, r"ver_1 is a link"),
    "no version at all": (shutil.rmtree, r"ver_1 is no folder"),
    "no signature": (lambda v: (v / SIGNATURE_FILE).unlink(), r"signature\.json is not there.*has not signed"),
    "a signature linked": (lambda v: as_a_link(v / SIGNATURE_FILE), r"signature\.json is not there as a plain file"),
    "no JSON": (lambda v: (v / SIGNATURE_FILE).write_bytes(b"\xff{"), r"is no signature of a version"),
    "endless": (lambda v: os.truncate(v / SIGNATURE_FILE, MOST_BYTES + 1), rf"more than {MOST_BYTES} bytes"),
    "another key": (lambda v: sign(v, OTHER), rf"key {key_id(OTHER.public_key())} is not trusted, but {key_id(PUBLIC)};.*or trust"),
    "another key under the first's name": (
        lambda v: edited(v, lambda told: told.update(signature=sign(v, OTHER).signature, key=key_id(PUBLIC))),
        r"its manifest is not what key \w+ signed",
    ),
    "a manifest that matches": (swapped_and_listed, r"its manifest is not what key \w+ signed"),
    "a file struck out": (
        struck_out,
        r"its manifest is not what key \w+ signed",
    ),
    "an older version, signed": (as_an_older_one, r"ver_1 holds version ver_0 in the place of ver_1"),
    "a renamed older version": (
        lambda v: as_an_older_one(v, "ver_1"),
        r"its manifest is not what key \w+ signed",
    ),
    "another algorithm": (lambda v: edited(v, lambda told: told.update(algorithm="none")), r"is no signature of a version"),
    "a path that leads out": (
        lambda v: edited(v, lambda told: told["manifest"]["files"].update({"../x": {"sha256": "0" * 64, "size": 0}})),
        r"'\.\./x' is no path inside the folder",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_folder_that_somebody_changed_is_refused(version: Path, case: str) -> None:
    change, said = REFUSED[case]
    verify(version, PUBLIC)
    change(version)
    with pytest.raises(SignatureBroken, match=f"(?s){said}"):
        verify(version, PUBLIC)


@pytest.mark.parametrize("path", ["", ".", "/etc/passwd", "..", "a/../b", "a//b", "./a", "a/"])
def test_a_manifest_names_paths_inside_the_folder_alone(path: str) -> None:
    with pytest.raises(ValueError, match="no path inside the folder"):
        Manifest(version="v", files={path: SignedFile(sha256="0" * 64, size=0)})


def test_a_copy_under_another_name_says_which_version_it_must_be(version: Path) -> None:
    copy = shutil.copytree(version, version.parent / "copy")
    assert verify(copy, PUBLIC, version="ver_1") == verify(version, PUBLIC)
    for wanted in (None, "ver_2"):
        with pytest.raises(SignatureBroken, match="in the place of"):
            verify(copy, PUBLIC, version=wanted)


def test_signing_again_makes_the_same_file_and_leaves_nothing_else(version: Path) -> None:
    before = (version / SIGNATURE_FILE).read_bytes()
    beside = sorted(version.parent.iterdir())
    (version / SIGNATURE_FILE).write_text("torn")
    assert Signature.model_validate_json(before) == sign(version, KEY)
    assert (version / SIGNATURE_FILE).read_bytes() == before
    assert sorted(version.parent.iterdir()) == beside


SIGNED_NEVER: dict[str, tuple[Callable[[Path], object], str]] = {
    "a link in it": (lambda v: as_a_link(v / "tokenizer.json"), r"tokenizer\.json' is a link"),
    "a pipe in it": (lambda v: os.mkfifo(v / "pipe"), r"pipe' is neither file nor folder"),
    "no record": (lambda v: (v / "version.json").unlink(), r"has no version\.json"),
    "a torn record": (lambda v: os.truncate(v / "version.json", 9), r"version\.json is no record of a version"),
    "the record of another": (
        lambda v: (v / "version.json").write_text((v / "version.json").read_text().replace('"ver_1"', '"ver_2"')),
        r"version\.json is of ver_2",
    ),
}


@pytest.mark.parametrize("case", SIGNED_NEVER)
def test_what_is_no_version_of_its_name_is_not_signed(version: Path, case: str) -> None:
    change, said = SIGNED_NEVER[case]
    (version / SIGNATURE_FILE).unlink()
    change(version)
    with pytest.raises(SignatureBroken, match=said):
        sign(version, KEY)
    assert not (version / SIGNATURE_FILE).exists()


def test_while_keys_are_changed_both_are_trusted_and_after_it_the_new_one_alone(version: Path, tmp_path: Path) -> None:
    old, new, path = PUBLIC, OTHER.public_key(), tmp_path / "signing_key.pub"
    write_public_keys(path, [new, old])
    assert [public_hex(key) for key in public_keys(path)] == [public_hex(new), public_hex(old)]
    assert verify(version, *public_keys(path)).key == key_id(old)
    sign(version, OTHER)
    assert verify(version, *public_keys(path)).key == key_id(new)
    write_public_keys(path, [new])
    assert verify(version, *public_keys(path)).key == key_id(new)
    with pytest.raises(SignatureBroken, match="not trusted, but none"):
        verify(version)


def test_the_controllers_secret_is_a_key_and_stays_the_same(tmp_path: Path, version: Path) -> None:
    path = tmp_path / "home" / "signing_key"
    key = private_key(owned_secret(path))
    assert path.stat().st_mode & 0o777 == 0o600
    again = private_key(owned_secret(path) + b"\n")  # as an editor or a cluster's secret has it
    assert public_hex(again.public_key()) == public_hex(key.public_key())
    sign(version, key)
    assert verify(version, public_key(public_hex(key.public_key()) + "\n")).key == key_id(again.public_key())


@pytest.mark.parametrize("secret", ["abc", "-----BEGIN PRIVATE KEY-----", "g" * 64, "0" * 63, "0" * 65, "\ufffd" * 64])
def test_what_is_no_key_is_refused_and_never_shown(secret: str, tmp_path: Path) -> None:
    path = tmp_path / "keys"
    with pytest.raises(ValueError, match="64 hexadecimal digits; write") as refused:
        private_key(secret.encode())
    assert secret not in str(refused.value)
    path.write_text(f"{public_hex(PUBLIC)}\n\n{secret}\n")
    with pytest.raises(ValueError, match=r"keys, line 3: not a public key.*copy it") as refused:
        public_keys(path)
    assert secret not in str(refused.value)
    path.write_text("\n")
    with pytest.raises(ValueError, match="holds no public key; copy"):
        public_keys(path)


READER = """
import collections, json, sys
from pathlib import Path
from circadian.memory.signature import SignatureBroken, verify
from circadian.memory.signing_keys import public_key
opened = collections.Counter()
sys.addaudithook(lambda event, args: opened.update([Path(args[0]).name]) if event == "open" and isinstance(args[0], str) else None)
try:
    verify(Path(sys.argv[1]), public_key(sys.argv[2]))
    said = ""
except SignatureBroken as error:
    said = str(error)
print(json.dumps([opened, said, "torch" in sys.modules]))
"""


def test_each_file_is_read_once_without_torch_and_what_was_not_signed_never(version: Path) -> None:
    def opened() -> tuple[dict[str, int], str, bool]:
        told = subprocess.run([sys.executable, "-c", READER, str(version), public_hex(PUBLIC)], check=True, capture_output=True)
        return json.loads(told.stdout)

    times, said, torch = opened()
    names = [path.name for path in version.rglob("*") if path.is_file()]
    assert (said, torch) == ("", False)
    assert {name: times.get(name) for name in names} == dict.fromkeys(names, 1)
    (version / "huge.bin").write_bytes(b"")
    os.truncate(version / "huge.bin", 1 << 40)
    os.truncate(version / "memory.safetensors", 1 << 40)
    times, said, _ = opened()
    assert "huge.bin" in said or "memory.safetensors" in said
    assert "huge.bin" not in times
