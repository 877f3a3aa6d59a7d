"""A server with a deferred start: what it answers while it is dormant, and from its configuration on."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from tests.child_process import PRELOADED
from tests.server_process import FANOUT, Server

INIT_KEY = "known-to-who-starts-it"
DORMANT = "server is in deferred-init state 'dormant'; call POST /api/init first"
CONNECTIONS = 20
"""Enough that each of two workers gets some of them."""

COMMANDS = {
    "one process": [PRELOADED, "serve"],
    "several": [*FANOUT, "serve", "--workers", "2", "--runners", "1"],
}


def environment(**more: str) -> dict[str, str]:
    return {"OH_DEFERRED_INIT": "true", "OH_SECRET_KEY": INIT_KEY, **more}


@pytest.fixture(scope="module")
def dormant(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """Requests to a server that no test here starts."""
    with Server(tmp_path_factory.mktemp("dormant"), environment()) as server:
        with httpx.Client(base_url=server.url, timeout=30, trust_env=False) as client:
            yield client


def init(client: httpx.Client, body: object, key: str | None = INIT_KEY) -> httpx.Response:
    headers = {} if key is None else {"X-Init-API-Key": key}
    return client.post("/api/init", json=body, headers=headers)


@pytest.mark.parametrize("path", ["/", "/alive", "/health", "/ready", "/server_info", "/docs", "/openapi.json"])
def test_a_dormant_server_shows_that_it_lives(dormant: httpx.Client, path: str) -> None:
    assert dormant.get(path).status_code == 200


def test_anybody_may_ask_how_far_it_is(dormant: httpx.Client) -> None:
    assert dormant.get("/api/init").json() == {"state": "dormant", "error": None}


@pytest.mark.parametrize(
    "path", ["/api/conversations/search", "/api/settings", "/api/bash/bash_events/search", "/api/conversations/no-id"]
)
def test_known_routes_are_503_whatever_was_asked(dormant: httpx.Client, path: str) -> None:
    answer = dormant.get(path)
    assert answer.status_code == 503
    assert answer.json()["exception"] == f"503: {DORMANT}"
    assert answer.headers["retry-after"]


def test_the_models_of_openais_clients_are_503_too(dormant: httpx.Client) -> None:
    assert dormant.get("/v1/models").status_code == 503


def test_unknown_routes_are_404(dormant: httpx.Client) -> None:
    assert dormant.get("/api/nothing").status_code == 404


@pytest.mark.parametrize("path", ["/sockets/events/00000000000000000000000000000000", "/sockets/bash-events"])
def test_sockets_are_refused(dormant: httpx.Client, path: str) -> None:
    address = str(dormant.base_url).replace("http", "ws", 1)
    with pytest.raises(InvalidStatus) as refused, connect(f"{address}{path}", proxy=None):
        pass
    assert refused.value.response.status_code == 403


@pytest.mark.parametrize("key", [None, "", "other"])
def test_only_its_secret_key_starts_it(dormant: httpx.Client, key: str | None) -> None:
    assert init(dormant, {}, key).status_code == 401
    assert dormant.get("/api/init").json()["state"] == "dormant"


def test_configuration_without_the_key_is_never_taken_in(dormant: httpx.Client) -> None:
    address = (dormant.base_url.host, dormant.base_url.port or 0)
    with socket.create_connection(address, timeout=5) as connection:
        connection.sendall(b"POST /api/init HTTP/1.1\r\nHost: h\r\nContent-Length: 50000000\r\n\r\n")
        assert connection.recv(12) == b"HTTP/1.1 401"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"max_concurrent_runs": 0}, "greater than or equal to 1"),
        ({"port": 1}, "Extra inputs are not permitted"),
        ({"webhooks": [{"headers": {}}]}, "Field required"),
        ([], "valid dictionary"),
    ],
)
def test_bad_configurations_are_422_and_change_nothing(dormant: httpx.Client, body: object, message: str) -> None:
    answer = init(dormant, body)
    assert answer.status_code == 422
    assert message in answer.json()["detail"][0]["msg"]
    assert dormant.get("/api/init").json()["state"] == "dormant"


def test_an_empty_key_is_refused_in_plain_words(dormant: httpx.Client) -> None:
    answer = init(dormant, {"session_api_keys": ["k", ""]})
    assert (answer.status_code, answer.json()["detail"]) == (422, "session_api_keys cannot contain empty keys")


def test_elsewhere_there_is_nothing_to_start(http: httpx.Client) -> None:
    """Its key is asked for all the same."""
    assert init(http, {}, None).status_code == 401
    for answer in (http.get("/api/init"), init(http, {}, "tests-only")):
        assert answer.status_code == 404
        assert "deferred_init=True" in answer.json()["detail"]


@pytest.fixture(params=COMMANDS)
def deferred(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    """A dormant server of the test's own."""
    with Server(tmp_path, environment(), COMMANDS[request.param]) as running:
        yield running


