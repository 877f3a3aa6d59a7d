"""Late settings on their way to other processes: encrypted, if these were started with a secret key."""

from __future__ import annotations

import base64
import hashlib

from cryptography.fernet import Fernet, InvalidToken

from service.settings import Settings
from service.settings.late import LateSettings


class SealedOtherwise(ValueError):
    """The settings were encrypted under another secret key than this process was started with."""

    def __str__(self) -> str:
        return "The configuration was encrypted under another secret key; start every process with the same one"


def seal(body: bytes, settings: Settings) -> bytes:
    """A body of valid LateSettings in JSON, for `unseal` by a process that was started with the same secret key."""
    cipher = _cipher(settings)
    return body if cipher is None else cipher.encrypt(body)


def unseal(sealed: bytes, settings: Settings) -> LateSettings:
    """What was sealed.

    Raises:
        SealedOtherwise: under another key.
    """
    cipher = _cipher(settings)
    try:
        return LateSettings.model_validate_json(sealed if cipher is None else cipher.decrypt(sealed))
    except (InvalidToken, ValueError):
        raise SealedOtherwise from None


def _cipher(settings: Settings) -> Fernet | None:
    if settings.cipher_key is None:
        return None
    return Fernet(base64.urlsafe_b64encode(hashlib.sha256(settings.cipher_key.encode()).digest()))
