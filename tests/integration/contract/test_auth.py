"""Keys on the real routes and on the events socket: who gets in, and that nobody else changes or sees anything."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect
from websockets.sync.connection import Connection

from tests.integration.contract.conversations import Conversation, Conversations, user_message
from tests.integration.contract.frames import close_of, event_ids, is_full_state, news, read
from tests.integration.contract.viewer import FRAME_SECONDS
from tests.server_process import Server

HEADER = "X-Session-API-Key"
KEYS = ("key-one", "key-two")
FAILED = (4001, "Authentication failed")
METHODS = {"get", "post", "put", "patch", "delete"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that wants one of two keys."""
    settings = {f"OH_SESSION_API_KEYS_{number}": key for number, key in enumerate(KEYS)}
    with Server(tmp_path_factory.mktemp("server"), settings) as running:
        yield running


@pytest.fixture(scope="module")
def http(server: Server) -> Iterator[httpx.Client]:
    """Requests with the first key."""
    with httpx.Client(base_url=server.url, timeout=30, trust_env=False, headers={HEADER: KEYS[0]}) as client:
        yield client


@pytest.fixture(scope="module")
def outsider(server: Server) -> Iterator[httpx.Client]:
    """Requests without a key."""
    with httpx.Client(base_url=server.url, timeout=30, trust_env=False) as client:
        yield client


def unauthorized(response: httpx.Response) -> bool:
    """Whether this is the contract's 401, to the letter."""
    told = (response.status_code, response.content, "www-authenticate" in response.headers)
    return told == (401, b'{"detail":"Unauthorized"}', False)


# HTTP


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"Authorization": "Bearer wrong"}, 401),
        ({"Authorization": "Basic key-one"}, 401),
        ({HEADER: "wrong", "Authorization": "Bearer wrong"}, 401),
        ({HEADER: "wrong", "Authorization": f"Bearer {KEYS[0]}"}, 200),
        ({HEADER: KEYS[0], "Authorization": "Bearer wrong"}, 200),
        ({"Authorization": f"Bearer {KEYS[1]}"}, 200),
        ({HEADER: KEYS[0]}, 200),
    ],
)
def test_openais_clients_may_bring_the_key_as_bearer(
    outsider: httpx.Client, headers: dict[str, str], status: int
) -> None:
    response = outsider.get("/v1/models", headers=headers)
    assert response.status_code == status
    if status == 401:
        assert response.json()["error"] | {"message": ""} == {
            "message": "",
            "type": "authentication_error",
            "param": None,
            "code": "invalid_api_key",
        }


def test_every_route_of_the_api_asks_for_a_key(outsider: httpx.Client) -> None:
    """Whatever the document lists below /api is closed, whatever is wrong with the path or the body."""
    paths: dict[str, Any] = outsider.get("/openapi.json").raise_for_status().json()["paths"]
    routes = [
        (method, path.replace("{", "bad-").replace("}", ""))
        for path, operations in paths.items()
        for method in METHODS & operations.keys()
        if path.startswith("/api/") and path != "/api/init"
    ]

    # The key is asked for twice, before a body is taken in and before a route is called.
    open_routes = [
        (*route, body)
        for route in routes
        for body in (b"", b"{nope")
        if not unauthorized(outsider.request(*route, content=body))
    ]

    assert len(routes) > 20
    assert open_routes == []


def test_socket_paths_are_no_way_around_the_key(outsider: httpx.Client, conversation: Conversations) -> None:
    """A plain request on a socket's path finds nothing."""
    assert outsider.get(f"/sockets/events/{conversation().id}").status_code == 404


@pytest.mark.parametrize("key", KEYS)
def test_every_configured_key_opens_the_api(key: str, outsider: httpx.Client, conversation: Conversations) -> None:
    """A conversation made with one key belongs to all of them."""
    created = conversation()

    assert outsider.get(created.path, headers={HEADER.lower(): key}).json()["id"] == created.id


