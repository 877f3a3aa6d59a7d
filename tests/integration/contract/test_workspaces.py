"""The list of workspaces that front ends keep on the server."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.integration.contract.conversations import JsonObject
from tests.server_process import Server

WORKSPACES = "/api/workspaces"
EMPTY: JsonObject = {"workspaces": [], "workspaceParents": []}


@pytest.fixture(autouse=True)
def _empty(server: Server) -> Iterator[None]:
    """The published server's place beside the conversations."""
    path = server.directory / ".openhands" / "workspaces.json"
    path.unlink(missing_ok=True)
    yield
    path.unlink(missing_ok=True)


def entry(path: str, **more: str) -> JsonObject:
    return {"id": path, "name": f"name of {path}", "path": path, **more}


def test_workspaces_are_added_once(http: httpx.Client, server: Server) -> None:
    """Each path; both spellings of a key are understood, and paths need not be any."""
    assert http.get(WORKSPACES).json() == EMPTY
    first = http.post(WORKSPACES, json={"workspaces": [entry("/a", parentPath="/"), entry("b", parent_path="/p")]})
    second = http.post(WORKSPACES, json={"workspaces": [entry("/a"), entry("/c")]})
    assert first.status_code == 200
    shown = http.get(WORKSPACES).json()
    assert second.json() == shown
    assert shown["workspaces"] == [entry("/a", parentPath="/"), entry("b", parentPath="/p"), entry("/c")]
    assert (server.directory / ".openhands" / "workspaces.json").exists()


def test_workspaces_are_taken_off(http: httpx.Client) -> None:
    http.post(WORKSPACES, json={"workspaces": [entry("/a")]}).raise_for_status()
    http.post(f"{WORKSPACES}/parents", json={"parents": [entry("/p")]}).raise_for_status()
    assert http.get(WORKSPACES).json()["workspaceParents"] == [entry("/p")]
    for route, path, reason in (("", "/a", "Workspace not found"), ("/parents", "/p", "Workspace parent not found")):
        assert http.delete(f"{WORKSPACES}{route}", params={"path": path}).json() == {"deleted": True}
        gone = http.delete(f"{WORKSPACES}{route}", params={"path": path})
        assert (gone.status_code, gone.json()["detail"]) == (404, reason)
    assert http.get(WORKSPACES).json() == EMPTY


@pytest.mark.parametrize(
    "bad", [{"path": ""}, {"name": ""}, {"path": "x" * 4097}, {"name": "x" * 257}, {"id": None}, {"path": 3}]
)
def test_what_is_no_workspace_is_refused(http: httpx.Client, bad: JsonObject) -> None:
    assert http.post(WORKSPACES, json={"workspaces": [entry("/a") | bad]}).status_code == 422
    assert http.post(f"{WORKSPACES}/parents", json={"parents": [entry("/a") | bad]}).status_code == 422
    assert http.delete(WORKSPACES).status_code == 422


@pytest.mark.parametrize(
    "content",
    [
        b"{",
        b"",
        b"\xff",
        b"[]",
        b'{"schema_version": 2, "workspaces": []}',
        b'{"schema_version": "1", "workspaces": []}',
        b'{"workspaces": "/a"}',
        b'{"workspaces": ["/a"]}',
    ],
)
def test_broken_or_later_file_is_a_conflict(http: httpx.Client, server: Server, content: bytes) -> None:
    """It is left as it is."""
    path = server.directory / ".openhands" / "workspaces.json"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    for answer in (
        http.get(WORKSPACES),
        http.post(WORKSPACES, json={"workspaces": [entry("/a")]}),
        http.delete(WORKSPACES, params={"path": "/a"}),
    ):
        assert (answer.status_code, answer.json()["detail"].split(":")[0]) == (409, "Workspaces file is corrupted")
    assert path.read_bytes() == content


def test_many_at_once_lose_nothing(http: httpx.Client) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: http.post(WORKSPACES, json={"workspaces": [entry(f"/{n}")]}), range(20)))
    assert len(http.get(WORKSPACES).json()["workspaces"]) == 20
