"""`GET /api/git/repositories/search` against a stand-in of GitHub: the contract's rows."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from tests.integration.contract.conversations import JsonObject
from tests.server_process import Server

SECRETS = "/api/settings/secrets"


class GitHub:
    """Stands for GitHub's API: so many repositories, or an answer that a test wants."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.status = 200
        """Of its answers; 0 hangs up."""
        self.content: bytes | None = None
        """Instead of repositories."""
        self.is_silent = threading.Event()
        self.pause = threading.Event()
        self.tokens: set[str] = set()
        github = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                github.tokens.add(self.headers["authorization"])
                if github.status == 0:
                    self.close_connection = True
                    return
                while github.is_silent.is_set():
                    github.pause.wait(0.1)
                query = parse_qs(urlsplit(self.path).query)
                start = (int(query["page"][0]) - 1) * 100
                found = [github.described(name) for name in github.names[start : start + int(query["per_page"][0])]]
                content = json.dumps(found if github.status == 200 else {"message": "no"}).encode()
                content = content if github.content is None else github.content
                self.send_response(github.status)
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, format: str, *args: Any) -> None:
                """Quiet."""

        self._handler = Handler
        self._serve(0)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def _serve(self, port: int) -> None:
        self._server = ThreadingHTTPServer(("127.0.0.1", port), self._handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    @contextmanager
    def away(self) -> Iterator[None]:
        """Nothing listens meanwhile."""
        port = self._server.server_port
        self.close()
        yield
        self._serve(port)

    def described(self, name: str) -> JsonObject:
        return {"id": 7, "full_name": name, "private": False, "stargazers_count": 1, "default_branch": "main"}


@pytest.fixture(scope="module")
def github() -> Iterator[GitHub]:
    stand = GitHub()
    yield stand
    stand.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, github: GitHub) -> Iterator[Server]:
    directory = tmp_path_factory.mktemp("server")
    environment = {"OH_PERSISTENCE_DIR": str(directory / "kept"), "OH_GITHUB_API_URL": github.url}
    with Server(directory, environment) as running:
        yield running


def search(http: httpx.Client, **query: Any) -> httpx.Response:
    return http.get("/api/git/repositories/search", params={"provider": "github", **query})


@pytest.fixture
def token(http: httpx.Client, github: GitHub) -> Iterator[str]:
    github.status, github.content = 200, None
    http.put(SECRETS, json={"name": "GITHUB_TOKEN", "value": "ghp"}).raise_for_status()
    yield "ghp"
    http.delete(f"{SECRETS}/GITHUB_TOKEN").raise_for_status()


def test_repositories_need_a_token(http: httpx.Client) -> None:
    assert search(http).json() == {"items": [], "next_page_id": None, "missing_token": True}


def test_page_id_must_be_one_of_ours(http: httpx.Client, token: str) -> None:
    for wrong in ("abc", "0", "1:-1"):
        answer = search(http, page_id=wrong)
        assert (answer.status_code, answer.json()["detail"]) == (400, "Invalid repository page_id")


def test_repositories_are_paged_and_filtered(http: httpx.Client, token: str, github: GitHub) -> None:
    github.names = [f"o/{'even' if number % 2 == 0 else 'odd'}-{number}" for number in range(250)]
    page = search(http, limit=2).json()
    assert page["items"][0] == {
        "id": "7",
        "full_name": "o/even-0",
        "git_provider": "github",
        "is_public": True,
        "stargazers_count": 1,
        "pushed_at": None,
        "main_branch": "main",
    }
    assert (page["next_page_id"], page["missing_token"]) == ("1:2", False)
    names, page_id = [], None
    while True:
        query = {"query": "EVEN", "limit": 40} | ({"page_id": page_id} if page_id else {})
        page = search(http, **query).json()
        names += [each["full_name"] for each in page["items"]]
        page_id = page["next_page_id"]
        if page_id is None:
            break
    assert names == [name for name in github.names if "even" in name]
    assert github.tokens == {f"Bearer {token}"}


@pytest.mark.parametrize(
    ("theirs", "ours"), [(401, 502), (403, 502), (422, 400), (500, 502)], ids=lambda status: str(status)
)
def test_errors_of_github_do_not_look_like_ours(
    http: httpx.Client, token: str, github: GitHub, theirs: int, ours: int
) -> None:
    github.status = theirs
    answer = search(http)
    assert answer.status_code == ours
    assert str(theirs) in json.dumps(answer.json())
    assert token not in answer.text


def test_unreachable_github_is_502(http: httpx.Client, token: str, github: GitHub) -> None:
    with github.away():
        answer = search(http)
    assert (answer.status_code, answer.json()["detail"]) == (
        502,
        "GitHub cannot be reached: All connection attempts failed",
    )
    assert search(http).status_code == 200


def test_github_that_hangs_up_is_502(http: httpx.Client, token: str, github: GitHub) -> None:
    github.status = 0
    answer = search(http)
    assert answer.status_code == 502
    assert "GitHub cannot be reached: " in answer.json()["detail"]


@pytest.mark.parametrize("content", [b"<html>", b"\xff", b"{}", b'[{"id": 1}]', b"[1]"])
def test_what_lists_no_repositories_is_502(http: httpx.Client, token: str, github: GitHub, content: bytes) -> None:
    """Something else answers at that address."""
    github.content = content
    answer = search(http)
    assert (answer.status_code, answer.json()["detail"]) == (502, "GitHub does not answer with repositories")


@pytest.mark.heavy
def test_silent_github_is_504(http: httpx.Client, token: str, github: GitHub) -> None:
    """After the contract's 15 s, which is why this is not run every time."""
    github.is_silent.set()
    try:
        answer = search(http)
    finally:
        github.is_silent.clear()
    assert (answer.status_code, answer.json()["detail"]) == (504, "GitHub does not answer")


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ({"provider": "gitlab"}, 400),
        ({"provider": "x"}, 422),
        ({"limit": 101}, 422),
        ({"page_id": "x"}, 400),
        ({"page_id": "0"}, 400),
        ({"page_id": "1:101"}, 400),
        ({"page_id": "9" * 5000}, 400),
    ],
)
def test_wrong_searches(http: httpx.Client, token: str, query: JsonObject, status: int) -> None:
    assert search(http, **query).status_code == status
