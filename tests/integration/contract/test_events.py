"""`/api/conversations/{id}/events` over REST: pages, filters, single events, batches, and new messages."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import httpx
import pytest

from service.demo.scripted_llm import ScriptedLlm
from tests.integration.contract.conversations import (
    Conversation,
    Conversations,
    JsonObject,
    agent_of,
    call,
    state_updates,
    terminal,
    user_message,
)
from tests.server_process import Server
from tests.waiting import wait_until

ZONE = "Asia/Kolkata"
MESSAGE_MODULE = "openhands.sdk.event.llm_convertible.message"
SORT_ORDERS = "'TIMESTAMP' or 'TIMESTAMP_DESC'"
MISSING_BODY = {"type": "missing", "loc": ["body"], "msg": "Field required", "input": None}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server far from UTC: a naive time and an aware one must not be mixed up."""
    with Server(tmp_path_factory.mktemp("server"), {"TZ": ZONE}) as running:
        yield running


@pytest.fixture(scope="module")
def finished(http: httpx.Client, llm: ScriptedLlm, tmp_path_factory: pytest.TempPathFactory) -> Conversation:
    """A conversation with one finished run, which no test changes."""
    conversations = Conversations(http, llm, str(tmp_path_factory.mktemp("project")))
    made = conversations()
    made.run_to("finished", "hello WORLD", call("think", thought="of the world"), "SAY bye")
    made.wait_event("the run is over", lambda event: event.get("value") == "finished")
    return made


@pytest.fixture(scope="module")
def log(finished: Conversation) -> list[JsonObject]:
    """Its events, oldest first."""
    return finished.events


def ids(events: list[JsonObject]) -> list[str]:
    """The ids of events, in order."""
    return [event["id"] for event in events]


def search(conversation: Conversation, **query: Any) -> JsonObject:
    """The page that `events/search` answers."""
    page: JsonObject = conversation.get("/events/search", params=query).raise_for_status().json()
    return page


def found(conversation: Conversation, **query: Any) -> list[str]:
    """Ids of the events that pass the filters; `count` says the same number."""
    passing = ids(search(conversation, **query)["items"])
    assert conversation.get("/events/count", params=query).raise_for_status().json() == len(passing)
    return passing


def problems(response: httpx.Response) -> list[JsonObject]:
    """What a 422 finds wrong."""
    assert response.status_code == 422, response.text
    detail: list[JsonObject] = response.json()["detail"]
    return detail


# Search: pages


def test_search_holds_the_log_in_order(finished: Conversation, log: list[JsonObject]) -> None:
    """The default page starts with the oldest event; a log that fits it has no next page."""
    page = search(finished)

    kinds = [event["kind"] for event in page["items"]]
    assert kinds[:2] == ["SystemPromptEvent", "MessageEvent"]
    assert sorted(log, key=lambda event: event["timestamp"]) == log
    assert page["next_page_id"] is None
    assert page.keys() == {"items", "next_page_id"}


def test_search_items_leave_nulls_out(log: list[JsonObject]) -> None:
    """Keys without a value are not sent."""
    assert not [key for event in log for key, value in event.items() if value is None]


def test_search_and_count_hold_state_updates_but_no_full_state(finished: Conversation, log: list[JsonObject]) -> None:
    """Single state updates are events like others; snapshots of the whole state are not stored."""
    updates = [event["key"] for event in log if event["kind"] == "ConversationStateUpdateEvent"]

    assert sorted(set(updates)) == ["execution_status", "last_user_message_id", "stats"]
    assert finished.get("/events/count").json() == len(log)


@pytest.mark.parametrize("limit", [1, 3, 7])
@pytest.mark.parametrize("sort_order", ["TIMESTAMP", "TIMESTAMP_DESC"])
def test_pages_hold_every_event_once(
    limit: int, sort_order: str, finished: Conversation, log: list[JsonObject]
) -> None:
    """Following `next_page_id`, which is the id of the next page's first event, gives the log in either order."""
    page = search(finished, limit=limit, sort_order=sort_order)
    seen = ids(page["items"])
    while page["next_page_id"] is not None:
        wanted = page["next_page_id"]
        page = search(finished, limit=limit, sort_order=sort_order, page_id=wanted)
        assert page["items"][0]["id"] == wanted
        assert len(page["items"]) <= limit
        seen += ids(page["items"])

    assert seen == (ids(log) if sort_order == "TIMESTAMP" else ids(log)[::-1])