@pytest.mark.parametrize(
    ("method", "route", "content"),
    [
        ("POST", "/events", user_message("SAY no", run=True)),
        ("POST", "/run", None),
        ("POST", "/pause", None),
        ("PATCH", "", {"title": "stolen"}),
        ("POST", "/secrets", {"secrets": {"A": "b"}}),
        ("POST", "/confirmation_policy", {"policy": {"kind": "AlwaysConfirm"}}),
        ("DELETE", "", None),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
@pytest.mark.parametrize("headers", [{}, {HEADER: "key-three"}], ids=["no key", "wrong key"])
def test_refused_request_has_no_effect(
    headers: dict[str, str],
    method: str,
    route: str,
    content: object,
    outsider: httpx.Client,
    conversation: Conversations,
) -> None:
    """What is answered 401 has not been done."""
    created = conversation()
    before = created.info

    response = outsider.request(method, f"{created.path}{route}", json=content, headers=headers)

    assert unauthorized(response)
    assert created.info == before
    assert created.events == []


def test_unknown_conversation_is_not_told_from_a_known_one_without_a_key(
    outsider: httpx.Client, conversation: Conversations
) -> None:
    """401 comes before 404: nobody finds out which ids exist."""
    assert unauthorized(outsider.get(conversation().path))
    assert unauthorized(outsider.get(conversation.unknown().path))


# Sockets


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("way", ["query", "header", "query and a wrong header"])
def test_socket_with_a_key_opens(way: str, key: str, conversation: Conversations) -> None:
    """The key may come in the query or the header; the query's counts."""
    headers = {"header": {HEADER: key}, "query and a wrong header": {HEADER: "wrong"}}.get(way, {})
    query = "" if way == "header" else f"?session_api_key={key}"

    with conversation().socket(query, additional_headers=headers) as socket:
        assert is_full_state(read(socket))


@pytest.mark.parametrize(
    ("query", "headers"),
    [
        ("?session_api_key=wrong", {}),
        ("?session_api_key=", {}),
        ("", {HEADER: "wrong"}),
        ("", {HEADER: ""}),
        ("?session_api_key=wrong", {HEADER: KEYS[0]}),
        ("?resend_mode=bogus", {HEADER: KEYS[0]}),
        ("?session_api_key=wrong&resend_mode=bogus", {}),
    ],
    ids=["query", "empty query", "header", "empty header", "query before header", "bad query value", "both bad"],
)
def test_bad_handshake_is_refused(query: str, headers: dict[str, str], conversation: Conversations) -> None:
    """403 without a body, for a wrong key and for what is wrong with the query alike."""
    with pytest.raises(InvalidStatus) as refused:
        conversation().socket(query, additional_headers=headers)

    assert refused.value.response.status_code == 403
    assert not refused.value.response.body


def test_malformed_id_is_refused_with_a_good_key(conversation: Conversations) -> None:
    """There is no such socket to open."""
    with pytest.raises(InvalidStatus) as refused:
        conversation.handle("notauuid").socket(f"?session_api_key={KEYS[0]}")

    assert refused.value.response.status_code == 403


def auth(key: object, **more: object) -> str:
    """The first frame of a client that has presented nothing yet."""
    return json.dumps({"type": "auth", "session_api_key": key, **more})


def closed_at_once(socket: Connection) -> tuple[int, str]:
    """The close frame's code and reason; fails when any other frame comes before it."""
    with pytest.raises(ConnectionClosed):
        pytest.fail(f"unexpected frame {socket.recv(timeout=FRAME_SECONDS)!r}")
    return close_of(socket)


@pytest.mark.parametrize("frame", [auth(KEYS[0]), auth(KEYS[1]), auth(KEYS[0], extra=1)])
def test_first_frame_brings_the_key(frame: str, conversation: Conversations) -> None:
    """Nothing acknowledges it: the first frame that comes back is the full state."""
    with conversation().socket() as socket:
        socket.send(frame)
        assert is_full_state(read(socket))


@pytest.mark.parametrize(
    "frame",
    [
        pytest.param(auth("wrong"), id="a wrong key"),
        pytest.param(auth(""), id="an empty key"),
        pytest.param(auth(5), id="a key that is no text"),
        pytest.param('{"type": "auth"}', id="no key"),
        pytest.param('{"type": "hello", "session_api_key": "key-one"}', id="another type"),
        pytest.param('{"session_api_key": "key-one"}', id="no type"),
        pytest.param('["auth", "key-one"]', id="no object"),
        pytest.param("key-one", id="no json"),
        pytest.param(auth(KEYS[0]).encode(), id="binary"),
        pytest.param('{"role": "user", "content": "SAY no"}', id="a message"),
    ],
)
def test_other_first_frame_closes_4001(frame: str | bytes, conversation: Conversations) -> None:
    """No frame is sent, not even an error, and a message that came first is not taken."""
    created = conversation()
    with created.socket() as socket:
        socket.send(frame)

        assert closed_at_once(socket) == FAILED
    assert created.events == []


def test_unauthenticated_socket_hears_nothing(conversation: Conversations) -> None:
    """A run that goes on meanwhile is not told to who has opened a socket without a key."""
    created = conversation()
    with created.socket() as socket:
        created.run_to("finished", "SAY a secret")
        socket.send(auth("wrong"))

        assert closed_at_once(socket) == FAILED


def test_repeated_authentication_is_ignored(conversation: Conversations) -> None:
    """Clients that send the key both ways, or again, are neither answered nor closed, even when it is wrong."""
    created = conversation()
    with created.socket(f"?session_api_key={KEYS[0]}") as socket:
        assert is_full_state(read(socket))
        socket.send(auth(KEYS[0]))
        socket.send(auth("wrong"))

        assert event_ids(news(socket, created)) == []


def test_cookie_opens_no_socket(conversation: Conversations) -> None:
    """The workspace's cookie is not looked at: the key is still awaited."""
    cookie = {"Cookie": f"oh_workspace_session_key={KEYS[0]}"}
    with conversation().socket(additional_headers=cookie) as socket:
        socket.send("{}")
        assert close_of(socket) == FAILED


NOT_FOUND = (4004, "Conversation not found")


@pytest.fixture
def unknown(conversation: Conversations) -> Conversation:
    """A conversation nobody has made."""
    return conversation.unknown()


def test_unknown_conversation_is_told_with_a_good_key_only(unknown: Conversation) -> None:
    """The key is checked first, whichever way it comes."""
    with pytest.raises(InvalidStatus):
        unknown.socket("?session_api_key=wrong")
    with unknown.socket("?session_api_key=key-one") as socket:
        assert close_of(socket) == NOT_FOUND
    with unknown.socket(additional_headers={HEADER: KEYS[0]}) as socket:
        assert close_of(socket) == NOT_FOUND
    with unknown.socket() as socket:
        socket.send(auth("wrong"))
        assert close_of(socket) == FAILED
    with unknown.socket() as socket:
        socket.send(auth(KEYS[0]))
        assert close_of(socket) == NOT_FOUND


def test_session_socket_takes_the_same_keys(conversation: Conversations) -> None:
    """In the query, in the header or in a first frame; a wrong one refuses the handshake or closes with 4001."""
    created = conversation()
    for query, headers, first in (
        (f"?session_api_key={KEYS[0]}", {}, None),
        ("", {HEADER: KEYS[0]}, None),
        ("", {}, auth(KEYS[0])),
    ):
        with created.session(query, additional_headers=headers) as socket:
            if first is not None:
                socket.send(first)
            assert read(socket)["type"] == "sync"
    with pytest.raises(InvalidStatus):
        created.session("?session_api_key=wrong")
    with created.session() as socket:
        socket.send(auth("wrong"))
        assert closed_at_once(socket) == (4001, "Authentication failed")


# The bash socket


def bash_socket(server: Server, query: str = "", headers: dict[str, str] | None = None) -> Connection:
    """A connection to `/sockets/bash-events`."""
    url = server.url.replace("http", "ws")
    return connect(f"{url}/sockets/bash-events{query}", proxy=None, additional_headers=headers)


@pytest.mark.parametrize(
    ("query", "headers", "first"),
    [
        (f"?session_api_key={KEYS[0]}", {}, None),
        ("", {HEADER: KEYS[1]}, None),
        (f"?session_api_key={KEYS[1]}", {HEADER: "wrong"}, None),
        ("", {}, auth(KEYS[0])),
        (f"?session_api_key={KEYS[0]}", {}, auth("wrong")),
    ],
    ids=["query", "header", "query before header", "first frame", "frame after a key"],
)
def test_bash_socket_runs_commands_for_a_key(
    server: Server, query: str, headers: dict[str, str], first: str | None
) -> None:
    """Nothing acknowledges the key; the first frame is the command's, which has none of the server's keys."""
    with bash_socket(server, query, headers) as socket:
        if first is not None:
            socket.send(first)
        socket.send(json.dumps({"command": "env"}))
        command = json.loads(socket.recv(timeout=FRAME_SECONDS))
        output = json.loads(socket.recv(timeout=FRAME_SECONDS))
    assert (command["kind"], command["command"]) == ("BashCommand", "env")
    assert (output["command_id"], output["exit_code"]) == (command["id"], 0)
    assert not [key for key in KEYS if key in output["stdout"]]


def test_frame_after_the_key_may_be_large(server: Server) -> None:
    """Not so the first one."""
    with bash_socket(server) as socket:
        socket.send(auth(KEYS[0]))
        socket.send(json.dumps({"command": "true"}))
        assert json.loads(socket.recv(timeout=FRAME_SECONDS))["command"] == "true"
        socket.send(json.dumps({"command": "echo large", "more": "x" * (1 << 20)}))
        frames = [json.loads(socket.recv(timeout=FRAME_SECONDS)) for _ in range(3)]
    assert "echo large" in [frame.get("command") for frame in frames]


@pytest.mark.parametrize(
    ("query", "headers"),
    [("?session_api_key=wrong", {}), ("?session_api_key=", {}), ("", {HEADER: "wrong"}), ("", {HEADER: ""})],
    ids=["query", "empty query", "header", "empty header"],
)
def test_bash_socket_refuses_a_wrong_key(server: Server, query: str, headers: dict[str, str]) -> None:
    with pytest.raises(InvalidStatus) as refused:
        bash_socket(server, query, headers)

    assert refused.value.response.status_code == 403


@pytest.mark.parametrize(
    "first",
    [auth("wrong"), "{touch}", auth(KEYS[0]).encode(), "no json", "[]"],
    ids=["a wrong key", "a command", "binary", "no json", "no object"],
)
def test_bash_socket_does_nothing_without_a_key(
    server: Server, http: httpx.Client, tmp_path: Path, first: str | bytes
) -> None:
    """It closes, has told nothing of what ran meanwhile, and has run nothing."""
    forbidden = tmp_path / "forbidden"
    with bash_socket(server, "?resend_mode=all&stream=1") as socket:
        http.post("/api/bash/execute_bash_command", json={"command": "echo secret"}).raise_for_status()
        socket.send(json.dumps({"command": f"touch {forbidden}"}) if first == "{touch}" else first)
        assert closed_at_once(socket) == FAILED
    http.post("/api/bash/execute_bash_command", json={"command": "true"}).raise_for_status()
    assert not forbidden.exists()
