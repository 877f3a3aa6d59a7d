"""`/sockets/session/{id}`: the log from a position on, each event with its seq, and answers while they grow."""

from __future__ import annotations

import json
from collections.abc import Callable
from uuid import UUID

import httpx
import pytest
from websockets.exceptions import InvalidStatus

from service.demo.scripted_llm import ScriptedLlm
from tests.integration.contract.conversations import (
    Conversation,
    Conversations,
    JsonObject,
    agent_of,
    call,
    user_message,
)
from tests.integration.contract.frames import (
    BIG_TEXT,
    close_of,
    counted,
    idle_client,
    is_full_state,
    logged_ids,
    read,
    read_until,
)
from tests.integration.contract.session import HISTORY, durables, ends_run, is_transient, logged, opening, session_until
from tests.integration.contract.viewer import FRAME_SECONDS
from tests.server_process import Server
from tests.waiting import wait_until

LAST = 9
"""The last seq of `finished`."""


@pytest.fixture(scope="module")
def finished(http: httpx.Client, llm: ScriptedLlm, tmp_path_factory: pytest.TempPathFactory) -> Conversation:
    """A conversation with one finished run, which no test changes."""
    made = Conversations(http, llm, str(tmp_path_factory.mktemp("project")))()
    with made.socket() as socket:
        made.send(call("think", thought="of it"), "SAY bye", run=True)
        read_until(socket, lambda frame: is_full_state(frame) and frame["value"]["execution_status"] == "finished")
    return made


@pytest.fixture
def streaming(conversation: Conversations, llm: ScriptedLlm) -> Conversation:
    """A conversation whose LLM streams."""
    return conversation(agent=agent_of(llm, stream=True))


# Connecting


def test_new_conversation_begins_with_sync_and_the_full_state(conversation: Conversations) -> None:
    """An empty log has no last seq; what was not asked for is not there, instead of null."""
    with conversation().session() as socket:
        sync, state = opening(socket)

    assert sync.keys() <= {"type", "stream_epoch"}
    assert sync["type"] == "sync"
    assert (state["type"], state["event"]["key"]) == ("transient", "full_state")
    assert state["event"]["value"]["execution_status"] == "idle"


@pytest.mark.parametrize(
    ("after_seq", "replayed_after"),
    [(None, LAST), (-1, -1), (-7, -1), (0, 0), (2, 2), (LAST, LAST), (LAST + 1000, LAST)],
)
def test_history_follows_from_the_position_asked_for(
    finished: Conversation, after_seq: int | None, replayed_after: int
) -> None:
    """`sync`, then exactly the events after it, then the state; none where nothing is asked for or nothing is left."""
    query = "" if after_seq is None else f"?after_seq={after_seq}"
    with finished.session(query) as socket:
        sync, *history, state = opening(socket)

    assert sync["type"] == "sync"
    assert sync["through_seq"] == LAST
    assert sync.get("from_seq") == after_seq
    assert "recovered" not in sync
    assert durables(history) == logged(finished, replayed_after)
    assert [frame["type"] for frame in history] == ["durable"] * (LAST - replayed_after)
    assert is_transient(state)


def test_position_beyond_the_log_is_followed_by_real_seqs(conversation: Conversations) -> None:
    """What comes then has its own seq, below the one that was asked for."""
    one = conversation()
    with one.session("?after_seq=500") as socket:
        opening(socket)
        one.send("hello")
        assert durables(session_until(socket, lambda frame: frame.get("seq") == 1)) == logged(one)[:2]


@pytest.mark.parametrize("query", ["?after_seq=", "?after_seq=x", "?after_seq=1.5", "?max_frame_bytes=1"])
def test_bad_query_refuses_the_handshake(finished: Conversation, query: str) -> None:
    """403 without a body, before the socket opens."""
    with pytest.raises(InvalidStatus) as refused:
        finished.session(query)

    assert refused.value.response.status_code == 403
    assert not refused.value.response.body


