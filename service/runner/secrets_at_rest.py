"""The secrets in a conversation's files: under which key they are, and bringing them under the newest one.

The SDK takes a secret that it cannot decrypt for absent and saves the state without it. So a conversation whose secrets
are under an unknown key must not be opened. Blocking.
"""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path

from openhands.sdk.utils.cipher import FERNET_TOKEN_PREFIX, Cipher
from pydantic import SecretStr

from service.runner.conversation.command import ENCRYPTED_KINDS
from service.store.atomic import write_atomically
from service.store.inbox import waiting_files
from service.store.layout import ConversationDirectory

_TOKEN = re.compile(rf"(?<![\w\-]){FERNET_TOKEN_PREFIX}[\w\-]{{66,}}={{0,2}}", re.ASCII)
"""A Fernet token has at least 73 bytes before base64 (its specification, version 0x80)."""

_REMEMBERED_SECRETS = 64


class RememberingCipher(Cipher):
    """For one conversation, whose state is stored with all its secrets whenever it changes: what was encrypted before
    is not encrypted anew.
    """

    def __init__(self, cipher: Cipher) -> None:
        super().__init__(cipher.secret_key, cipher.previous_keys)
        self._remembered = lru_cache(_REMEMBERED_SECRETS)(super().encrypt)

    def encrypt(self, secret: SecretStr | None) -> str | None:
        return self._remembered(secret)


class UnknownSecretKey(ValueError):
    """A secret is encrypted under a key that is not configured; nothing was changed."""

    def __str__(self) -> str:
        return (
            "its secrets are encrypted under a key that this server does not have. Configure that key as "
            "OH_SECRET_KEY, or as one of OH_PREVIOUS_SECRET_KEYS beside the new one. Nothing was changed."
        )


def require_known_keys(directory: ConversationDirectory, cipher: Cipher) -> None:
    """Look at the state and at the commands that wait.

    Raises:
        UnknownSecretKey: there is a secret that none of the keys decrypts.
    """
    texts = [directory.base_state.read_text("utf-8")]
    texts += [path.read_text("utf-8") for path in waiting_files(directory.inbox) if is_encrypted(path)]
    for text in texts:
        require_known_tokens(text, cipher)


def is_encrypted(inbox_file: Path) -> bool:
    return any(f".{kind}." in inbox_file.name for kind in ENCRYPTED_KINDS)


def require_known_tokens(text: str, cipher: Cipher) -> None:
    """Look at everything in `text` that is encrypted.

    Raises:
        UnknownSecretKey: none of the keys decrypts some of it.
    """
    if any(cipher.try_decrypt_str(token) is None for token in _TOKEN.findall(text)):
        raise UnknownSecretKey


def renew_secrets(directory: ConversationDirectory, cipher: Cipher, *, fsync: bool) -> None:
    """Encrypt under the current key what is under a previous one; only the owner may."""
    stored = directory.base_state.read_text("utf-8")
    renewed = _TOKEN.sub(lambda found: cipher.rotate(found[0]) or found[0], stored)
    if renewed != stored:
        write_atomically(directory.base_state, renewed.encode(), fsync=fsync)
