"""A conversation's workspace in a browser, and the cookie that lets it in."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from service.blueprints.workspace_session import _token
from service.demo.scripted_llm import ScriptedLlm
from tests.integration.contract.conversations import Conversation, Conversations
from tests.server_process import Server

KEY = "the-key"
SESSION = "/api/auth/workspace-session"
COOKIE = "oh_workspace_session_key"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that asks for a key, behind a prefix."""
    settings = {"OH_SESSION_API_KEYS_0": KEY, "OH_WEB_URL": "https://host/rt/a"}
    with Server(tmp_path_factory.mktemp("server"), settings) as running:
        yield running


@pytest.fixture(scope="module")
def http(server: Server) -> Iterator[httpx.Client]:
    """Requests with the key."""
    headers = {"X-Session-API-Key": KEY}
    with httpx.Client(base_url=server.url, headers=headers, timeout=30, trust_env=False) as client:
        yield client


@pytest.fixture
def workspace(http: httpx.Client, llm: ScriptedLlm, project: Path, tmp_path: Path) -> Conversation:
    """A conversation with files of several kinds."""
    one = Conversations(http, llm, str(project))()
    (project / "index.html").write_text("<h1>root</h1>")
    (project / "sub").mkdir()
    (project / "sub" / "data.json").write_text("{}")
    (project / "sub" / "notes.md").write_text("# notes")
    (project / "site").mkdir()
    (project / "site" / "index.html").write_text("site")
    for name in (".env", ".Env.Local"):
        (project / name).write_text("SECRET=1")
    (project / ".GIT").mkdir()
    (project / ".GIT" / "config").write_text("SECRET=1")
    (project / "inside").symlink_to(project / "sub")
    (tmp_path / "secret").write_text("secret")
    (project / "out").symlink_to(tmp_path)
    return one


@pytest.mark.parametrize(
    ("path", "content", "media_type"),
    [
        ("", "<h1>root</h1>", "text/html; charset=utf-8"),
        ("/", "<h1>root</h1>", "text/html; charset=utf-8"),
        ("/index.html", "<h1>root</h1>", "text/html; charset=utf-8"),
        ("/site", "site", "text/html; charset=utf-8"),
        ("/sub/data.json", "{}", "application/json"),
        ("/sub/notes.md", "# notes", "text/markdown; charset=utf-8"),
        ("/inside/notes.md", "# notes", "text/markdown; charset=utf-8"),
    ],
)
def test_file_is_shown(workspace: Conversation, path: str, content: str, media_type: str) -> None:
    answer = workspace.get(f"/workspace{path}")
    assert (answer.status_code, answer.text, answer.headers["content-type"]) == (200, content, media_type)
    assert "content-disposition" not in answer.headers
    assert answer.headers["content-security-policy"].startswith("sandbox")
    assert "allow-same-origin" not in answer.headers["content-security-policy"]
    assert workspace.get(f"/workspace{path}", headers={"range": "bytes=1-1"}).status_code == 206


@pytest.mark.parametrize(
    ("path", "status", "reason"),
    [
        ("/sub", 404, "No index.html in directory"),
        ("/nowhere", 404, "File not found"),
        ("/index.html/below", 404, "File not found"),
        ("/.git/config", 404, "File not found"),
        ("/.GIT/config", 404, "File not found"),
        ("/.env", 404, "File not found"),
        ("/.Env.Local", 404, "File not found"),
        ("/out/secret", 400, "Path is outside the workspace"),
        ("/%2e%2e/secret", 400, "Path is outside the workspace"),
        ("/sub/..%2f..%2fsecret", 400, "Path is outside the workspace"),
        ("/a%00b", 400, "Path is outside the workspace"),
        ("//index.html", 400, "Path is outside the workspace"),
        ("/%2Findex.html", 400, "Path is outside the workspace"),
    ],
)
def test_what_is_not_shown(workspace: Conversation, path: str, status: int, reason: str) -> None:
    answer = workspace.get(f"/workspace{path}")
    assert (answer.status_code, answer.json()["detail"]) == (status, reason)


