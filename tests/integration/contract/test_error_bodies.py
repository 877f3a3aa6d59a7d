"""Error bodies on the real routes: their exact shape, what they leave out, and that malformed input is no failure."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from service.demo.scripted_llm import API_KEY, ScriptedLlm
from tests.integration.contract.conversations import PATH, Conversation, Conversations, JsonObject, user_message
from tests.integration.contract.frames import event_ids, news, read
from tests.server_process import Server
from tests.waiting import wait_until

REDACTED = "<redacted>"
RUN_LIMIT = "Conversation run limit reached. Retry the request later."


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that one run fills."""
    with Server(tmp_path_factory.mktemp("server"), {"OH_MAX_CONCURRENT_RUNS": "1"}) as running:
        yield running


# Shape


@pytest.mark.parametrize(
    ("method", "path", "options", "problem"),
    [
        pytest.param(
            "POST",
            PATH,
            {"json": {}},
            {"type": "missing", "loc": ["body", "workspace"], "msg": "Field required", "input": {}},
            id="missing field",
        ),
        pytest.param(
            "GET",
            f"{PATH}/notauuid",
            {},
            {
                "type": "uuid_parsing",
                "loc": ["path", "conversation_id"],
                "msg": "Input should be a valid UUID, invalid character: found `n` at 0",
                "input": "notauuid",
                "ctx": {"error": "invalid character: found `n` at 0"},
            },
            id="path",
        ),
        pytest.param(
            "GET",
            f"{PATH}/search",
            {"params": {"limit": 101}},
            {
                "type": "less_than_equal",
                "loc": ["query", "limit"],
                "msg": "Input should be less than or equal to 100",
                "input": "101",
                "ctx": {"le": 100},
            },
            id="query",
        ),
        pytest.param(
            "POST",
            PATH,
            {"content": b"{nope", "headers": {"content-type": "application/json"}},
            {
                "type": "json_invalid",
                "loc": ["body", 1],
                "msg": "JSON decode error",
                "input": {},
                "ctx": {"error": "Expecting property name enclosed in double quotes"},
            },
            id="no json",
        ),
        pytest.param(
            "POST",
            PATH,
            {},
            {"type": "missing", "loc": ["body"], "msg": "Field required", "input": None},
            id="no body",
        ),
        pytest.param(
            "POST",
            PATH,
            {"json": []},
            {
                "type": "model_attributes_type",
                "loc": ["body"],
                "msg": "Input should be a valid dictionary or object to extract fields from",
                "input": [],
            },
            id="no object",
        ),
    ],
)
def test_422_names_each_problem_as_the_published_server_does(
    method: str, path: str, options: dict[str, Any], problem: JsonObject, http: httpx.Client
) -> None:
    """Type, place, message and input, to the letter; nothing beside `detail`."""
    response = http.request(method, path, **options)

    assert response.status_code == 422
    assert response.headers["content-type"] == "application/json"
    assert response.json() == {"detail": [problem]}


def test_422_of_a_validator_has_its_message_as_context(conversation: Conversations) -> None:
    """What a validator raised is a text in `ctx`, not an empty object."""
    (problem,) = conversation.create(tags={"Bad Name": "v"}).json()["detail"]

    reason = "Tag key 'Bad Name' is invalid: keys must be lowercase alphanumeric only"
    assert problem["msg"] == f"Value error, {reason}"
    assert problem["ctx"] == {"error": reason}


