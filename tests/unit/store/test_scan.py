"""What the disk says about every conversation, whoever wrote it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from uuid import UUID

import pytest

from service.store.layout import ConversationsRoot
from service.store.scan import Found, scan
from service.store.snapshot import Snapshot, SnapshotHeader, write_snapshot
from tests.unit.store.conversation_files import LONG_AGO, make_conversation

ID = UUID(int=7)
CREATED, UPDATED = "2026-01-01T00:00:00.000000Z", "2026-01-02T00:00:00.000000Z"


def found(root: Path) -> list[Found]:
    return list(scan(ConversationsRoot(root)))


def test_scan_of_no_directory_finds_nothing(tmp_path: Path) -> None:
    """The first start makes it later."""
    assert found(tmp_path / "missing") == []


def test_our_own_snapshot_is_believed(tmp_path: Path) -> None:
    """It is newer than the files that the SDK writes at the end of a step."""
    directory = make_conversation(tmp_path, ID, execution_status="idle")
    directory.meta.write_text(json.dumps({"created_at": "1999", "updated_at": "1999"}))
    write_snapshot(directory, Snapshot(SnapshotHeader("running", CREATED, UPDATED), b"{}", b"{}", b""))
    assert found(tmp_path) == [Found(ID, CREATED, UPDATED, "running")]


def test_published_servers_directory_is_read_from_its_files(tmp_path: Path) -> None:
    """Times from `meta.json`, the status from `base_state.json`."""
    directory = make_conversation(tmp_path, ID, execution_status="finished")
    directory.meta.write_text(json.dumps({"created_at": CREATED, "updated_at": UPDATED}))
    assert found(tmp_path) == [Found(ID, CREATED, UPDATED, "finished")]


def test_directory_of_the_sdk_alone_has_its_files_time(tmp_path: Path) -> None:
    """Without `meta.json` there is nothing better."""
    directory = make_conversation(tmp_path, ID)
    os.utime(directory.base_state, (LONG_AGO, LONG_AGO))
    moment = "2023-11-14T22:13:20+00:00"
    assert found(tmp_path) == [Found(ID, moment, moment, "idle")]


def test_broken_snapshot_is_passed_over(tmp_path: Path) -> None:
    """The files beside it say the same."""
    directory = make_conversation(tmp_path, ID, execution_status="paused")
    directory.meta.write_text(json.dumps({"created_at": CREATED, "updated_at": UPDATED}))
    directory.snapshot.write_bytes(b"half of")
    assert found(tmp_path) == [Found(ID, CREATED, UPDATED, "paused")]


def test_directory_without_a_state_is_no_conversation(tmp_path: Path) -> None:
    """Its making was never finished."""
    make_conversation(tmp_path, ID).base_state.unlink()
    assert found(tmp_path) == []


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("base_state.json", b"{"),
        ("base_state.json", b"[]"),
        ("base_state.json", b"{}"),
        ("base_state.json", b'{"execution_status":null}'),
        ("meta.json", b"{"),
        ("meta.json", b"[]"),
        ("meta.json", b'{"created_at":"yesterday"}'),
        ("meta.json", b'{"updated_at":null}'),
    ],
)
def test_unreadable_conversation_does_not_hide_the_others(tmp_path: Path, name: str, content: bytes) -> None:
    """It is left out, and what is left can be put into the index."""
    make_conversation(tmp_path, ID)
    bad = make_conversation(tmp_path)
    (bad.path / name).write_bytes(content)
    assert [each.conversation_id for each in found(tmp_path)] == [ID]