def test_default_limit_is_a_hundred(conversation: Conversations) -> None:
    """A longer log comes in pages of a hundred."""
    created = conversation()
    created.run_to("finished", *[call("think", thought=f"thought {number}") for number in range(33)], "SAY ok")

    page = search(created)

    assert len(page["items"]) == 100
    assert len(search(created, page_id=page["next_page_id"])["items"]) == created.get("/events/count").json() - 100


def test_page_id_is_taken_undashed(finished: Conversation, log: list[JsonObject]) -> None:
    """Without its dashes it means the same event."""
    assert ids(search(finished, page_id=UUID(log[4]["id"]).hex)["items"]) == ids(log)[4:]


def test_empty_page_id_is_the_first_page(finished: Conversation, log: list[JsonObject]) -> None:
    """A client that always sends the parameter begins with an empty one."""
    assert ids(search(finished, page_id="")["items"]) == ids(log)


@pytest.mark.parametrize("page_id", ["nosuch", "00000000-0000-0000-0000-000000000001"])
def test_unknown_page_id_is_400(page_id: str, finished: Conversation) -> None:
    """It does not silently restart at the first page, which would make a client read the log twice."""
    response = finished.get("/events/search", params={"page_id": page_id})

    assert (response.status_code, response.json()) == (400, {"detail": f"Unknown page_id: {page_id}"})


def test_page_id_of_an_event_that_the_filter_removes_starts_there(
    finished: Conversation, log: list[JsonObject]
) -> None:
    """The position is one in the whole log; filters apply from there on."""
    start = next(index for index, event in enumerate(log) if event["kind"] == "ActionEvent")
    expected = [event["id"] for event in log[start:] if event["kind"] == "MessageEvent"]

    assert ids(search(finished, kind="MessageEvent", page_id=log[start]["id"])["items"]) == expected


def test_next_page_id_of_a_filtered_page_is_its_next_match(finished: Conversation, log: list[JsonObject]) -> None:
    """Pages of a filtered search are full, and lead from match to match."""
    matches = [event["id"] for event in log if event["kind"] == "MessageEvent"]

    page = search(finished, kind="MessageEvent", limit=1)

    assert ids(page["items"]) == matches[:1]
    assert page["next_page_id"] == matches[1]
    assert search(finished, kind="MessageEvent", limit=1, page_id=matches[1])["next_page_id"] is None


@pytest.mark.parametrize(
    ("name", "value", "kind", "message", "context"),
    [
        ("limit", "0", "greater_than", "Input should be greater than 0", {"gt": 0}),
        ("limit", "-1", "greater_than", "Input should be greater than 0", {"gt": 0}),
        ("limit", "101", "less_than_equal", "Input should be less than or equal to 100", {"le": 100}),
        ("limit", "abc", "int_parsing", "Input should be a valid integer, unable to parse string as an integer", None),
        ("sort_order", "bogus", "enum", f"Input should be {SORT_ORDERS}", {"expected": SORT_ORDERS}),
    ],
    ids=["limit=0", "limit=-1", "limit=101", "limit=abc", "sort_order=bogus"],
)
def test_search_refuses(
    name: str, value: str, kind: str, message: str, context: JsonObject | None, finished: Conversation
) -> None:
    """A value out of range is 422 and says which values are not."""
    (problem,) = problems(finished.get("/events/search", params={name: value}))

    expected = {"type": kind, "loc": ["query", name], "msg": message, "input": value}
    assert problem == expected | ({"ctx": context} if context else {})


def test_count_takes_no_notice_of_paging(finished: Conversation, log: list[JsonObject]) -> None:
    """`limit`, `sort_order` and `page_id` are not its parameters."""
    query = {"limit": 0, "sort_order": "bogus", "page_id": "nosuch"}

    assert finished.get("/events/count", params=query).json() == len(log)


# Search: filters