def test_422_lists_every_problem_of_a_body(conversation: Conversations) -> None:
    """A client need not find out one by one, and each problem has its own place and no link."""
    problems = conversation.create(max_iterations=0, conversation_id="x", stuck_detection="perhaps").json()["detail"]

    assert sorted(problem["loc"][-1] for problem in problems) == [
        *("conversation_id", "max_iterations", "stuck_detection"),
    ]
    assert all("url" not in problem for problem in problems)


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data"])
def test_body_of_another_type_is_422_and_not_repeated(content_type: str, conversation: Conversations) -> None:
    """A body that is not sent as JSON is refused like a wrong one, and nothing of it is shown."""
    created = conversation()
    body = json.dumps({"content": [{"text": "api_key=sk-1"}]})

    response = created.http.post(f"{created.path}/events", content=body, headers={"content-type": content_type})

    assert response.status_code == 422
    assert response.json()["detail"][0]["loc"] == ["body"]
    assert "sk-1" not in response.text
    assert created.events == []


@pytest.mark.parametrize(
    "content_type", ["application/json", "application/json; charset=utf-8", "application/merge-patch+json", None]
)
def test_body_of_a_json_type_or_none_is_read(content_type: str | None, conversation: Conversations) -> None:
    """Every type that means JSON is as good as the usual one; so is none."""
    created = conversation()
    headers = {"content-type": content_type} if content_type else {}

    response = created.http.post(f"{created.path}/events", content=b"{}", headers=headers)

    assert response.status_code == 200, response.text


@pytest.mark.parametrize(
    ("method", "route", "allowed"),
    [
        ("PUT", "", ["DELETE", "GET", "PATCH"]),
        ("GET", "/run", ["POST"]),
        ("DELETE", "/events", ["GET", "POST"]),
        ("POST", "/events/search", ["GET"]),
        ("HEAD", "/events/count", ["GET"]),
    ],
)
def test_wrong_method_is_405_with_the_right_ones(
    method: str, route: str, allowed: list[str], conversation: Conversations
) -> None:
    """The bare phrase, and the methods there are, also for a conversation nobody has made."""
    response = conversation.http.request(method, f"{conversation.unknown().path}{route}")

    assert response.status_code == 405
    assert sorted(response.headers["allow"].split(", ")) == allowed
    if method != "HEAD":
        assert response.json() == {"detail": "Method Not Allowed"}


def test_failure_on_purpose_says_why_in_both_places(conversation: Conversations) -> None:
    """A 5xx that is the provider's fault has the provider's words in `detail`, and again where old clients look."""
    response = conversation().post("/ask_agent", {"question": "HTTP 400 the scripted refusal"})

    reason = "litellm.BadRequestError: OpenAIException - the scripted refusal"
    assert response.status_code == 500
    assert response.json() == {"detail": reason, "exception": f"500: {reason}"}


# A full server


@pytest.fixture
def full_server(conversation: Conversations, llm: ScriptedLlm, request: pytest.FixtureRequest) -> Iterator[None]:
    """Keeps the server's only run slot taken until the end of the test."""
    gate = f"full-{request.node.name}"
    occupant = conversation(initial_message=user_message(f"HOLD {gate}", "SAY ok"))
    llm.wait_held(gate)
    yield
    llm.release(gate)
    occupant.wait_status("finished")
    wait_until(lambda: conversation.create().status_code == 201, "the slot is free again")


@pytest.fixture
def waiting(conversation: Conversations) -> Conversation:
    """A conversation made while there was room."""
    return conversation()


def test_run_on_a_full_server_is_429(waiting: Conversation, full_server: None) -> None:
    """The answer says when to come back."""
    response = waiting.post("/run")

    assert response.status_code == 429
    assert response.json() == {"detail": RUN_LIMIT}
    assert int(response.headers["retry-after"]) > 0
    assert waiting.status == "idle"


def test_message_on_a_full_server_is_429_and_kept(waiting: Conversation, full_server: None) -> None:
    """Its run is refused, not the message, and the answer says how to go on without sending it twice."""
    response = waiting.post("/events", user_message("SAY ok", run=True))

    assert response.status_code == 429
    assert response.json() == {
        "detail": "Message saved, but the conversation run limit was reached. "
        f"Retry POST {waiting.path}/run without resending the message."
    }
    assert int(response.headers["retry-after"]) > 0
    assert waiting.outline == ["user"]