def test_workspace_that_is_gone(workspace: Conversation, project: Path) -> None:
    shutil.rmtree(project)
    answer = workspace.get("/workspace/index.html")
    assert (answer.status_code, answer.json()["detail"]) == (404, "Workspace directory does not exist")


def test_unknown_conversation(http: httpx.Client) -> None:
    unknown = "0" * 8 + "-0000-0000-0000-" + "0" * 12
    answer = http.get(f"/api/conversations/{unknown}/workspace/a")
    assert (answer.status_code, answer.json()["detail"]) == (404, f"Conversation not found: {unknown}")
    assert http.get("/api/conversations/nope/workspace/a").status_code == 422
    assert http.post(f"/api/conversations/{unknown}/workspace/a").status_code == 405


def test_cookie_opens_workspaces_and_nothing_else(server: Server, workspace: Conversation) -> None:
    begun = workspace.http.post(SESSION)
    assert begun.status_code == 204
    attributes = begun.headers["set-cookie"]
    for part in ("HttpOnly", "Path=/api/conversations", "SameSite=None", "Secure", "Partitioned", "Max-Age=43200"):
        assert part.lower() in attributes.lower()
    assert KEY not in attributes
    token = attributes.split(";")[0].removeprefix(f"{COOKIE}=")
    with httpx.Client(base_url=server.url, headers={"cookie": f"{COOKIE}={token}"}, trust_env=False) as browser:
        assert browser.get(f"{workspace.path}/workspace/index.html").status_code == 200
        assert browser.get(workspace.path).status_code == 401
        assert browser.post(SESSION).status_code == 401
        wrong = {"X-Session-API-Key": "wrong"}
        assert browser.get(f"{workspace.path}/workspace/index.html", headers=wrong).status_code == 200


@pytest.mark.parametrize(
    "token",
    [
        "",
        KEY,
        "nope",
        "9999999999.00",
        "9999999999.é",
        _token("another-key", int(time.time()) + 60),
        _token(KEY, int(time.time()) - 60),
    ],
    ids=["empty", "the key itself", "junk", "unsigned", "not ASCII", "signed with another key", "ended"],
)
def test_other_cookies_do_not_open(server: Server, workspace: Conversation, token: str) -> None:
    cookie = f"{COOKIE}={token}".encode()
    with httpx.Client(base_url=server.url, headers={b"cookie": cookie}, trust_env=False) as browser:
        assert browser.get(f"{workspace.path}/workspace/index.html").status_code == 401


@pytest.mark.parametrize("method", ["POST", "DELETE"])
def test_cookie_is_for_both_forms_of_the_address(http: httpx.Client, method: str) -> None:
    """A browser sends it back below the path it names, with the prefix or without."""
    cookies = http.request(method, SESSION).headers.get_list("set-cookie")
    paths = [part.split("=")[1] for cookie in cookies for part in cookie.split("; ") if part.startswith("Path=")]
    assert paths == ["/api/conversations", "/rt/a/api/conversations"]


def test_ending_the_session_takes_the_cookie_away(http: httpx.Client, server: Server) -> None:
    ended = http.delete(SESSION)
    assert ended.status_code == 204
    assert "max-age=0" in ended.headers["set-cookie"].lower()
    for method in ("POST", "DELETE"):
        assert httpx.request(method, f"{server.url}{SESSION}").status_code == 401
    elsewhere = http.post(SESSION, headers={"host": "example.org"}).headers["set-cookie"].lower()
    assert "secure" not in elsewhere
    assert "partitioned" not in elsewhere
    behind_proxy = http.post(SESSION, headers={"host": "example.org", "x-forwarded-proto": "https"})
    assert "secure" in behind_proxy.headers["set-cookie"].lower()