FILTERS: list[tuple[JsonObject, Callable[[JsonObject], bool]]] = [
    ({"kind": "MessageEvent"}, lambda event: event["kind"] == "MessageEvent"),
    ({"kind": f"{MESSAGE_MODULE}.MessageEvent"}, lambda event: event["kind"] == "MessageEvent"),
    ({"kind": "ConversationStateUpdateEvent"}, lambda event: event["kind"] == "ConversationStateUpdateEvent"),
    ({"kind": "messageevent"}, lambda event: False),
    ({"kind": "Message"}, lambda event: False),
    ({"kind": ""}, lambda event: False),
    ({"source": "user"}, lambda event: event["source"] == "user"),
    ({"source": "agent"}, lambda event: event["source"] == "agent"),
    ({"source": "environment"}, lambda event: event["source"] == "environment"),
    ({"source": "hook"}, lambda event: False),
    ({"source": "nobody"}, lambda event: False),
    ({"source": ""}, lambda event: False),
    ({"body": "world"}, lambda event: event["kind"] == "MessageEvent" and event["source"] == "user"),
    ({"body": "HELLO world"}, lambda event: event["kind"] == "MessageEvent" and event["source"] == "user"),
    ({"body": "bye"}, lambda event: event["kind"] == "MessageEvent"),
    ({"body": ""}, lambda event: event["kind"] == "MessageEvent"),
    ({"body": "thought has been logged"}, lambda event: False),
    ({"body": "zzz"}, lambda event: False),
    ({"body": "bye", "source": "agent"}, lambda event: event["kind"] == "MessageEvent" and event["source"] == "agent"),
    ({"kind": "MessageEvent", "source": "environment"}, lambda event: False),
]


@pytest.mark.parametrize(("query", "passes"), FILTERS, ids=[str(query) for query, _ in FILTERS])
def test_filter_selects(
    query: JsonObject, passes: Callable[[JsonObject], bool], finished: Conversation, log: list[JsonObject]
) -> None:
    """A filter passes exactly what it names; several combine with AND; what is unknown passes nothing."""
    assert found(finished, **query) == [event["id"] for event in log if passes(event)]


def test_body_filter_looks_into_what_skills_add(conversation: Conversations, llm: ScriptedLlm) -> None:
    """The text that a triggered skill added to a message is found like the message's own."""
    trigger = {"type": "keyword", "keywords": ["cake"]}
    skill = {"name": "baking", "content": "Use the secret recipe.", "trigger": trigger}
    created = conversation(agent=agent_of(llm) | {"agent_context": {"skills": [skill]}})
    created.send("a cake, please")

    (message,) = search(created, body="SECRET recipe")["items"]

    assert message["source"] == "user"
    assert message["activated_skills"] == ["baking"]


def naive(moment: datetime) -> str:
    return moment.isoformat()


def local(moment: datetime) -> str:
    return moment.replace(tzinfo=ZoneInfo(ZONE)).isoformat()


def zulu(moment: datetime) -> str:
    return moment.replace(tzinfo=ZoneInfo(ZONE)).astimezone(UTC).isoformat().replace("+00:00", "Z")


def elsewhere(moment: datetime) -> str:
    return moment.replace(tzinfo=ZoneInfo(ZONE)).astimezone(ZoneInfo("America/Lima")).isoformat()


@pytest.mark.parametrize("write", [naive, local, zulu, elsewhere], ids=lambda write: write.__name__)
@pytest.mark.parametrize("index", [0, 3, -1])
def test_time_bounds_are_read_in_every_zone(
    write: Callable[[datetime], str], index: int, finished: Conversation, log: list[JsonObject]
) -> None:
    """A naive bound is the server's local time, an aware one is converted: `gte` includes its event, `lt` does not."""
    bound = write(datetime.fromisoformat(log[index]["timestamp"]))
    place = index % len(log)

    assert found(finished, timestamp__gte=bound) == ids(log)[place:]
    assert found(finished, timestamp__lt=bound) == ids(log)[:place]
    assert found(finished, timestamp__gte=bound, timestamp__lt=bound) == []


def test_plus_of_an_offset_need_not_be_encoded(finished: Conversation, log: list[JsonObject]) -> None:
    """In a query string a plus is a space; where an offset is due it is taken as one."""
    bound = local(datetime.fromisoformat(log[3]["timestamp"]))
    assert "+05:30" in bound

    response = finished.http.get(httpx.URL(f"{finished.path}/events/count?timestamp__gte={bound}"))

    assert str(response.request.url).endswith("+05:30")
    assert response.json() == len(log) - 3


