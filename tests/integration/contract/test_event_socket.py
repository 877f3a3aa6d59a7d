"""`/sockets/events/{id}`: what a client is sent when it connects, what it may send, and how the socket ends."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import NamedTuple
from uuid import UUID
from zoneinfo import ZoneInfo

import httpx
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.connection import Connection

from service.demo.scripted_llm import ScriptedLlm
from tests.integration.contract.conversations import (
    Conversation,
    Conversations,
    JsonObject,
    agent_of,
    call,
    terminal,
)
from tests.integration.contract.frames import (
    ANY_SIZE,
    close_of,
    event_ids,
    flood,
    idle_client,
    is_end_of_run,
    is_full_state,
    logged_ids,
    news,
    read,
    read_until,
)
from tests.integration.contract.viewer import FRAME_SECONDS, Viewer
from tests.server_process import Server

ZONE = "Asia/Kolkata"

WATCHERS = 20
STEPS_BETWEEN_WATCHERS = 2
VIEWERS = 60


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server far from UTC: a naive time and an aware one must not be mixed up."""
    with Server(tmp_path_factory.mktemp("server"), {"TZ": ZONE}) as running:
        yield running


@pytest.fixture(scope="module")
def finished(http: httpx.Client, llm: ScriptedLlm, tmp_path_factory: pytest.TempPathFactory) -> Conversation:
    """A conversation with one finished run, which no test changes."""
    made = Conversations(http, llm, str(tmp_path_factory.mktemp("project")))()
    with Viewer(made) as viewer:
        made.send(call("think", thought="of it"), "SAY bye", run=True)
        viewer.until("full_state=finished")
    made.patch({"title": "not told"}).raise_for_status()
    return made


@pytest.fixture(scope="module")
def log(finished: Conversation) -> list[JsonObject]:
    """Its events, oldest first."""
    return finished.events


# Connecting


def test_first_frame_is_the_full_state(finished: Conversation, log: list[JsonObject]) -> None:
    """Clients take it as the sign that they are subscribed: the state as it is, with the key hidden and no title."""
    with finished.socket() as socket:
        first = read(socket)

    assert first.keys() == {"id", "timestamp", "source", "key", "value", "kind"}
    assert (first["kind"], first["key"]) == ("ConversationStateUpdateEvent", "full_state")
    assert first["source"] == "environment"
    state = first["value"]
    assert (state["id"], state["execution_status"]) == (finished.id, "finished")
    assert state["agent"]["llm"]["api_key"] == "**********"
    assert state["last_user_message_id"] == log[1]["id"]
    assert "title" not in state
    assert None not in state.values()


def test_full_state_of_a_new_conversation_has_the_contracts_keys(conversation: Conversations) -> None:
    """Before the first message there is no id of a last message and no leaf."""
    with conversation().socket() as socket:
        state = read(socket)["value"]

    assert sorted(state) == [
        *("activated_knowledge_skills", "activated_path_rules", "agent", "agent_state", "blocked_actions"),
        *("blocked_messages", "confirmation_policy", "execution_status", "head_is_empty", "id", "invoked_skills"),
        *("max_iterations", "persistence_dir", "secret_registry", "stats", "stuck_detection", "tags", "workspace"),
    ]


def test_first_frame_of_a_running_conversation_says_so(conversation: Conversations, llm: ScriptedLlm) -> None:
    """Who connects during an LLM call is told at once that a run is going on."""
    running = conversation()
    running.send("HOLD connect-during-call", "SAY ok", run=True)
    llm.wait_held("connect-during-call")

    with running.socket() as socket:
        assert read(socket)["value"]["execution_status"] == "running"
    llm.release("connect-during-call")


def test_first_frame_does_not_wait_for_a_tool(conversation: Conversations) -> None:
    """A command that takes long delays nobody who connects meanwhile."""
    running = conversation.with_terminal()
    running.send(terminal("sleep 60"), run=True)
    running.wait_event("the command is asked for", lambda event: event["kind"] == "ActionEvent")

    with running.socket() as socket:
        assert read(socket)["value"]["execution_status"] == "running"
    assert "result terminal" not in running.outline


def test_socket_takes_every_form_of_the_id(finished: Conversation) -> None:
    """Undashed and in upper case it is the same conversation."""
    other_form = Conversation(finished.http, UUID(finished.id).hex.upper(), finished.llm)

    with other_form.socket() as socket:
        assert read(socket)["value"]["id"] == finished.id