def test_socket_message_on_a_full_server_is_kept_and_answered_with_an_error_event(
    waiting: Conversation, full_server: None
) -> None:
    """The sender hears that no run was started; the message is told like any other."""
    with waiting.socket() as socket:
        read(socket)
        socket.send('{"role": "user", "content": "SAY ok"}')
        frames = [read(socket) for _ in range(4)]

    errors = [frame for frame in frames if frame["kind"] == "ServerErrorEvent"]
    assert [(error["code"], waiting.path in error["detail"]) for error in errors] == [
        ("ConversationRunLimitExceeded", True)
    ]
    assert waiting.outline == ["user"]
    assert waiting.status == "idle"


def test_message_without_run_needs_no_slot(waiting: Conversation, full_server: None) -> None:
    """What starts nothing is not limited."""
    waiting.send("SAY ok")

    assert waiting.outline == ["user"]


# Redaction


SECRET_NAMES = [
    *("Authorization", "proxy_authorization", "cookie", "Set-Cookie", "credential", "aws_credentials_file"),
    *("key", "api_key", "monkey", "password", "DB_PASSWORD", "secret", "client_secret_id", "session", "session_id"),
    *("token", "accessToken", "x-auth-TOKEN"),
]
MAPPING_NAMES = ["env", "environment", "headers", "ENV", "Headers"]


def refused_input(conversation: Conversations, agent: JsonObject) -> Any:
    """What a refusal of this agent repeats of it."""
    response = conversation.create(agent={"kind": "Nope", **agent})
    assert response.status_code == 422
    assert "s3cret" not in response.text
    (problem,) = response.json()["detail"]
    return problem["input"]


@pytest.mark.parametrize("name", SECRET_NAMES)
def test_value_under_a_secret_name_is_hidden(name: str, conversation: Conversations) -> None:
    """Whatever the case of the name, whatever is around the word, and whatever kind of value."""
    shown = refused_input(conversation, {name: "s3cret", "plain": {"list": [{name: ["s3cret", {"a": "s3cret"}]}]}})

    assert shown == {"kind": "Nope", name: REDACTED, "plain": {"list": [{name: REDACTED}]}}


@pytest.mark.parametrize("name", MAPPING_NAMES)
def test_everything_under_a_mapping_of_secrets_is_hidden(name: str, conversation: Conversations) -> None:
    """Its keys are shown, which say what was sent, and none of its values."""
    shown = refused_input(conversation, {name: {"A": "s3cret", "B": {"C": ["s3cret", 5]}}})

    assert shown == {"kind": "Nope", name: {"A": REDACTED, "B": {"C": [REDACTED, REDACTED]}}}


@pytest.mark.parametrize("name", ["author", "kee", "passwort", "enviro", "header", "tok"])
def test_value_under_another_name_is_shown(name: str, conversation: Conversations) -> None:
    """Names that only look alike hide nothing, or nobody could see what is wrong."""
    assert refused_input(conversation, {name: "plain"}) == {"kind": "Nope", name: "plain"}


def test_tag_with_a_secret_word_in_its_name_is_hidden_too(conversation: Conversations) -> None:
    """The side effect the published server has."""
    (problem,) = conversation.create(tags={"Bad-Key": "v"}).json()["detail"]

    assert problem["input"] == {"Bad-Key": REDACTED}


def test_key_of_the_llm_is_in_no_refusal(conversation: Conversations, llm: ScriptedLlm) -> None:
    """A whole agent is repeated where a field beside it is missing; its key is not."""
    response = conversation.http.post(PATH, json={"agent": {"kind": "Agent", "llm": llm.settings}})

    (problem,) = response.json()["detail"]
    assert problem["loc"] == ["body", "workspace"]
    assert problem["input"]["agent"]["llm"]["api_key"] == REDACTED
    assert problem["input"]["agent"]["llm"]["model"] == llm.settings["model"]
    assert API_KEY not in response.text