@pytest.mark.parametrize(
    ("bound", "is_before"),
    [
        ("2020-01-01", True),
        ("1700000000", True),
        ("2020-01-01T00:00:00+05:00", True),
        ("0001-01-01T00:00:00Z", True),
        ("2200-01-01", False),
        ("7258118400", False),
    ],
)
def test_time_bound_may_be_a_date_or_a_number(
    bound: str, is_before: bool, finished: Conversation, log: list[JsonObject]
) -> None:
    """A date begins at midnight; a number counts the seconds since 1970."""
    assert found(finished, timestamp__gte=bound) == (ids(log) if is_before else [])
    assert found(finished, timestamp__lt=bound) == ([] if is_before else ids(log))


def test_events_carry_local_time_without_offset(conversation: Conversations) -> None:
    """An event's time is the server's own, `created_at` is UTC; both tell the same moment."""
    created = conversation()
    created.send("SAY ok")

    written = datetime.fromisoformat(created.events[0]["timestamp"])
    made = datetime.fromisoformat(created.info["created_at"])

    assert written.tzinfo is None
    assert abs(written.replace(tzinfo=ZoneInfo(ZONE)) - made) < timedelta(minutes=1)


@pytest.mark.parametrize("route", ["/events/search", "/events/count"])
@pytest.mark.parametrize("name", ["timestamp__gte", "timestamp__lt"])
@pytest.mark.parametrize("junk", ["junk", "", "2020-13-01", "0001-01-01T00:00:00+05:00", "9999-12-31T23:59:59-23:00"])
def test_time_bound_that_is_no_time_is_422(route: str, name: str, junk: str, finished: Conversation) -> None:
    """Also one that is past the end of the calendar in the server's zone."""
    if name == "timestamp__lt" and junk.startswith("0001"):
        junk = "0001-01-01T00:00:00+23:00"

    (problem,) = problems(finished.get(route, params={name: junk}))

    assert problem["loc"] == ["query", name]
    assert problem["input"] == junk


def test_junk_time_is_refused_in_the_contracts_words(finished: Conversation) -> None:
    """The exact answer of the published server."""
    assert problems(finished.get("/events/search", params={"timestamp__gte": "junk"})) == [
        {
            "type": "datetime_from_date_parsing",
            "loc": ["query", "timestamp__gte"],
            "msg": "Input should be a valid datetime or date, input is too short",
            "input": "junk",
            "ctx": {"error": "input is too short"},
        }
    ]


# Single events and batches


def test_single_event_is_answered_as_it_is_stored(
    finished: Conversation, log: list[JsonObject], server: Server
) -> None:
    """Every event's bytes are those of its file."""
    folder = server.conversations_path / UUID(finished.id).hex / "events"
    for seq, event_id in enumerate(ids(log)):
        response = finished.get(f"/events/{event_id}")

        assert response.headers["content-type"] == "application/json"
        assert response.content == (folder / f"event-{seq:05d}-{event_id}.json").read_bytes()


@pytest.mark.parametrize("event_id", ["nosuch", "00000000-0000-0000-0000-000000000001"])
def test_unknown_event_is_404(event_id: str, finished: Conversation) -> None:
    """An id that the log does not hold is not found, and the answer names it."""
    response = finished.get(f"/events/{event_id}")

    assert (response.status_code, response.json()) == (404, {"detail": f"Event not found: {event_id}"})


def test_event_of_another_conversation_is_404(conversation: Conversations, log: list[JsonObject]) -> None:
    """Ids are looked up in the conversation of the path only."""
    created = conversation()

    assert created.get(f"/events/{log[0]['id']}").status_code == 404
    assert batch(created, ids(log)[:1]).json() == [None]


def batch(conversation: Conversation, content: object) -> httpx.Response:
    """The answer to a batch read; its ids are a body, which httpx sends with GET only when told in full."""
    return conversation.http.request("GET", f"{conversation.path}/events", json=content)