def test_socket_of_an_unknown_conversation_closes_4004(conversation: Conversations) -> None:
    """It opens, and is closed with a code that tells clients to stay away; no frame is sent."""
    with conversation.unknown().socket() as socket:
        assert close_of(socket) == (4004, "Conversation not found")


@pytest.mark.parametrize(
    "query",
    [
        "?resend_mode=bogus",
        "?resend_mode=",
        "?resend_mode=ALL",
        "?resend_all=perhaps",
        "?after_timestamp=junk",
        "?resend_mode=since&after_timestamp=0001-01-01T00:00:00%2B23:00",
        "/",
    ],
)
def test_bad_query_refuses_the_handshake(query: str, finished: Conversation) -> None:
    """403 without a body, before the socket opens."""
    with pytest.raises(InvalidStatus) as refused:
        finished.socket(query)

    assert refused.value.response.status_code == 403
    assert not refused.value.response.body


def test_malformed_id_refuses_the_handshake(conversation: Conversations) -> None:
    """What is no id is not looked up."""
    with pytest.raises(InvalidStatus) as refused:
        conversation.handle("notauuid").socket()

    assert refused.value.response.status_code == 403


def test_key_is_not_looked_at_where_none_is_configured(finished: Conversation) -> None:
    """A stray key in the query or in a frame has no effect."""
    with finished.socket("?session_api_key=whatever") as socket:
        assert is_full_state(read(socket))
        socket.send('{"type": "auth", "session_api_key": "whatever"}')
        assert news(socket, finished) == []


# History


@pytest.mark.parametrize(
    "query",
    [
        *("", "?resend_all=false", "?resend_mode=since", "?resend_all=true&resend_mode=since"),
        *("?after_timestamp=2020-01-01", "?resend_all=false&after_timestamp=2020-01-01"),
    ],
)
def test_without_a_wish_for_history_only_news_is_sent(query: str, conversation: Conversations) -> None:
    """Nothing that was stored before is sent: neither by default, nor with half of what `since` needs."""
    created = conversation()
    created.send("from before")

    with created.socket(query) as socket:
        assert is_full_state(read(socket))
        assert news(socket, created) == []


@pytest.mark.parametrize("query", ["?resend_all=true", "?resend_all=1", "?resend_mode=all"])
def test_whole_history_follows_the_full_state(query: str, finished: Conversation) -> None:
    """Every stored event once, in the order of the log."""
    with finished.socket(query) as socket:
        assert is_full_state(read(socket))
        assert event_ids(news(socket, finished)) == logged_ids(finished)


def naive(moment: datetime) -> str:
    return moment.isoformat()


def zulu(moment: datetime) -> str:
    return moment.replace(tzinfo=ZoneInfo(ZONE)).astimezone(UTC).isoformat().replace("+00:00", "Z")


def elsewhere(moment: datetime) -> str:
    return moment.replace(tzinfo=ZoneInfo(ZONE)).astimezone(ZoneInfo("America/Lima")).isoformat()


@pytest.mark.parametrize("write", [naive, zulu, elsewhere], ids=lambda write: write.__name__)
def test_history_since_a_moment_is_read_in_every_zone(
    write: Callable[[datetime], str], finished: Conversation, log: list[JsonObject]
) -> None:
    """Events from that moment on, the one at that very moment included; naive means the server's local time."""
    moment = write(datetime.fromisoformat(log[3]["timestamp"]))

    with finished.socket(f"?resend_mode=since&after_timestamp={moment.replace('+', '%2B')}") as socket:
        assert is_full_state(read(socket))
        assert event_ids(news(socket, finished)) == [event["id"] for event in log[3:]]


@pytest.mark.parametrize("moment", ["2020-01-01", "1700000000"])
def test_history_since_a_date_or_a_number(moment: str, finished: Conversation, log: list[JsonObject]) -> None:
    """The other forms of a time are read as everywhere."""
    with finished.socket(f"?resend_mode=since&after_timestamp={moment}") as socket:
        assert is_full_state(read(socket))
        assert event_ids(news(socket, finished)) == [event["id"] for event in log]


def test_frames_are_the_stored_bytes(finished: Conversation, log: list[JsonObject], server: Server) -> None:
    """An event is encoded once: a frame is its file, byte for byte."""
    folder = server.conversations_path / UUID(finished.id).hex / "events"
    with finished.socket("?resend_mode=all") as socket:
        read(socket)
        for seq, event in enumerate(log):
            frame = socket.recv(timeout=FRAME_SECONDS, decode=False)
            assert frame == (folder / f"event-{seq:05d}-{event['id']}.json").read_bytes()


# Exactly once


