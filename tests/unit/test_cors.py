"""Which origins a page may call from."""

from __future__ import annotations

import pytest

from service.blueprints.http.cors import allowed_origin
from service.settings import Settings

WORKSPACE = "/api/conversations/x/workspace/a/b.html"


def policy(**settings: object) -> Settings:
    return Settings.model_validate(settings)


@pytest.mark.parametrize(
    "origin",
    ["http://localhost", "https://localhost:3000", "http://127.0.0.1:1", "HTTP://LOCALHOST:99", "ftp://localhost"]
    + ["vscode-webview://localhost", "https://listed.example", "https://a.team.example", "http://gateway.docker:8080"],
)
def test_allowed_origin_is_echoed(origin: str) -> None:
    allowing = policy(
        allow_cors_origins=("https://listed.example",),
        allow_cors_origin_regex=r"https://\w+\.team\.example",
        docker_host_addr="gateway.docker",
    )
    assert allowed_origin(allowing, origin, "/alive") == origin


@pytest.mark.parametrize(
    "origin",
    [
        "null",
        "",
        "https://evil.example",
        "http://localhost.evil.example",
        "http://evil.example/localhost",
        "http://evil.example?localhost",
        "http://localhost@evil.example",
        "http://evil.example:80#@localhost",
        "http://[bad",
        "localhost",
        "http://",
        "https://listed.example.evil",
        "http://listed.example",
        "https://a.team.example.evil",
        "evil https://a.team.example",
    ],
)
def test_other_origin_is_refused(origin: str) -> None:
    refusing = policy(
        allow_cors_origins=("https://listed.example",), allow_cors_origin_regex=r"https://\w+\.team\.example"
    )
    assert allowed_origin(refusing, origin, "/alive") is None


def test_docker_host_is_an_ordinary_name_unless_configured() -> None:
    assert allowed_origin(policy(), "http://gateway.docker", "/alive") is None


@pytest.mark.parametrize(
    "path",
    ["/api/auth/workspace-session", "/api/conversations/x/workspace", "/api/conversations/x/workspace/", WORKSPACE],
)
def test_cookie_paths_are_open_to_every_web_origin(path: str) -> None:
    assert allowed_origin(policy(), "https://any.example", path) == "https://any.example"
    assert allowed_origin(policy(), "http://any.example:8080", path) == "http://any.example:8080"


@pytest.mark.parametrize("origin", ["null", "ftp://any.example", "https://", "https://a b", "file:///x"])
def test_cookie_paths_stay_closed_to_what_is_no_web_origin(origin: str) -> None:
    assert allowed_origin(policy(), origin, WORKSPACE) is None


@pytest.mark.parametrize(
    "path",
    [
        "/api/conversations/x/workspacefoo",
        "/api/conversations/x/y/workspace",
        "/api/conversations/workspace",
        "/api/auth/workspace-session/",
        "/x/api/conversations/x/workspace",
        "/api/conversations",
    ],
)
def test_paths_that_only_look_like_cookie_paths_are_closed(path: str) -> None:
    assert allowed_origin(policy(), "https://any.example", path) is None


def test_star_allows_every_origin_and_sandboxed_pages_without_credentials() -> None:
    star = policy(allow_cors_origins=("*",))
    assert allowed_origin(star, "https://any.example", "/alive") == "https://any.example"
    assert allowed_origin(star, "null", "/alive") == "*"