def test_socket_of_an_unknown_conversation_closes_4004(conversation: Conversations) -> None:
    """It opens, and is closed with a code that tells clients to stay away."""
    with conversation.unknown().session() as socket:
        assert close_of(socket) == (4004, "Conversation not found")


def test_malformed_id_refuses_the_handshake(conversation: Conversations) -> None:
    """What is no id is not looked up."""
    with pytest.raises(InvalidStatus) as refused:
        conversation.handle("notauuid").session()

    assert refused.value.response.status_code == 403


def test_deleting_a_conversation_closes_its_sessions_with_4004(conversation: Conversations) -> None:
    """Every reader is told that there is nothing to come back for."""
    one = conversation()
    with one.session() as socket:
        opening(socket)
        one.delete().raise_for_status()
        assert close_of(socket) == (4004, "Conversation not found")


def test_event_in_a_frame_is_the_stored_bytes(finished: Conversation, server: Server) -> None:
    """Only the envelope is put around it."""
    folder = server.conversations_path / UUID(finished.id).hex / "events"
    with finished.session(HISTORY) as socket:
        read(socket)
        for seq, event_id in logged(finished):
            frame = socket.recv(timeout=FRAME_SECONDS, decode=False)
            stored = (folder / f"event-{seq:05d}-{event_id}.json").read_bytes()
            assert frame == b'{"type":"durable","seq":%d,"event":' % seq + stored + b"}"


# Which history


def test_known_history_is_recovered(finished: Conversation) -> None:
    """Who says what `sync` called the history goes on where it was."""
    with finished.session() as socket:
        stream_epoch = read(socket)["stream_epoch"]
    with finished.session(f"?after_seq=2&stream_epoch={stream_epoch}") as socket:
        sync, *history, _ = opening(socket)

    assert (sync["recovered"], sync["from_seq"], sync["stream_epoch"]) == (True, 2, stream_epoch)
    assert durables(history) == logged(finished, 2)


@pytest.mark.parametrize(
    "query",
    ["?after_seq=2&stream_epoch=" + "0" * 32, "?after_seq=2&stream_epoch=", "?after_seq=1000&stream_epoch={known}"],
    ids=["another", "none", "a position that the log does not have"],
)
def test_unknown_history_is_sent_whole(finished: Conversation, query: str) -> None:
    """A position in it would mean nothing: the client is told so, and gets everything."""
    with finished.session() as socket:
        known = read(socket)["stream_epoch"]
    with finished.session(query.format(known=known)) as socket:
        sync, *history, _ = opening(socket)

    assert (sync["recovered"], sync["from_seq"]) == (False, -1)
    assert durables(history) == logged(finished)


def test_conversation_made_again_under_its_id_is_another_history(conversation: Conversations) -> None:
    """A client that comes back with its old position gets the new log from its beginning."""
    former = conversation()
    for text in ("one", "two"):
        former.send(text)
    with former.session() as socket:
        known = read(socket)["stream_epoch"]
    former.delete().raise_for_status()
    again = conversation(conversation_id=former.id)
    again.send("three")
    with again.session(f"?after_seq=1&stream_epoch={known}") as socket:
        sync, *history, _ = opening(socket)

    assert sync["recovered"] is False
    assert sync["stream_epoch"] != known
    assert durables(history) == logged(again)


# A run


def test_run_is_told_with_seqs(conversation: Conversations) -> None:
    """Every event once, with dense seqs, and the full state after the last."""
    one = conversation()
    with one.session() as socket:
        opening(socket)
        one.send(call("think", thought="of it"), "SAY bye", run=True)
        frames = session_until(socket, ends_run)

    assert {frame["type"] for frame in frames} == {"durable", "transient"}
    assert durables(frames) == logged(one)
    assert [seq for seq, _ in durables(frames)] == list(range(len(one.events)))


def of_type(frames: list[JsonObject], *types: str) -> list[JsonObject]:
    return [frame for frame in frames if frame["type"] in types]