def test_batch_answers_in_the_order_asked_with_null_for_unknown(finished: Conversation, log: list[JsonObject]) -> None:
    """Each id gets its event, also a second time; the list keeps the order of the ids."""
    wanted = [log[5]["id"], "nosuch", log[0]["id"], log[5]["id"]]

    response = batch(finished, wanted)

    assert response.status_code == 200
    assert response.json() == [log[5], None, log[0], log[5]]


def test_batch_of_nothing_is_empty(finished: Conversation) -> None:
    """An empty list of ids is a list of no events."""
    assert batch(finished, []).json() == []


def test_batch_takes_ids_from_the_query_where_no_body_can_be_sent(
    finished: Conversation, log: list[JsonObject]
) -> None:
    """Browsers send no body with GET; the ids may stand in the address instead."""
    response = finished.get("/events", params={"event_ids": [log[1]["id"], "nosuch"]})

    assert response.json() == [log[1], None]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, MISSING_BODY),
        ({}, {"type": "list_type", "loc": ["body"], "msg": "Input should be a valid list", "input": {}}),
        ([5], {"type": "string_type", "loc": ["body", 0], "msg": "Input should be a valid string", "input": 5}),
    ],
    ids=["nothing", "an object", "numbers"],
)
def test_batch_refuses(content: object, problem: JsonObject, finished: Conversation) -> None:
    """A batch is asked for with a list of texts."""
    response = finished.get("/events") if content is None else batch(finished, content)

    assert problems(response) == [problem]


# Messages

PICTURE = "data:image/png;base64,iVBORw0KGgo="


def text_part(text: str) -> JsonObject:
    """A text as the log has it."""
    return {"cache_prompt": False, "type": "text", "text": text}


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        pytest.param({}, [], id="nothing at all"),
        pytest.param({"content": []}, [], id="no parts"),
        pytest.param({"role": "user", "content": [{"type": "text", "text": "x"}]}, [text_part("x")], id="in full"),
        pytest.param({"content": [{"text": "x"}]}, [text_part("x")], id="a text without type"),
        pytest.param({"content": [{"text": "x"}], "sender": "me", "other": 1}, [text_part("x")], id="unknown keys"),
        pytest.param({"content": [{"text": "x"}, {"text": "y"}]}, [text_part("x"), text_part("y")], id="two texts"),
        pytest.param(
            {"content": [{"text": "\u0000 \U0001f9ea"}]}, [text_part("\u0000 \U0001f9ea")], id="any character"
        ),
        pytest.param(
            {"content": [{"type": "image", "image_urls": [PICTURE]}]},
            [{"cache_prompt": False, "type": "image", "image_urls": [PICTURE]}],
            id="a picture",
        ),
    ],
)
def test_message_is_appended(content: JsonObject, parts: list[JsonObject], conversation: Conversations) -> None:
    """Everything in a message is optional; without `run` nothing but the message is told, and nothing runs."""
    created = conversation()

    response = created.post("/events", content)

    assert (response.status_code, response.json()) == (200, {"success": True})
    message = created.events[1]
    assert (message["kind"], message["source"]) == ("MessageEvent", "user")
    assert message["llm_message"]["role"] == "user"
    assert message["llm_message"]["content"] == parts
    assert state_updates(created.events, "last_user_message_id") == [message["id"]]
    assert len(created.events) == 3
    assert created.status == "idle"


def wrong(kind: str, *loc: str | int, msg: str, value: object, **context: object) -> JsonObject:
    """One problem of a body."""
    problem: JsonObject = {"type": kind, "loc": ["body", *loc], "msg": msg, "input": value}
    return problem | ({"ctx": context} if context else {})


def missing(*loc: str | int, value: object) -> JsonObject:
    return wrong("missing", *loc, msg="Field required", value=value)


def no_object(*loc: str | int, value: object) -> JsonObject:
    text = "Input should be a valid dictionary or object to extract fields from"
    return wrong("model_attributes_type", *loc, msg=text, value=value)


def literal(*loc: str | int, value: object, expected: str) -> JsonObject:
    return wrong("literal_error", *loc, msg=f"Input should be {expected}", value=value, expected=expected)


