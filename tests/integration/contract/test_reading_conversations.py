"""Reading conversations one by one, in batches and in pages, and how fresh and how bare the answers are."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from service.demo.scripted_llm import API_KEY, COMPLETION_TOKENS, PROMPT_TOKENS, ScriptedLlm
from tests.integration.contract.conversations import (
    PATH,
    TERMINAL,
    Conversation,
    Conversations,
    JsonObject,
    agent_of,
    call,
    user_message,
)
from tests.server_process import Server
from tests.waiting import wait_until

AVAILABLE = {"runtime_status": "available", "can_resume": True, "runtime_error": None}
SORT_ORDERS = ["CREATED_AT", "UPDATED_AT", "CREATED_AT_DESC", "UPDATED_AT_DESC"]


@pytest.fixture(scope="module")
def five(http: httpx.Client, llm: ScriptedLlm, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    """Ids of five conversations, in the order of their making; the first one was changed last."""
    conversations = Conversations(http, llm, str(tmp_path_factory.mktemp("five")))
    made = [conversations() for _ in range(5)]
    made[0].patch({"title": "changed last"}).raise_for_status()
    yield [each.id for each in made]
    conversations.delete_all()


def search(http: httpx.Client, **query: Any) -> JsonObject:
    """A page of conversations."""
    page: JsonObject = http.get(f"{PATH}/search", params=query).raise_for_status().json()
    return page


def walk(http: httpx.Client, limit: int, **query: Any) -> list[str]:
    """The ids of all conversations, page after page."""
    found: list[str] = []
    page_id: JsonObject = {}
    while True:
        page = search(http, limit=limit, **query, **page_id)
        assert len(page["items"]) <= limit
        ids = [item["id"] for item in page["items"]]
        assert not set(ids) & set(found), "no page repeats another"
        found += ids
        if page["next_page_id"] is None:
            return found
        page_id = {"page_id": page["next_page_id"]}


# One


@pytest.mark.parametrize(
    "form",
    [str, lambda each: each.hex, lambda each: str(each).upper(), lambda each: f"{{{each}}}", lambda each: each.urn],
    ids=["dashed", "undashed", "upper-case", "braced", "urn"],
)
def test_get_takes_every_form_of_the_id(form: Callable[[UUID], str], five: list[str], http: httpx.Client) -> None:
    """However the id is spelled, the conversation is found, and prints its id dashed and in lower case."""
    response = http.get(f"{PATH}/{form(UUID(five[0]))}")

    assert response.status_code == 200
    assert response.json()["id"] == five[0]


def test_get_of_an_unknown_conversation_is_404(conversation: Conversations) -> None:
    """The detail is the bare phrase."""
    response = conversation.unknown().get()

    assert response.status_code == 404
    assert response.json() == {"detail": "Not Found"}


def test_get_of_no_uuid_is_422(http: httpx.Client) -> None:
    """What cannot be an id is refused as such, before anything is looked for."""
    response = http.get(f"{PATH}/notauuid")

    assert response.status_code == 422
    [problem] = response.json()["detail"]
    assert problem["type"] == "uuid_parsing"
    assert problem["loc"] == ["path", "conversation_id"]
    assert problem["input"] == "notauuid"


def test_get_shows_where_the_conversation_is_kept(five: list[str], http: httpx.Client, server: Server) -> None:
    """`persistence_dir` is the conversations' directory and the undashed id."""
    info = http.get(f"{PATH}/{five[0]}").json()

    assert info["persistence_dir"] == str(server.conversations_path / UUID(five[0]).hex)


def test_times_are_utc_with_microseconds(five: list[str], http: httpx.Client) -> None:
    """`created_at` and `updated_at` are ISO-8601 with six digits and `Z`."""
    info = http.get(f"{PATH}/{five[0]}").json()

    moment = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")
    assert moment.fullmatch(info["created_at"])
    assert moment.fullmatch(info["updated_at"])
    assert info["created_at"] <= info["updated_at"]


@pytest.mark.parametrize("way", ["get", "batch", "search"])
def test_runtime_is_available(way: str, five: list[str], http: httpx.Client) -> None:
    """Every way of reading tells that the conversation's machine is there."""
    assert read(http, way, five[0])["runtime_info"] == AVAILABLE


@pytest.mark.parametrize("way", ["batch", "search"])
def test_lists_hold_what_get_answers(way: str, five: list[str], http: httpx.Client) -> None:
    """A conversation in a list has the fields and values it has alone, nulls included."""
    assert read(http, way, five[0]) == read(http, "get", five[0])


