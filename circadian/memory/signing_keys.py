"""The keys that versions are signed and verified with (signature.py). No torch.

The private key is a secret of 64 hexadecimal digits, made like the controller's others; in it lies the public key. Whoever verifies is
given public keys, one or several while keys are changed, each known by its id:

  1. They must come from where whoever is not trusted cannot write: from the controller by value (public_hex), or from a configuration.
     A file signing_key.pub is as good as its folder; on the storage that is mistrusted it is worth nothing.
  2. The controller takes its own public key from the private one, never from such a file.
  3. The private key belongs where neither nights nor replicas can read it: under another user than theirs, or on a volume of its own.

To change keys, trust both, sign with the new one, sign the old versions anew, then trust the new one alone.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from circadian.files import write_whole

KEY_ID_DIGITS = 16
_HEX = re.compile(r"[0-9a-fA-F]{64}")


def private_key(secret: bytes) -> Ed25519PrivateKey:
    """The key of a secret: 64 hexadecimal digits, as the controller's secrets are written."""
    text = secret.decode(errors="replace").strip()
    if not _HEX.fullmatch(text):
        raise ValueError(
            "the signing key is not 64 hexadecimal digits; write a file with `openssl rand -hex 32`, or give one that is not there "
            "yet, and it is written"
        )
    return Ed25519PrivateKey.from_private_bytes(bytes.fromhex(text))


def public_key(text: str) -> Ed25519PublicKey:
    """The inverse of public_hex."""
    if not _HEX.fullmatch(text.strip()):
        # not shown: it may be somebody's private key
        raise ValueError("not a public key of 64 hexadecimal digits; copy it from the controller's signing_key.pub")
    return Ed25519PublicKey.from_public_bytes(bytes.fromhex(text.strip()))


def public_hex(key: Ed25519PublicKey) -> str:
    """A public key to be given to others by value."""
    return key.public_bytes_raw().hex()


def key_id(key: Ed25519PublicKey) -> str:
    """What a signature calls the key."""
    return hashlib.sha256(key.public_bytes_raw()).hexdigest()[:KEY_ID_DIGITS]


def write_public_keys(path: Path, keys: Iterable[Ed25519PublicKey]) -> None:
    """signing_key.pub: these keys and no others, one a line, the one that signs now first."""
    write_whole(path, "".join(f"{public_hex(key)}\n" for key in keys))


def public_keys(path: Path) -> tuple[Ed25519PublicKey, ...]:
    """All keys of such a file. Raises ValueError for one that holds none, or anything else."""
    keys = []
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        try:
            keys += [public_key(line)] if line.strip() else []
        except ValueError as error:
            raise ValueError(f"{path}, line {number}: {error}") from error
    if not keys:
        raise ValueError(f"{path} holds no public key; copy the controller's signing_key.pub")
    return tuple(keys)