class WatchedRun(NamedTuple):
    """A long run, and what sockets that were opened all along it got to its end."""

    log: list[str]
    with_history: list[list[JsonObject]]
    without_history: list[list[JsonObject]]
    since_a_moment: list[list[JsonObject]]


@pytest.fixture(scope="module")
def watched_run(http: httpx.Client, llm: ScriptedLlm, tmp_path_factory: pytest.TempPathFactory) -> WatchedRun:
    """Opens a socket of each kind whenever the run has gone on by two steps, while it goes on by two more.

    None of them is read before all are open.
    """
    watched = Conversations(http, llm, str(tmp_path_factory.mktemp("project")))()
    script: list[str] = []
    for number in range(WATCHERS):
        steps = range(STEPS_BETWEEN_WATCHERS)
        script += [f"HOLD watchers-{number}", *(call("think", thought=f"thought {number}.{step}") for step in steps)]
    watched.send(*script, "HOLD all-watchers", "SAY the end", run=True)
    kinds = ("?resend_mode=all", "", "?resend_mode=since&after_timestamp=2020-01-01")
    with ExitStack() as stack, ThreadPoolExecutor(8) as readers:
        opened: list[list[Connection]] = []
        for number in range(WATCHERS):
            llm.wait_held(f"watchers-{number}")
            llm.release(f"watchers-{number}")
            opened.append([stack.enter_context(watched.socket(query)) for query in kinds])
        llm.release("all-watchers")
        seen = [
            list(readers.map(lambda socket: read_until(socket, is_end_of_run), of_one_kind))
            for of_one_kind in zip(*opened, strict=True)
        ]
    return WatchedRun(logged_ids(watched), *seen)


def test_sockets_with_history_get_every_event_of_a_run_once_in_order(watched_run: WatchedRun) -> None:
    """Wherever in a run they connect, history and news join without a hole, a repetition or a change of order."""
    assert len(watched_run.log) > 3 * STEPS_BETWEEN_WATCHERS * WATCHERS
    assert len(watched_run.with_history) == WATCHERS
    for frames in watched_run.with_history:
        assert is_full_state(frames[0])
        assert event_ids(frames) == watched_run.log


def test_sockets_since_a_moment_get_every_event_of_a_run_once_in_order(watched_run: WatchedRun) -> None:
    """The same holds where the history is selected by time."""
    assert len(watched_run.since_a_moment) == WATCHERS
    for frames in watched_run.since_a_moment:
        assert is_full_state(frames[0])
        assert event_ids(frames) == watched_run.log


def test_sockets_without_history_get_every_later_event_of_a_run_once_in_order(watched_run: WatchedRun) -> None:
    """From its first event on such a socket misses nothing, and each later socket begins no earlier."""
    starts = []
    for frames in watched_run.without_history:
        assert is_full_state(frames[0])
        received = event_ids(frames)
        starts.append(watched_run.log.index(received[0]))
        assert received == watched_run.log[starts[-1] :]
    assert starts == sorted(starts)
    assert len(set(starts)) > WATCHERS // 2, "the sockets were opened at different moments"


def test_sixty_viewers_of_one_conversation_stay(conversation: Conversations) -> None:
    """There is no cap on the viewers of a conversation, and each of them gets the news."""
    watched = conversation()
    with ExitStack() as stack:
        viewers = [stack.enter_context(watched.socket()) for _ in range(VIEWERS)]
        assert all(is_full_state(read(viewer)) for viewer in viewers)

        watched.send("SAY ok")

        expected = logged_ids(watched)
        for viewer in viewers:
            assert [read(viewer)["id"] for _ in expected] == expected


# What a client may send


@pytest.mark.parametrize(
    ("frame", "text"),
    [
        pytest.param({"role": "user", "content": [{"type": "text", "text": "SAY ok"}]}, "SAY ok", id="parts"),
        pytest.param({"role": "user", "content": [{"text": "SAY ok"}]}, "SAY ok", id="a part without type"),
        pytest.param({"role": "user", "content": "SAY ok"}, "SAY ok", id="a text"),
        pytest.param({"role": "user", "content": "SAY ok", "run": False, "other": 1}, "SAY ok", id="ignored keys"),
        pytest.param({"role": "user"}, "", id="no content"),
        pytest.param({"role": "user", "content": []}, "", id="no parts"),
        pytest.param({"type": "auth", "session_api_key": "k", "role": "user"}, "", id="a message that looks like auth"),
    ],
)
def test_message_on_the_socket_is_appended_and_runs(frame: JsonObject, text: str, conversation: Conversations) -> None:
    """Whatever its `run` says, a message starts a run, and is told on the socket it came from."""
    created = conversation()
    with created.socket() as socket:
        read(socket)

        socket.send(json.dumps(frame))
        frames = read_until(socket, is_end_of_run)

    message = next(frame for frame in frames if frame["kind"] == "MessageEvent")
    assert "".join(part["text"] for part in message["llm_message"]["content"]) == text
    assert message["source"] == "user"
    assert created.outline == ["user", "agent: ok" if text else "agent: done"]


