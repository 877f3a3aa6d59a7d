"""A file of settings below `persistence_dir`: whole or absent, changed by one at a time. Blocking."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from openhands.sdk.utils.cipher import Cipher
from pydantic import TypeAdapter, ValidationError

from service.errors import Conflict, JsonObject, Unavailable
from service.runner.secrets_at_rest import UnknownSecretKey, require_known_tokens
from service.store.atomic import write_atomically

_LOCK_WAIT_SECONDS = 10.0
_DIRECTORY_MODE = 0o700


class StoredJson:
    """`<name>.json` in the published server's place, under the lock that it takes too, `.<name>.lock`."""

    def __init__(self, root: Path, name: str, form: Any, cipher: Cipher) -> None:
        """`form`: the type, for pydantic, of what this server knows of the content."""
        self._form = TypeAdapter(form)
        self._path = root / f"{name}.json"
        self._lock_path = root / f".{name}.lock"
        self._cipher = cipher

    def read(self) -> JsonObject:
        """The content, as stored; empty when there is no file. Makes nothing.

        Raises:
            Conflict: it has another form, so may be of a later version, or holds a secret that no key decrypts. The SDK
                would take that for absent and write the file without it.
        """
        try:
            text = self._path.read_text("utf-8")
            content: JsonObject = json.loads(text)
            self._form.validate_python(content)
        except FileNotFoundError:
            return {}
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(map(str, first["loc"])) or "all of it"
            raise self._corrupted(f"{where}: {first['msg']}") from error
        except ValueError as error:
            raise self._corrupted(str(error)) from error
        try:
            require_known_tokens(text, self._cipher)
        except UnknownSecretKey as error:
            raise Conflict(f"{self._path.name} cannot be used: {error}") from error
        return content

    @contextmanager
    def changing(self) -> Iterator[JsonObject]:
        """The content, to be changed in place; it is stored at the end of the block, unless that raises.

        Raises:
            Unavailable: another process held the file for too long.
            Conflict: as for `read`.
        """
        self._path.parent.mkdir(mode=_DIRECTORY_MODE, parents=True, exist_ok=True)
        try:
            with FileLock(self._lock_path).acquire(timeout=_LOCK_WAIT_SECONDS):
                content = self.read()
                yield content
                write_atomically(self._path, json.dumps(content, indent=2).encode(), fsync=True)
        except Timeout:
            raise Unavailable("Profile store is busy. Please retry.") from None

    def _corrupted(self, reason: str) -> Conflict:
        return Conflict(f"{self._path.stem.capitalize()} file is corrupted: {reason}")
