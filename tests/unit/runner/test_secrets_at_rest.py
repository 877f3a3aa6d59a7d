"""What encrypts one conversation's secrets."""

from __future__ import annotations

from openhands.sdk.utils.cipher import Cipher
from pydantic import SecretStr

from service.runner.secrets_at_rest import RememberingCipher


def test_secret_is_encrypted_once() -> None:
    cipher = RememberingCipher(Cipher("new", ["old"]))
    token = cipher.encrypt(SecretStr("first"))
    other = cipher.encrypt(SecretStr("second"))
    assert cipher.encrypt(SecretStr("first")) == token != other
    assert cipher.encrypt(None) is None
    assert [Cipher("new").decrypt(each) for each in (token, other)] == [SecretStr("first"), SecretStr("second")]
    assert cipher.decrypt(Cipher("old").encrypt(SecretStr("kept"))) == SecretStr("kept")