def fresh(server: Server, path: str, **headers: str) -> httpx.Response:
    """A request over a connection of its own, which any worker may get."""
    return httpx.get(f"{server.url}{path}", headers=headers, timeout=30, trust_env=False)


def test_from_dormant_to_ready(deferred: Server, tmp_path: Path) -> None:
    """A configuration that cannot work leaves it dormant; one that does holds at once, everywhere."""
    with httpx.Client(base_url=deferred.url, timeout=60, trust_env=False) as client:
        (tmp_path / "file").write_text("")
        refused = init(client, {"conversations_path": str(tmp_path / "file" / "below")})
        reason = f"{tmp_path / 'file'} is not a directory"
        assert refused.status_code == 500
        assert refused.json()["exception"] == f"500: {reason}"
        assert client.get("/api/init").json() == {"state": "dormant", "error": reason}
        assert client.get("/api/settings").status_code == 503

        configuration = {
            "session_api_keys": ["k"],
            "secret_key": "new",
            "conversations_path": str(tmp_path / "late"),
            "bash_events_dir": str(tmp_path / "late-bash"),
            "allow_cors_origins": ["https://page.example"],
            "env": {"GIVEN_LATE": "yes"},
            "telemetry": {"exporter": "none"},
        }
        answer = init(client, configuration)
        assert answer.status_code == 200, answer.text
        assert answer.json() == {"state": "ready", "error": None}

        for _ in range(CONNECTIONS):
            assert fresh(deferred, "/api/conversations/count").status_code == 401
            found = fresh(deferred, "/api/conversations/count", **{"X-Session-API-Key": "k"})
            assert (found.status_code, found.text) == (200, "0")
            assert fresh(deferred, "/api/init").json() == {"state": "ready", "error": None}

        client.headers["X-Session-API-Key"] = "k"
        shell = client.post("/api/bash/execute_bash_command", json={"command": "echo $GIVEN_LATE"})
        assert shell.json()["stdout"] == "yes\n"
        assert list((tmp_path / "late-bash").iterdir())
        page = client.get("/api/init", headers={"Origin": "https://page.example"})
        assert page.headers["access-control-allow-origin"] == "https://page.example"

        again = init(client, {}, "new")
        assert (again.status_code, again.json()["detail"]) == (400, "server already in state: ready")
        assert init(client, {}, INIT_KEY).status_code == 401


def test_runner_that_cannot_start_says_why(deferred: Server, tmp_path: Path) -> None:
    """Only a runner reads what is wrong here: where the key of earlier secrets should be, there is a folder."""
    (tmp_path / "late" / ".secret_key").mkdir(parents=True)
    with httpx.Client(base_url=deferred.url, timeout=60, trust_env=False) as client:
        refused = init(client, {"conversations_path": str(tmp_path / "late")})
        assert refused.status_code == 500
        assert "Is a directory" in refused.json()["detail"]
        (tmp_path / "late" / ".secret_key").rmdir()
        assert init(client, {"conversations_path": str(tmp_path / "late")}).status_code == 200


def test_prefix_that_came_late_is_taken_off(tmp_path: Path) -> None:
    with Server(tmp_path, environment()) as server, httpx.Client(base_url=server.url, trust_env=False) as client:
        assert init(client, {"web_url": "https://host/rt/abc"}).status_code == 200
        assert client.get("/rt/abc/api/conversations/count").text == "0"
        assert client.get("/api/conversations/count").text == "0"


@pytest.mark.parametrize(("secret_key", "status"), [(None, 200), ("", 401)])
def test_without_a_secret_key_it_is_open_and_with_a_blank_one_closed(
    tmp_path: Path, secret_key: str | None, status: int
) -> None:
    given = environment(OH_SECRET_KEY_IS_NONE="1") if secret_key is None else environment(OH_SECRET_KEY=secret_key)
    with Server(tmp_path, given) as server, httpx.Client(base_url=server.url, timeout=60, trust_env=False) as client:
        assert init(client, {"session_api_keys": ["k"]}, None).status_code == status
        if status == 200:
            # The first session key has become the secret key, which opens the route from now on.
            assert init(client, {}, None).status_code == 401
            assert init(client, {}, "k").status_code == 400