def test_messages_on_the_socket_keep_their_order(conversation: Conversations) -> None:
    """Messages sent without waiting for each other are appended one after the other."""
    created = conversation()
    texts = [f"message {number}" for number in range(10)]
    with created.socket() as socket:
        for text in texts:
            socket.send(json.dumps({"role": "user", "content": text}))

        written: list[str] = []
        while len(written) < len(texts):
            event = read(socket)
            if event["kind"] == "MessageEvent" and event["source"] == "user":
                written.append(event["llm_message"]["content"][0]["text"])

    assert written == texts


BAD_FRAMES = [
    pytest.param("{nope", "JSONDecodeError", "Expecting property name enclosed in double quotes", id="no json"),
    pytest.param("", "JSONDecodeError", "Expecting value: line 1 column 1 (char 0)", id="nothing"),
    pytest.param("[" * 100_000, "JSONDecodeError", "maximum recursion depth exceeded", id="nested too deeply"),
    pytest.param('{"role": "user", "content": "\\ud800"}', "JSONDecodeError", "hex escape", id="half a character"),
    pytest.param(b"\x00\x01", "JSONDecodeError", "Messages must be sent as text frames", id="binary"),
    pytest.param(b'{"role": "user"}', "JSONDecodeError", "must be sent as text", id="a message as binary"),
    pytest.param("[]", "ValidationError", "A message must be a JSON object", id="a list"),
    pytest.param('"text"', "ValidationError", "A message must be a JSON object", id="a text"),
    pytest.param("null", "ValidationError", "A message must be a JSON object", id="null"),
    pytest.param("5", "ValidationError", "A message must be a JSON object", id="a number"),
    pytest.param("{}", "ValidationError", "Field required", id="an empty object"),
    pytest.param('{"type": "ping"}', "ValidationError", "Field required", id="a ping"),
    pytest.param('{"content": "SAY ok"}', "ValidationError", "Field required", id="no role"),
    pytest.param('{"role": null}', "ValidationError", "Input should be 'user', 'system'", id="role null"),
    pytest.param('{"role": "robot"}', "ValidationError", "Input should be 'user', 'system'", id="unknown role"),
    pytest.param('{"role": "system"}', "ValidationError", "Only user messages are allowed", id="system role"),
    pytest.param('{"role": "assistant"}', "ValidationError", "Only user messages are allowed", id="assistant role"),
    pytest.param('{"role": "tool"}', "ValidationError", "Only user messages are allowed", id="tool role"),
    pytest.param('{"role": "user", "content": 5}', "ValidationError", "a valid list", id="content a number"),
    pytest.param('{"role": "user", "content": null}', "ValidationError", "a valid list", id="content null"),
    pytest.param('{"role": "user", "content": NaN}', "ValidationError", "a valid list", id="content not a number"),
    pytest.param(
        '{"role": "user", "content": [{"type": "text", "text": "x", "bogus": 1}]}',
        "ValidationError",
        "Extra inputs are not permitted",
        id="unknown key in a part",
    ),
    pytest.param('{"type": "auth"}x', "JSONDecodeError", "Extra data", id="json and more"),
]


@pytest.mark.parametrize(("frame", "code", "detail"), BAD_FRAMES)
def test_bad_frame_is_answered_with_a_server_error_event(
    frame: str | bytes, code: str, detail: str, conversation: Conversations
) -> None:
    """The sender is told what is wrong and may go on; nothing is appended, not even the error."""
    created = conversation()
    with created.socket() as socket:
        read(socket)

        socket.send(frame)
        answer = read(socket)

        assert answer.keys() == {"id", "timestamp", "source", "code", "detail", "kind"}
        assert (answer["kind"], answer["source"], answer["code"]) == ("ServerErrorEvent", "environment", code)
        assert detail in answer["detail"]
        assert created.events == []
        assert event_ids(news(socket, created)) == []