@pytest.mark.parametrize(
    ("route", "content"),
    [
        ("/secrets", {"secrets": {"A": ["s3cret"]}}),
        ("/secrets", {"secrets": {"A": {"kind": "Nope", "value": "s3cret"}}}),
        ("/secrets", {"secrets": {"A": {"kind": "LookupSecret", "headers": {"X": "s3cret"}}}}),
        ("/secrets", {"secrets": ["s3cret"]}),
        ("/security_analyzer", {"security_analyzer": {"kind": "Nope", "api_key": "s3cret"}}),
        ("/confirmation_policy", {"policy": {"kind": "Nope", "token": "s3cret"}}),
        ("/events", {"content": [{"type": "text", "password": "s3cret"}]}),
        ("/generate_title", {"llm": {"api_key": "s3cret"}}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_no_route_repeats_a_secret(route: str, content: JsonObject, conversation: Conversations) -> None:
    """What stands under a secret's name, or where secrets belong, is in no answer."""
    response = conversation().post(route, content)

    assert response.status_code == 422
    assert REDACTED in response.text
    assert "s3cret" not in response.text


# Malformed input


BODIES = {
    "a number too long": b'{"content": ' + b"9" * 5000 + b"}",
    "nested too deeply": b'{"content": ' + b"[" * 5000 + b"]" * 5000 + b"}",
    "nested deeply": b'{"content": ' + b"[" * 150 + b"]" * 150 + b"}",
    "no number": b'{"content": NaN, "secrets": NaN, "question": NaN, "max_length": Infinity}',
    "infinite": b'{"content": 1e999, "max_length": 1e999}',
    "half a character": b'{"content": "\\ud800", "title": "\\ud800"}',
    "utf-16": '{"content": "a"}'.encode("utf-16"),
    "no utf-8": b'{"content": "\xff"}',
    "json and more": b"{} {}",
    "wrong kinds": b'{"policy": {"kind": []}, "security_analyzer": {"kind": 5}, "secrets": {"A": {"kind": 5}}}',
    "wrong fields": b'{"agent": {"kind": "Agent", "llm": {"model": {}}}, "workspace": {"working_dir": []}}',
    "nul in a path": b'{"agent": {"llm": {"model": "m"}}, "workspace": {"working_dir": "\\u0000"}}',
    "lists for objects": b'{"agent": [], "workspace": [], "tags": [], "secrets": [], "policy": [], "llm": []}',
}
"""Each is wrong for some route, and for others holds only fields they do not know."""

ROUTES = [
    ("POST", None),
    ("PATCH", ""),
    ("GET", "/events"),
    *(("POST", f"/{name}") for name in ("secrets", "confirmation_policy", "security_analyzer", "ask_agent")),
    *(("POST", f"/{name}") for name in ("events", "events/respond_to_confirmation", "generate_title")),
]


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_malformed_body_is_no_failure_of_the_server(body: bytes, conversation: Conversations) -> None:
    """No route answers 5xx to what a client got wrong, and the conversation works on."""
    created = conversation()
    created.send("SAY ok")

    answers = {
        (method, route): conversation.http.request(
            method,
            PATH if route is None else f"{created.path}{route}",
            content=body,
            headers={"content-type": "application/json"},
        )
        for method, route in ROUTES
    }

    assert {route: answer.text for route, answer in answers.items() if answer.status_code >= 500} == {}
    assert created.status == "idle"


def test_errors_are_told_to_the_caller_only(waiting: Conversation) -> None:
    """A refused request is no event: viewers see nothing of it."""
    with waiting.socket() as socket:
        read(socket)
        waiting.post("/events", {"content": "bad"})
        waiting.post("/secrets", {"secrets": 5})
        waiting.patch({"title": ""})

        assert event_ids(news(socket, waiting)) == []
