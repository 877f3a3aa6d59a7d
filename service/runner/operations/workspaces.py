"""What is asked of the list of workspaces, which front ends keep here for all their users, by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, TypedDict

from openhands.sdk.utils.cipher import Cipher
from pydantic import Field

from service.errors import JsonObject, NotFound
from service.requests.message import Request
from service.runner.operations.store_access import StoreAccess
from service.runner.operations.table import Operation
from service.runner.persistence.stored_json import StoredJson
from service.settings import Settings

_LISTS = {"workspaces": "Workspace not found", "workspaceParents": "Workspace parent not found"}
"""And what is said of one that is not in it."""


class _Entry(TypedDict):
    path: str


class _WorkspacesFile(TypedDict, total=False):
    schema_version: Annotated[int, Field(strict=True, le=1)]
    workspaces: list[_Entry]
    workspaceParents: list[_Entry]


class WorkspaceOperations:
    """`workspaces.json`."""

    def __init__(self, settings: Settings, cipher: Cipher, access: StoreAccess) -> None:
        self._file = StoredJson(_folder(settings), "workspaces", _WorkspacesFile, cipher)
        self.table: dict[str, Operation] = {
            "workspaces.list": access.reading(lambda _: _shown(self._file.read())),
            "workspaces.add": access.changing(self._add),
            "workspaces.delete": access.changing(self._delete),
        }

    def _add(self, request: Request) -> JsonObject:
        """Those whose path is not there yet."""
        name = request.arguments["list"]
        with self._file.changing() as content:
            known = content.setdefault(name, [])
            for entry in json.loads(request.body):
                if entry["path"] not in [each["path"] for each in known]:
                    known.append(entry)
            return _shown(content)

    def _delete(self, request: Request) -> JsonObject:
        name, path = request.arguments["list"], request.arguments["path"]
        with self._file.changing() as content:
            known = content.get(name, [])
            kept = [each for each in known if each["path"] != path]
            if kept == known:
                raise NotFound(_LISTS[name])
            content[name] = kept
        return {"deleted": True}


def _folder(settings: Settings) -> Path:
    """The published server's, whose default is another than that of the other settings."""
    return settings.persistence_dir or settings.conversations_path.parent / ".openhands"


def _shown(content: JsonObject) -> JsonObject:
    return {name: content.get(name, []) for name in _LISTS}
