"""`.../events/stream`: the session's frames over plain HTTP."""

from __future__ import annotations

import httpx
import pytest

from service.demo.scripted_llm import ScriptedLlm
from tests.integration.contract.conversations import Conversation, Conversations, agent_of, call, user_message
from tests.integration.contract.frames import BIG_TEXT
from tests.integration.contract.session import HISTORY, durables, ends_run, event_source, is_transient, logged, opening


@pytest.fixture(scope="module")
def finished(http: httpx.Client, llm: ScriptedLlm, tmp_path_factory: pytest.TempPathFactory) -> Conversation:
    """A conversation with one finished run, which no test changes, and nothing more to be told of it."""
    made = Conversations(http, llm, str(tmp_path_factory.mktemp("project")))()
    with event_source(made) as source:
        made.send(call("think", thought="of it"), "SAY bye", run=True)
        source.until(ends_run)
    return made


def test_history_is_what_the_socket_sends(finished: Conversation) -> None:
    """Frame for frame, with the seq of an event as its id."""
    with finished.session(HISTORY) as socket:
        expected = opening(socket)
    with event_source(finished, HISTORY) as source:
        assert source.response.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert source.response.headers["cache-control"] == "no-cache"
        frames = source.until(is_transient)
        assert source.last_event_id == str(len(finished.events) - 1)

    assert durables(frames) == logged(finished)
    assert frames == expected


@pytest.mark.parametrize("query", ["", HISTORY, "?after_seq=0"])
def test_last_event_id_wins_over_the_query(finished: Conversation, query: str) -> None:
    """A browser that comes back repeats its query, and says how far it had come."""
    with event_source(finished, query, last_event_id="3") as source:
        assert durables(source.until(is_transient)) == logged(finished, 3)


def test_without_a_position_only_news_is_sent(conversation: Conversations, llm: ScriptedLlm) -> None:
    """A run is told as on the socket, with answers while they grow; only stored events have an id."""
    one = conversation(agent=agent_of(llm, stream=True))
    one.send("from before")
    before = len(one.events)
    with event_source(one) as source:
        begun = source.until(is_transient)
        assert source.last_event_id is None
        one.send("SAY one two", run=True)
        frames = source.until(ends_run)

    assert [frame["type"] for frame in begun] == ["sync", "transient"]
    assert durables(frames) == logged(one, before - 1)
    assert "".join(frame["content"] for frame in frames if frame["type"] == "delta") == "one two"


def test_large_event_is_sent_unless_the_client_sets_a_limit(conversation: Conversations) -> None:
    """No client of plain HTTP is known to have one."""
    one = conversation()
    one.post("/events", user_message(BIG_TEXT)).raise_for_status()
    with event_source(one, HISTORY) as source:
        assert durables(source.until(is_transient)) == logged(one)
    with event_source(one, f"{HISTORY}&max_frame_bytes=100000") as source:
        keys = [frame["event"].get("key") for frame in source.until(is_transient)[1:-1]]
    assert keys[1] == "oversize_event"


def test_deleted_conversation_ends_its_streams(conversation: Conversations) -> None:
    """Who comes back finds nothing, which tells a browser to stay away."""
    one = conversation()
    with event_source(one) as source:
        source.until(is_transient)
        one.delete().raise_for_status()
        assert list(source) == []
    assert one.get("/events/stream").status_code == 404


@pytest.mark.parametrize(("query", "last_event_id"), [("?after_seq=x", None), ("", "x"), ("", "1.5")])
def test_bad_position_is_422(finished: Conversation, query: str, last_event_id: str | None) -> None:
    """Before anything is sent."""
    with event_source(finished, query, last_event_id) as source:
        assert source.response.status_code == 422
