"""The key that encrypts secrets on disk when none is configured.

Without one the SDK stores no secret at all, and a conversation that is opened again, after a restart or by another
runner, cannot call its LLM. The key lies beside the conversations, readable by the server's user only: it protects
copies of single conversations, not against somebody who reads the whole directory. Configure one for that.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from service.store.atomic import FILE_MODE

_NAME = ".secret_key"


def load_or_create(conversations_path: Path) -> str:
    """The key of this directory of conversations, made by whichever process is first. Blocking."""
    path = conversations_path / _NAME
    if not path.exists():
        conversations_path.mkdir(parents=True, exist_ok=True)
        made = path.with_name(f"{_NAME}.{secrets.token_hex(4)}")
        descriptor = os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL, FILE_MODE)
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_urlsafe(32))
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(made, path)  # unlike a rename, never replaces the key of a faster process
        except FileExistsError:
            pass
        finally:
            made.unlink()
    return path.read_text("utf-8")


def load_kept(conversations_path: Path) -> str | None:
    """The key that was made here, if one was. Blocking."""
    try:
        return (conversations_path / _NAME).read_text("utf-8")
    except FileNotFoundError:
        return None