ROLES = "'user', 'system', 'assistant' or 'tool'"
TEXT = ("content", 0, "TextContent")
IMAGE = ("content", 0, "ImageContent")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        pytest.param([], [no_object(value=[])], id="a list"),
        pytest.param("text", [no_object(value="text")], id="a text"),
        pytest.param(
            {"content": "string"},
            [wrong("list_type", "content", msg="Input should be a valid list", value="string")],
            id="content a text",
        ),
        pytest.param(
            {"content": None},
            [wrong("list_type", "content", msg="Input should be a valid list", value=None)],
            id="content null",
        ),
        pytest.param(
            {"content": ["string"]},
            [no_object(*TEXT, value="string"), no_object(*IMAGE, value="string")],
            id="a part a text",
        ),
        pytest.param(
            {"content": [{"type": "text", "text": "x", "bogus": 1}]},
            [
                wrong("extra_forbidden", *TEXT, "bogus", msg="Extra inputs are not permitted", value=1),
                literal(*IMAGE, "type", value="text", expected="'image'"),
                missing(*IMAGE, "image_urls", value={"type": "text", "text": "x", "bogus": 1}),
            ],
            id="an unknown key in a part",
        ),
        pytest.param(
            {"content": [{"type": "video", "text": "x"}]},
            [
                literal(*TEXT, "type", value="video", expected="'text'"),
                literal(*IMAGE, "type", value="video", expected="'image'"),
                missing(*IMAGE, "image_urls", value={"type": "video", "text": "x"}),
            ],
            id="an unknown type of part",
        ),
        pytest.param(
            {"content": [{}]},
            [missing(*TEXT, "text", value={}), missing(*IMAGE, "image_urls", value={})],
            id="an empty part",
        ),
        pytest.param(
            {"role": "robot", "content": []},
            [literal("role", value="robot", expected=ROLES)],
            id="an unknown role",
        ),
        pytest.param({"role": None}, [literal("role", value=None, expected=ROLES)], id="role null"),
        pytest.param(
            {"run": "perhaps"},
            [
                wrong(
                    "bool_parsing",
                    "run",
                    msg="Input should be a valid boolean, unable to interpret input",
                    value="perhaps",
                )
            ],
            id="run neither true nor false",
        ),
    ],
)
def test_message_that_does_not_validate_is_refused(
    content: object, expected: list[JsonObject], conversation: Conversations
) -> None:
    """Each problem is named in the published server's words, and nothing is appended."""
    created = conversation()

    assert problems(created.post("/events", content)) == expected
    assert created.events == []


def test_message_without_a_body_is_refused(conversation: Conversations) -> None:
    """The body as a whole is required, though everything in it is optional."""
    created = conversation()

    assert problems(created.post("/events")) == [MISSING_BODY]
    assert created.events == []


@pytest.mark.parametrize("role", ["system", "assistant", "tool"])
@pytest.mark.parametrize("run", [True, False])
def test_message_of_another_role_is_refused(role: str, run: bool, conversation: Conversations) -> None:
    """Only users write to an agent: 422, and not even the system prompt is appended."""
    created = conversation()

    response = created.post("/events", user_message("SAY ok", run=run) | {"role": role})

    assert response.status_code == 422
    assert response.json() == {"detail": "Only user messages are allowed to be sent to the agent."}
    assert created.events == []
    assert created.status == "idle"


def test_message_during_a_tool_is_answered_at_once_and_kept_in_order(
    conversation: Conversations, llm: ScriptedLlm, project: Path
) -> None:
    """Messages are acknowledged while a command runs; behind its result they follow in the order they were sent."""
    created = conversation.with_terminal()
    created.send(terminal(f"until [ -e {project}/go ]; do sleep 0.02; done"), run=True)
    created.wait_event("the command is asked for", lambda event: event["kind"] == "ActionEvent")

    created.send("first of two", run=True)
    created.send("second of two", run=True)
    assert "result terminal" not in created.outline
    (project / "go").touch()
    wait_until(lambda: "second of two" in llm.agent_requests[-1].text, "the agent has been told of both")
    created.wait_status("finished")

    assert created.outline[:3] == ["user", "call terminal", "result terminal"]
    texts = [
        event["llm_message"]["content"][0]["text"]
        for event in created.events
        if event["kind"] == "MessageEvent" and event["source"] == "user"
    ]
    assert texts[1:] == ["first of two", "second of two"]
