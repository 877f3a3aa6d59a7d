"""Ways out of a conversation's workspace, on every route that takes a path, and odd paths on every route there is."""

from __future__ import annotations

import ctypes
import gzip
import os
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

from service.blueprints.http.places import Place, open_file, place
from tests.integration.contract.conversations import Conversation, Conversations, JsonObject

SCOPE = "/api/conversations/{runtime_conversation_id}"
TAKES_PATHS = {"path", "workspace_dir", "cwd", "file_path", "directory_path"}
TAKES_NONE = {
    *("action", "base_ref", "base_url", "client_tools", "columns", "command", "command_id", "command_id__eq", "commit"),
    *("conversation_id", "eof", "event_id", "event_ids", "exclude", "file", "format", "include_hidden", "kind__eq"),
    *("Last-Event-ID", "limit", "order__gt", "page_id", "provider", "pty", "query", "ref", "rows", "sha", "signal"),
    *("size", "sort_order", "stdin", "text", "timeout", "timestamp__gte", "timestamp__lt", "use_default_excludes"),
    *("runtime_conversation_id",),
}
"""Names of what is no path, on the routes of files, git, shell and editor."""
ROOMS = ("/file/", "/git/", "/bash/", "/vscode/", "}/workspace")


_HERE = -100
"""AT_FDCWD of fcntl.h."""
_RENAME_EXCHANGE = 2
"""Of renameat2(2)."""


class Route(NamedTuple):
    """One that takes a path, and where."""

    method: str
    path: str
    """As the document has it."""
    names: frozenset[str]
    """Of what may be a path: parameters of query and path, fields of the body."""


@pytest.fixture
def routes(http: httpx.Client) -> list[Route]:
    """By the server's own description, which must not know a name that is neither in one list nor in the other."""
    document = http.get("/openapi.json").raise_for_status().json()
    found = []
    for path, operations in document["paths"].items():
        for method, operation in operations.items() if any(room in path for room in ROOMS) else ():
            names = {each["name"] for each in operation.get("parameters", [])} | properties(document, operation)
            assert names <= TAKES_PATHS | TAKES_NONE, f"does any of them take a path? {method} {path}"
            if names & TAKES_PATHS:
                found.append(Route(method.upper(), path, frozenset(names & TAKES_PATHS)))
    assert len(found) >= 25
    return found


def properties(document: JsonObject, operation: JsonObject) -> set[str]:
    """Names of the fields of the operation's JSON body."""
    schema = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema", {})
    name = schema.get("$ref", "").rpartition("/")[2]
    return set(document["components"]["schemas"].get(name, schema).get("properties", {}))


def ask(http: httpx.Client, route: Route, path: str, one: Conversation, **more: str) -> httpx.Response:
    """What a route makes of a path; `more` is for the query."""
    url = route.path.replace("{runtime_conversation_id}", one.id).replace("{conversation_id}", one.id)
    url = url.replace("{sha}", "abcd").replace("{command_id}", "0" * 32)
    for name in route.names:
        url = url.replace(f"{{{name}}}", path.lstrip("/"))
    body: dict[str, Any] = {}
    if "cwd" in route.names:
        body = {"json": {"command": "cat secret; ls", "cwd": path}}
    elif "upload" in route.path:
        body = {"files": {"file": ("x", b"overwritten")}}
    params = dict.fromkeys(route.names & {"path", "workspace_dir"}, path)
    return http.request(route.method, url, params=params | more, **body)


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A directory with a secret."""
    directory = tmp_path / "outside"
    directory.mkdir()
    (directory / "secret").write_text("s3cr3t")
    return directory


@pytest.fixture
def one(conversation: Conversations, project: Path, outside: Path) -> Conversation:
    """A conversation whose workspace has links out of it."""
    created = conversation()
    (project / "file").write_text("inside")
    (project / "link").symlink_to(outside / "secret")
    (project / "out").symlink_to(outside)
    return created


WAYS = {
    "parent": "{project}/../outside/secret",
    "link": "{project}/link",
    "link to a directory": "{project}/out/secret",
    "parent of a link": "{project}/out/../outside/secret",
    "dots": "{project}/./../outside/secret",
    "brother": "{project}x/secret",
    "absolute": "/etc/passwd",
    "relative": "relative",
    "relative parent": "../outside/secret",
    "encoded and plain": "{project}/%2e%2e/../../outside/secret",
    "NUL": "{project}/a\0/../../outside/secret",
    "two slashes": "//{project}/../outside/secret",
    "many parents": "{project}/" + "../" * 60 + "etc/passwd",
    "long": "/" + "x" * 5000,
    "long name": "/" + "x" * 300,
}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_no_path_leads_out(
    http: httpx.Client, routes: list[Route], one: Conversation, project: Path, outside: Path, way: str
) -> None:
    """422 with the contract's words on every route below a conversation, and nothing is done."""
    path = way.format(project=project)
    below = [route for route in routes if route.path.startswith(SCOPE)]
    assert len(below) >= 10
    for route in below:
        answer = ask(http, route, path, one)
        [name] = route.names
        told = (answer.status_code, answer.json()["detail"])
        assert told == (422, f"{name} must be inside the conversation workspace"), route
    assert [entry.name for entry in outside.iterdir()] == ["secret"]
    assert (outside / "secret").read_text() == "s3cr3t"