def test_streamed_answer_is_told_while_it_grows(streaming: Conversation) -> None:
    """Start, numbered pieces, and then the event whose id they had; the other socket's deltas do not appear."""
    with streaming.session() as socket:
        opening(socket)
        streaming.send("SAY one two three", run=True)
        frames = session_until(socket, ends_run)

    start, *deltas = of_type(frames, "item_started", "delta", "item_aborted")
    assert start["type"] == "item_started"
    answer = next(event for event in streaming.events if event["source"] == "agent" and event["kind"] == "MessageEvent")
    assert (start["item_id"], start["attempt"]) == (answer["id"], 1)
    assert start["anchor_seq"] < len(streaming.events)
    assert "".join(delta["content"] for delta in deltas) == "one two three"
    assert [delta["order"] for delta in deltas] == list(range(len(deltas)))
    for delta in deltas:
        assert (delta["type"], delta["item_id"], delta["attempt"], delta["kind"]) == ("delta", answer["id"], 1, "text")
        assert delta.keys() <= {"type", "item_id", "attempt", "order", "kind", "content", "chunk_id", "choice_index"}
    told = [frame for frame in frames if frame["type"] == "durable" and frame["event"]["id"] == answer["id"]]
    assert frames.index(told[0]) > frames.index(deltas[-1])
    assert durables(frames) == logged(streaming)
    assert "StreamingDeltaEvent" not in json.dumps(frames)


def test_answer_of_tool_calls_only_starts_no_item(streaming: Conversation) -> None:
    """There is no text to be told."""
    with streaming.session() as socket:
        opening(socket)
        streaming.send(call("finish", message="bye"), run=True)
        frames = session_until(socket, ends_run)

    assert not of_type(frames, "item_started", "delta", "item_aborted")


def test_interrupted_answer_is_aborted(streaming: Conversation, llm: ScriptedLlm) -> None:
    """What was begun and became no event is closed, once, before the news of the pause."""
    with streaming.session() as socket:
        opening(socket)
        streaming.send("STALL session-interrupt", "SAY one two three", run=True)
        begun = session_until(socket, lambda frame: frame["type"] == "delta")
        llm.wait_held("session-interrupt")
        streaming.post("/interrupt").raise_for_status()
        frames = session_until(socket, lambda frame: frame.get("event", {}).get("kind") == "InterruptEvent")

    start = next(frame for frame in begun if frame["type"] == "item_started")
    [aborted] = of_type(frames, "item_aborted")
    assert aborted == {"type": "item_aborted", "item_id": start["item_id"], "attempt": 1, "reason": "cancelled"}
    assert start["item_id"] not in [event["id"] for event in streaming.events]


def test_secret_in_a_streamed_answer_is_masked(streaming: Conversation) -> None:
    """Though the provider cuts it in two, on both sockets, and also where the command that used it is shown."""
    streaming.post("/secrets", {"secrets": {"TOKEN": "open sesame"}}).raise_for_status()
    with streaming.session() as session, streaming.socket() as events:
        opening(session)
        streaming.send("SAY say open sesame now", run=True)
        frames = session_until(session, ends_run)
        told = read_until(
            events, lambda frame: is_full_state(frame) and frame["value"]["execution_status"] == "finished"
        )

    in_session = "".join(frame["content"] for frame in of_type(frames, "delta"))
    in_events = "".join(frame["content"] for frame in told if frame["kind"] == "StreamingDeltaEvent")
    assert in_session == in_events == "say <secret-hidden> now"


def test_reader_that_comes_in_the_middle_is_told_of_no_half_answer(streaming: Conversation, llm: ScriptedLlm) -> None:
    """Progress is not replayed, and pieces without their beginning are of no use; the event closes it."""
    with streaming.session() as first:
        opening(first)
        streaming.send("STALL session-late", "SAY one two three", run=True)
        session_until(first, lambda frame: frame["type"] == "delta")
        llm.wait_held("session-late")
        with streaming.session() as late:
            opening(late)
            llm.release("session-late")
            frames = session_until(late, ends_run)
        assert of_type(session_until(first, ends_run), "delta")

    assert not of_type(frames, "item_started", "delta", "item_aborted")
    assert frames[0]["seq"] == durables(frames)[0][0]


