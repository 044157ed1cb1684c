"""Secrets that have to be read again (those that webhooks are signed with), sealed with a key that is made of the pepper: whoever has the
database alone has none of them."""

from __future__ import annotations

import base64
import hashlib
import hmac

from cryptography.fernet import Fernet, InvalidToken

PURPOSE = b"circadian webhook secrets"


class Unsealable(Exception):
    """It was sealed with another pepper, or changed."""


class Sealer:
    """Seals and opens."""

    def __init__(self, pepper: bytes) -> None:
        self._fernet = Fernet(base64.urlsafe_b64encode(hmac.new(pepper, PURPOSE, hashlib.sha256).digest()))

    def seal(self, secret: str) -> str:
        return self._fernet.encrypt(secret.encode()).decode()

    def open(self, sealed: str) -> str:
        """Raises Unsealable."""
        try:
            return self._fernet.decrypt(sealed.encode()).decode()
        except InvalidToken as error:
            raise Unsealable("a secret was sealed with another key_pepper; rotate the endpoint's secret") from error