def read(http: httpx.Client, way: str, conversation_id: str, **query: Any) -> JsonObject:
    """One conversation out of a single, a batch or a search answer."""
    info: JsonObject
    if way == "get":
        info = http.get(f"{PATH}/{conversation_id}", params=query).raise_for_status().json()
    elif way == "batch":
        [info] = http.get(PATH, params={"ids": conversation_id} | query).raise_for_status().json()
    else:
        [info] = [item for item in search(http, **query)["items"] if item["id"] == conversation_id]
    return info


@pytest.mark.parametrize("way", ["get", "batch", "search", "create"])
def test_skills_are_shown_on_request_only(way: str, conversation: Conversations, llm: ScriptedLlm) -> None:
    """`include_skills` decides whether the agent's skills are listed; they are kept either way."""
    skill = {"name": "greeting", "content": "Say hello", "trigger": None}
    request = conversation.request(agent=agent_of(llm) | {"agent_context": {"skills": [skill]}})
    request["conversation_id"] = str(uuid4())
    created = conversation(**request)

    def skills(**query: Any) -> list[str]:
        if way == "create":
            info = conversation.http.post(PATH, json=request, params=query).raise_for_status().json()
        else:
            info = read(conversation.http, way, created.id, **query)
        return [each["name"] for each in info["agent"]["agent_context"]["skills"]]

    assert skills() == []
    assert skills(include_skills="true") == ["greeting"]
    assert skills(include_skills="false") == []


def test_include_skills_that_is_no_flag_is_422(http: httpx.Client) -> None:
    """The flag is a boolean."""
    response = http.get(f"{PATH}/search", params={"include_skills": "perhaps"})

    assert response.status_code == 422
    assert response.json()["detail"][0]["loc"] == ["query", "include_skills"]


# How fresh it is


