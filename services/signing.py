"""Version folders are signed when they are committed, and read only where they are still what was signed.

The private key is a secret of the controllers in their home, or where CIRCADIAN_SIGNING_KEY_FILE says; see circadian/memory/signing_keys.py
for who must not be able to read it. Versions from before there were signatures are signed once, as they lie there, by the first
controller that leads with them.
"""

from __future__ import annotations

import logging
from functools import cached_property
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from sqlalchemy import select

from circadian.memory.signature import Signature, SignatureBroken, sign, verify
from circadian.memory.signing_keys import private_key, public_hex, public_key
from services.keys import owned_secret
from services.leader import Lease
from services.settings import Settings
from services.tables import Json, Version

log = logging.getLogger(__name__)
KEY_FILE = "signing_key"


class Signing:
    """Signs and verifies for one home."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    @cached_property
    def _private(self) -> Ed25519PrivateKey:
        return private_key(owned_secret(self.settings.signing_key_file or self.settings.home_folder / KEY_FILE))

    @cached_property
    def trusted(self) -> tuple[Ed25519PublicKey, ...]:
        """This home's own, and those of keys that have signed before it."""
        return (self._private.public_key(), *(public_key(text) for text in self.settings.trusted_signing_keys))

    @property
    def trusted_hex(self) -> tuple[str, ...]:
        """To be given to replicas and nights by value."""
        return tuple(public_hex(key) for key in self.trusted)

    def sign(self, folder: Path) -> Json:
        """As it lies there from now on. Raises SignatureBroken for what is no version."""
        return shown(sign(folder, self._private))

    def verify(self, folder: Path) -> Signature:
        """What was signed. Raises SignatureBroken, which names the file and the remedy, and OSError."""
        return verify(folder, *self.trusted)

    def adopt(self, lease: Lease) -> None:
        """Sign what was there before there were signatures."""
        with lease.database.read() as tx:
            old = list(
                tx.execute(select(Version.id, Version.folder).where(Version.signature.is_(None), Version.status != "deleted"))
            )
        for id, folder in old:
            try:
                signature = self.sign(Path(folder))
            except (SignatureBroken, OSError) as error:
                log.error("%s is not signed, and will not serve: %s", id, error)
                continue
            log.warning("%s was made before versions were signed, and is signed as it is now", id)
            with lease.write() as tx:
                tx.scalars(select(Version).where(Version.id == id)).one().signature = signature


def shown(signature: Signature) -> Json:
    """What clients see of a signature."""
    return {"algorithm": signature.algorithm, "key": signature.key, "signature": signature.signature}