def test_bad_frame_is_answered_to_its_sender_only(conversation: Conversations) -> None:
    """Other viewers of the conversation do not hear of it, and the sender's next message is taken."""
    created = conversation()
    with created.socket() as sender, created.socket() as other:
        read(sender)
        read(other)

        sender.send("{nope")
        sender.send('{"role": "user", "content": "SAY ok"}')

        assert read(sender)["kind"] == "ServerErrorEvent"
        assert read(sender)["kind"] == "SystemPromptEvent"
        assert "ServerErrorEvent" not in [frame["kind"] for frame in read_until(other, is_end_of_run)]


def test_bad_frame_does_not_give_keys_away(conversation: Conversations) -> None:
    """What is repeated of a wrong message is redacted like an HTTP answer."""
    created = conversation()
    with created.socket() as socket:
        read(socket)
        socket.send('{"role": "user", "content": [{"api_key": "sk-1", "env": {"A": "sk-2"}}]}')

        answer = read(socket)

    assert answer["code"] == "ValidationError"
    assert "<redacted>" in answer["detail"]
    assert "sk-" not in answer["detail"]


# The end of a socket


@pytest.mark.parametrize("is_running", [False, True], ids=["at rest", "running"])
def test_deleting_a_conversation_closes_its_sockets_with_4004(
    is_running: bool, conversation: Conversations, llm: ScriptedLlm
) -> None:
    """Every viewer is told that there is nothing to come back for; who comes all the same is told so too."""
    created = conversation()
    created.send("HOLD never-released", "SAY not reached", run=is_running)
    with ExitStack() as stack:
        viewers = [stack.enter_context(created.socket(query)) for query in ("", "", "?resend_mode=all")]
        for viewer in viewers:
            read(viewer)
        if is_running:
            llm.wait_held("never-released")

        created.delete().raise_for_status()

        assert [close_of(viewer) for viewer in viewers] == [(4004, "Conversation not found")] * 3
    with created.socket() as late:
        assert close_of(late) == (4004, "Conversation not found")


def test_conversation_made_again_under_its_id_starts_anew(conversation: Conversations) -> None:
    """Nothing of the deleted one is sent to who connects to the new one."""
    former = conversation()
    former.run_to("finished", "SAY the former")
    former.delete().raise_for_status()

    again = conversation(conversation_id=former.id)
    again.send("the latter")
    with again.socket("?resend_mode=all") as socket:
        assert read(socket)["value"]["execution_status"] == "idle"
        kinds = [read(socket)["kind"] for _ in range(3)]

    assert kinds == ["SystemPromptEvent", "MessageEvent", "ConversationStateUpdateEvent"]


def test_client_that_does_not_read_delays_no_other(conversation: Conversations) -> None:
    """While one client's buffers are full, and long before it is cut off, another gets everything."""
    watched = conversation()
    with idle_client(watched), watched.socket(ANY_SIZE, max_size=None) as reader:
        read(reader)

        expected = flood(watched)

        assert event_ids(read_until(reader, lambda frame: frame["id"] == expected[-1])) == expected


# Streaming


def test_streamed_words_are_told_and_not_stored(conversation: Conversations, llm: ScriptedLlm) -> None:
    """What the provider sends is told piece by piece; the log holds the whole answer only."""
    created = conversation(agent=agent_of(llm, stream=True))
    with created.socket() as socket:
        created.send("SAY one two three", run=True)
        frames = read_until(socket, is_end_of_run)

    deltas = [frame for frame in frames if frame["kind"] == "StreamingDeltaEvent"]
    assert "".join(delta["content"] for delta in deltas) == "one two three"
    assert all(delta["content"] for delta in deltas)
    assert all(delta.keys() == {"id", "timestamp", "source", "content", "kind"} for delta in deltas)
    assert {delta["source"] for delta in deltas} == {"agent"}
    rest = [frame for frame in frames if frame["kind"] != "StreamingDeltaEvent"]
    assert event_ids(rest) == logged_ids(created)
    assert created.outline == ["user", "agent: one two three"]


def test_streamed_words_come_before_the_answer_and_are_not_resent(
    conversation: Conversations, llm: ScriptedLlm
) -> None:
    """Who connects later gets the history without the deltas."""
    created = conversation(agent=agent_of(llm, stream=True))
    with created.socket() as socket:
        created.send("SAY one two three", run=True)
        kinds = [frame["kind"] for frame in read_until(socket, is_end_of_run)]
    with created.socket("?resend_mode=all") as late:
        history = news(late, created)

    answer = len(kinds) - 1 - kinds[::-1].index("MessageEvent")
    assert "StreamingDeltaEvent" in kinds[:answer]
    assert "StreamingDeltaEvent" not in kinds[answer:]
    assert "StreamingDeltaEvent" not in [frame["kind"] for frame in history]