def test_info_after_a_run_tells_what_it_did(conversation: Conversations) -> None:
    """Status, newest events and the tokens used are those of the run."""
    created = conversation()
    created.run_to("finished", call("think", thought="hm"), "SAY done")

    info = created.info
    events = created.events

    assert info["execution_status"] == "finished"
    user = next(event for event in events if event["kind"] == "MessageEvent" and event["source"] == "user")
    assert info["last_user_message_id"] == user["id"]
    answers = [event for event in events if event["kind"] == "MessageEvent" and event["source"] == "agent"]
    assert info["leaf_event_id"] == answers[-1]["id"]
    usage = info["stats"]["usage_to_metrics"]["agent"]["accumulated_token_usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (2 * PROMPT_TOKENS, 2 * COMPLETION_TOKENS)


def test_info_tells_the_module_of_each_tool(conversation: Conversations, llm: ScriptedLlm) -> None:
    """Clients learn where the agent's tools can be imported from."""
    info = conversation(agent=agent_of(llm, TERMINAL)).info

    assert info["tool_module_qualnames"] == {"terminal": "openhands.tools.terminal.definition"}


def test_info_shows_no_key_and_no_secret(conversation: Conversations) -> None:
    """Secrets are listed without their values at once after they were posted, the LLM's key is null."""
    created = conversation()
    created.post("/secrets", {"secrets": {"TOKEN": "s3cret-of-reading"}}).raise_for_status()

    response = created.get(headers={"x-expose-secrets": "plaintext"})

    assert list(response.json()["secret_registry"]["secret_sources"]) == ["TOKEN"]
    assert response.json()["secret_registry"]["secret_sources"]["TOKEN"]["value"] is None
    assert response.json()["agent"]["llm"]["api_key"] is None
    assert "s3cret-of-reading" not in response.text
    assert API_KEY not in response.text


CHANGES: dict[str, Callable[[Conversation], object]] = {
    "message": lambda each: each.send("SAY later"),
    "pause": lambda each: each.post("/pause").raise_for_status(),
    "title": lambda each: each.patch({"title": "another"}).raise_for_status(),
    "empty patch": lambda each: each.patch({}).raise_for_status(),
}

NO_CHANGES: dict[str, Callable[[Conversation], object]] = {
    "policy": lambda each: each.post("/confirmation_policy", {"policy": {"kind": "AlwaysConfirm"}}).raise_for_status(),
    "analyzer": lambda each: each.post(
        "/security_analyzer", {"security_analyzer": {"kind": "LLMSecurityAnalyzer"}}
    ).raise_for_status(),
    "secrets": lambda each: each.post("/secrets", {"secrets": {"A": "a-long-secret"}}).raise_for_status(),
    "reading": lambda each: each.get("/events/search").raise_for_status(),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_updated_at_moves_with(change: Callable[[Conversation], object], conversation: Conversations) -> None:
    """Events and edits count as activity, and the new time is there with the answer."""
    created = conversation()
    before = created.info

    change(created)

    after = created.info
    assert after["updated_at"] > before["updated_at"]
    assert after["created_at"] == before["created_at"]


@pytest.mark.parametrize("change", NO_CHANGES.values(), ids=NO_CHANGES.keys())
def test_updated_at_stays_with(change: Callable[[Conversation], object], conversation: Conversations) -> None:
    """Settings and reads are no activity."""
    created = conversation()
    before = created.info["updated_at"]

    change(created)

    assert created.info["updated_at"] == before


# Several


def test_batch_answers_in_the_order_asked_with_null_for_unknown(five: list[str], http: httpx.Client) -> None:
    """Each id has its place, whether it is known or not, asked twice or spelled otherwise."""
    ids = [five[1], str(uuid4()), five[0], UUID(five[1]).hex]

    found = http.get(PATH, params={"ids": ids}).raise_for_status().json()

    assert [info and info["id"] for info in found] == [five[1], None, five[0], five[1]]


@pytest.mark.parametrize(
    ("ids", "kind", "loc"),
    [
        ([], "missing", ["query", "ids"]),
        ([""], "uuid_parsing", ["query", "ids", 0]),
        (["abc"], "uuid_parsing", ["query", "ids", 0]),
        ([f"{uuid4()},{uuid4()}"], "uuid_parsing", ["query", "ids", 0]),
        ([str(uuid4())] * 100, "too_long", ["query", "ids"]),
    ],
    ids=["no ids", "empty id", "no uuid", "comma between", "100 ids"],
)
def test_batch_refuses(ids: list[str], kind: str, loc: list[str | int], http: httpx.Client) -> None:
    """The ids are at most 99 UUIDs, each its own parameter."""
    response = http.get(PATH, params={"ids": ids})

    assert response.status_code == 422
    [problem] = response.json()["detail"]
    assert (problem["type"], problem["loc"]) == (kind, loc)


def test_batch_takes_99_ids(five: list[str], http: httpx.Client) -> None:
    """99 are not too many."""
    found = http.get(PATH, params={"ids": [five[0]] + [str(uuid4())] * 98}).raise_for_status().json()

    assert found[0]["id"] == five[0]
    assert found[1:] == [None] * 98


# Pages


@pytest.mark.parametrize("limit", [1, 2, 100])
@pytest.mark.parametrize("sort_order", SORT_ORDERS)
def test_pages_hold_every_conversation_once_in_order(
    sort_order: str, limit: int, five: list[str], http: httpx.Client
) -> None:
    """Following `next_page_id` to the end shows each conversation once, in the order asked for."""
    by_update = [*five[1:], five[0]]
    expected = five if sort_order.startswith("CREATED_AT") else by_update

    found = walk(http, limit, sort_order=sort_order)

    mine = [each for each in found if each in five]
    assert mine == (expected[::-1] if sort_order.endswith("_DESC") else expected)


def test_search_is_newest_first_with_a_hundred_a_page(five: list[str], http: httpx.Client) -> None:
    """Without parameters the newest conversation comes first, and these few fit one page."""
    page = search(http)

    assert page == search(http, limit=100, sort_order="CREATED_AT_DESC")
    assert [item["id"] for item in page["items"]][:5] == five[::-1]


def test_search_moves_a_changed_conversation_to_the_top(conversation: Conversations, http: httpx.Client) -> None:
    """The order by update follows each change at once."""
    older, newer = conversation(), conversation()
    assert top_of(http) == newer.id

    older.patch({"title": "again"}).raise_for_status()

    assert top_of(http) == older.id


def top_of(http: httpx.Client) -> str:
    """The conversation changed last."""
    return str(search(http, limit=1, sort_order="UPDATED_AT_DESC")["items"][0]["id"])


def test_next_page_id_is_the_undashed_id_of_the_next_page(five: list[str], http: httpx.Client) -> None:
    """The cursor names the first conversation of the following page, which dashes do not change."""
    first = search(http, limit=2)
    following = UUID(first["next_page_id"])
    assert first["next_page_id"] == following.hex

    for cursor in (following.hex, str(following)):
        assert search(http, limit=2, page_id=cursor)["items"][0]["id"] == str(following)


@pytest.mark.parametrize("page_id", [uuid4().hex, str(uuid4()), "zzz", ""], ids=["undashed", "dashed", "junk", "empty"])
def test_search_refuses_an_unknown_page(page_id: str, http: httpx.Client) -> None:
    """A cursor nobody gave out is an error, not page one again."""
    response = http.get(f"{PATH}/search", params={"page_id": page_id})

    assert response.status_code == 400
    assert response.json() == {"detail": f"Unknown page_id: {page_id}"}


@pytest.mark.parametrize(
    ("query", "kind"),
    [
        ({"limit": 0}, "greater_than"),
        ({"limit": -1}, "greater_than"),
        ({"limit": 101}, "less_than_equal"),
        ({"limit": "abc"}, "int_parsing"),
        ({"limit": ""}, "int_parsing"),
        ({"sort_order": "bogus"}, "enum"),
        ({"sort_order": ""}, "enum"),
        ({"status": "bogus"}, "enum"),
        ({"status": "IDLE"}, "enum"),
    ],
    ids=str,
)
def test_search_refuses(query: JsonObject, kind: str, http: httpx.Client) -> None:
    """Limits are 1 to 100; orders and statuses are the documented names."""
    response = http.get(f"{PATH}/search", params=query)

    assert response.status_code == 422
    [problem] = response.json()["detail"]
    assert problem["type"] == kind
    assert problem["loc"] == ["query", *query]


# By status


def test_search_and_count_by_status(conversation: Conversations, http: httpx.Client) -> None:
    """A status filter finds the conversations that are in it now."""
    created = conversation()

    def seen_as(status: str) -> bool:
        return created.id in walk(http, 2, status=status)

    assert seen_as("idle")
    created.post("/pause").raise_for_status()
    assert seen_as("paused")
    assert not seen_as("idle")
    created.run_to("finished", "SAY ok")
    assert seen_as("finished")
    assert not seen_as("paused")


def test_running_conversation_is_found_as_running(
    conversation: Conversations, http: httpx.Client, llm: ScriptedLlm
) -> None:
    """While the LLM thinks, filter and count say `running`."""
    created = conversation(initial_message=user_message("HOLD found-as-running", "SAY ok"))
    llm.wait_held("found-as-running")

    assert [item["id"] for item in search(http, status="running")["items"]] == [created.id]
    assert count(http, status="running") == 1

    llm.release("found-as-running")
    created.wait_status("finished")
    assert count(http, status="running") == 0


@pytest.mark.parametrize("status", ["deleting", "stuck"])
def test_status_of_no_conversation_finds_none(status: str, http: httpx.Client) -> None:
    """A status nobody is in gives an empty page."""
    assert search(http, status=status) == {"items": [], "next_page_id": None}
    assert count(http, status=status) == 0


def test_count_is_a_bare_integer_that_follows_creates_and_deletes(
    conversation: Conversations, http: httpx.Client
) -> None:
    """All conversations are counted, each change at once."""
    before = count(http)
    created = conversation()
    assert count(http) == before + 1
    created.delete().raise_for_status()
    assert count(http) == before


def test_count_refuses_an_unknown_status(http: httpx.Client) -> None:
    """The filter takes the documented names only."""
    response = http.get(f"{PATH}/count", params={"status": "bogus"})

    assert response.status_code == 422
    assert response.json()["detail"][0]["type"] == "enum"


def count(http: httpx.Client, **query: str) -> int:
    """How many conversations there are."""
    found = http.get(f"{PATH}/count", params=query).raise_for_status().json()
    assert type(found) is int
    return found


def test_reads_do_not_wait_for_the_llm(conversation: Conversations, llm: ScriptedLlm, http: httpx.Client) -> None:
    """Every read answers while a step is in flight, and tells that it is."""
    created = conversation(initial_message=user_message("HOLD reads-do-not-wait", "SAY ok"))
    llm.wait_held("reads-do-not-wait")

    for way in ("get", "batch", "search"):
        assert read(http, way, created.id)["execution_status"] == "running"
    assert created.outline == ["user"]
    assert created.get("/agent_final_response").json() == {"response": ""}

    llm.release("reads-do-not-wait")
    wait_until(lambda: created.status == "finished", "the run has finished")