# What a client may send


def test_message_on_the_socket_is_appended_and_runs(conversation: Conversations) -> None:
    """As on the events socket."""
    one = conversation()
    with one.session() as socket:
        opening(socket)
        socket.send('{"role": "user", "content": "SAY ok"}')
        socket.send('{"type": "auth", "session_api_key": "whatever"}')
        frames = session_until(socket, ends_run)

    assert not of_type(frames, "error")
    assert one.outline == ["user", "agent: ok"]


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        ("{nope", "JSONDecodeError"),
        ('{"type": "ping"}', "ValidationError"),
        ("[]", "ValidationError"),
        ('"text"', "ValidationError"),
        ('{"type": "auth", "session_api_key": "k", "more": 1}', "ValidationError"),
        (b"\x00", "JSONDecodeError"),
    ],
)
def test_bad_frame_is_answered_with_an_error_frame(frame: str | bytes, code: str, conversation: Conversations) -> None:
    """The sender may go on; nothing is appended."""
    one = conversation()
    with one.session() as socket:
        opening(socket)
        socket.send(frame)
        [answer] = session_until(socket, lambda frame: frame["type"] == "error")
        assert answer.keys() == {"type", "code", "detail"}
        assert (answer["type"], answer["code"]) == ("error", code)
        socket.send('{"role": "user", "content": "SAY ok"}')
        session_until(socket, ends_run)
    assert one.outline == ["user", "agent: ok"]


# Slow readers


def test_slow_reader_is_held_in_bounded_memory_and_misses_nothing(
    conversation: Conversations, http: httpx.Client
) -> None:
    """What waits for it is dropped once it is too much, and read from the log when it goes on reading."""
    one = conversation()
    dropped = counted(http, "backlogs_dropped")
    with idle_client(one, f"/sockets/session/{one.id}?after_seq=-1&max_frame_bytes={1 << 30}") as slow:
        frames = opening(slow)

        def one_more_is_too_much() -> bool:
            one.send(BIG_TEXT)  # how many of them the connection itself takes is the kernel's choice
            return counted(http, "backlogs_dropped") > dropped

        wait_until(one_more_is_too_much, "what waited was dropped")
        for number in range(50):
            one.send(f"small {number}")
        last = len(logged_ids(one)) - 1
        frames += session_until(slow, lambda frame: frame.get("seq") == last)

    assert durables(frames) == list(enumerate(logged_ids(one)))


# Large events


@pytest.mark.parametrize("is_live", [True, False], ids=["live", "replayed"])
def test_large_event_is_told_by_reference(conversation: Conversations, *, is_live: bool) -> None:
    """It keeps its seq, the socket stays open, and what follows arrives."""
    one = conversation()

    def append() -> None:
        one.post("/events", user_message(BIG_TEXT)).raise_for_status()
        one.send("after")

    append_first: Callable[[], None] = append if not is_live else lambda: None
    append_first()
    with one.session(HISTORY) as socket:
        if is_live:
            opening(socket)
            append()
        frames = session_until(socket, lambda frame: frame.get("seq") == 4)

    received, stored = of_type(frames, "durable"), one.events
    assert [frame["seq"] for frame in received] == list(range(5))
    marker = received[1]["event"]
    assert (marker["kind"], marker["key"]) == ("ConversationStateUpdateEvent", "oversize_event")
    assert marker["value"]["event_id"] == stored[1]["id"]
    assert one.http.get(marker["value"]["url"]).json() == stored[1]
    assert [frame["event"]["id"] for frame in received[2:]] == [event["id"] for event in stored[2:]]


def test_client_that_takes_any_size_gets_the_event(conversation: Conversations) -> None:
    """It says so in the query."""
    one = conversation()
    one.post("/events", user_message(BIG_TEXT)).raise_for_status()
    with one.session(f"{HISTORY}&max_frame_bytes={1 << 30}", max_size=None) as socket:
        _, *history, _ = opening(socket)
    assert durables(history) == logged(one)