@pytest.mark.parametrize(
    "way", ["%2e%2e%2foutside%2fsecret", "%252e%252e%252foutside%252fsecret", "..%2foutside/secret"]
)
def test_what_is_encoded_is_a_name_like_any(
    http: httpx.Client, routes: list[Route], one: Conversation, project: Path, outside: Path, way: str
) -> None:
    """Percent signs that are left after the one decoding of HTTP mean nothing."""
    for route in routes:
        if route.path.startswith(SCOPE):
            answer = ask(http, route, f"{project}/{way}", one)
            assert is_no_bug(answer), (route, answer.text)
            assert "s3cr3t" not in answer.text, route
    assert (outside / "secret").read_text() == "s3cr3t"


def is_no_bug(answer: httpx.Response) -> bool:
    """Whether the answer says what is wrong with the request, or that the editor is disabled."""
    return answer.status_code < 500 or "VSCode is disabled" in answer.text


@pytest.mark.parametrize(
    "way",
    ["none", "pipe", "pipe/below", "file/below", "a\0b", "x" * 300, "x/" * 2500, "\ufffd\u202e", "é" * 120, "loop"],
    ids=["missing", "pipe", "in a pipe", "in a file", "NUL", "long name", "long", "odd", "many bytes", "loop"],
)
def test_odd_path_is_no_bug(
    http: httpx.Client, routes: list[Route], one: Conversation, tmp_path: Path, way: str
) -> None:
    """On the machine, where every path may be asked for: the answer says what is wrong with it, and does not wait."""
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to("loop")
    os.mkfifo(tmp_path / "pipe")
    for route in routes:
        is_in_path = not route.names & {"path", "workspace_dir", "cwd"}
        if not route.path.startswith(SCOPE) and not ("\0" in way and is_in_path):  # no client sends that
            answer = ask(http, route, f"{tmp_path}/{way}", one)
            assert is_no_bug(answer), (route, answer.text)
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)


@pytest.fixture
def swapped(project: Path, outside: Path) -> Iterator[Path]:
    """A directory that is a link out of the workspace every other moment, as long as the test runs."""
    sub = project / "sub"
    sub.mkdir()
    (sub / "secret").write_text("mine")
    (project / "way").symlink_to(outside)
    is_over = threading.Event()
    exchange = ctypes.CDLL(None, use_errno=True).renameat2

    def swap() -> None:
        names = os.fsencode(sub), os.fsencode(project / "way")
        while not is_over.is_set():
            assert exchange(_HERE, names[0], _HERE, names[1], _RENAME_EXCHANGE) == 0

    thread = threading.Thread(target=swap)
    thread.start()
    yield sub
    is_over.set()
    thread.join()


def test_link_that_comes_and_goes_leads_nowhere(
    http: httpx.Client, routes: list[Route], one: Conversation, swapped: Path, outside: Path
) -> None:
    """Whenever the swap falls between the check and the use, the answer is a refusal or about the workspace's file.

    An archive as files, that is: in a patch git itself goes by the names in its work tree.
    """
    below = [route for route in routes if route.path.startswith(SCOPE) and "cwd" not in route.names]
    for _ in range(20):
        for route in below:
            for path in (swapped, swapped / "secret"):
                answer = ask(http, route, str(path), one, format="tar.gz")
                is_packed = answer.headers["content-type"] == "application/gzip"
                assert b"s3cr3t" not in (gzip.decompress(answer.content) if is_packed else answer.content), route
    assert {entry.name: entry.read_text() for entry in outside.iterdir()} == {"secret": "s3cr3t"}


def become_a_link(directory: Path, outside: Path) -> None:
    directory.rename(directory.with_name("aside"))
    directory.symlink_to(outside)


@pytest.mark.parametrize(
    "use", [open_file, lambda found: found.parent().__enter__(), lambda found: found.held().__enter__()]
)
def test_link_that_appears_after_the_check_is_not_followed(
    project: Path, outside: Path, use: Callable[[Place], object]
) -> None:
    """The bad state by hand: the place is found, and then a directory on the way becomes a link."""
    (project / "sub").mkdir()
    (project / "sub" / "secret").write_text("mine")
    found = place(f"{project}/sub/secret", "path", str(project))
    become_a_link(project / "sub", outside)
    with pytest.raises(OSError, match="Not a directory|Too many levels"):
        use(found)


def test_held_directory_stays_the_same(project: Path, outside: Path) -> None:
    """Under the path that is given, whatever becomes of its name."""
    (project / "sub").mkdir()
    (project / "sub" / "secret").write_text("mine")
    with place(f"{project}/sub", "path", str(project)).held() as (directory, rest):
        become_a_link(project / "sub", outside)
        assert rest == ()
        assert (directory / "secret").read_text() == "mine"
        assert [entry.name for entry in directory.iterdir()] == ["secret"]
