"""A conversation's files as a zip archive, without what opens other people's doors."""

from __future__ import annotations

import json
import re
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

_HIDDEN = "**********"
_SECRET_NAME = re.compile(
    r"api_key|secret|password|token$|credential|authorization|aws_access|aws_session", re.IGNORECASE
)
_ENCRYPTED_PREFIX = "gAAAAA"
"""A Fernet token's first bytes: version and the time's leading zeros."""
_LEFT_OUT = re.compile(r"(^acp/|^inbox/|^webhooks/|^event_listing$|\.tmp$|^bash_events/(running|index)/)")
_JSON = {".json", ".jsonl"}


def write_trajectory(directory: Path, target: BinaryIO) -> None:
    """Write the archive of `directory`, members below its name and sorted, into `target`, which is then at its start.

    Blocking. Secrets in JSON, encrypted ones too, are replaced; what is being written or waits to be applied is left
    out. The history of shell commands is in it as it was.
    """
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(each for each in directory.rglob("*") if each.is_file() and not each.is_symlink()):
            name = path.relative_to(directory).as_posix()
            if _LEFT_OUT.search(name):
                continue
            try:
                content = path.read_bytes()
            except FileNotFoundError:
                continue  # replaced or deleted meanwhile
            archive.writestr(f"{directory.name}/{name}", _redacted(content) if path.suffix in _JSON else content)
    target.seek(0)


def _redacted(content: bytes) -> bytes:
    return b"\n".join(map(_redacted_line, content.split(b"\n"))) if _is_lines(content) else _redacted_line(content)


def _is_lines(content: bytes) -> bool:
    """Whether each line is JSON of its own."""
    first = content.split(b"\n", 1)[0]
    try:
        json.loads(first)
    except ValueError:
        return False
    return True


def _redacted_line(line: bytes) -> bytes:
    try:
        return json.dumps(_without_secrets(json.loads(line)), ensure_ascii=False).encode()
    except ValueError:
        return line


def _without_secrets(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            name: _HIDDEN if isinstance(each, str) and _SECRET_NAME.search(name) else _without_secrets(each)
            for name, each in value.items()
        }
    if isinstance(value, list):
        return [_without_secrets(each) for each in value]
    return _HIDDEN if isinstance(value, str) and value.startswith(_ENCRYPTED_PREFIX) else value
