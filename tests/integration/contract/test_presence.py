"""Who watches a conversation, and who of several clients has sent a message."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable

import pytest
from websockets.sync.connection import Connection

from tests.integration.contract.conversations import Conversation, Conversations, JsonObject, user_message
from tests.integration.contract.frames import read, read_until
from tests.integration.contract.session import ends_run, event_source, is_transient, opening
from tests.waiting import wait_until


def presence(conversation: Conversation) -> JsonObject:
    """What the server says of it now."""
    answer = conversation.get("", params={"include_presence": "true"}).raise_for_status()
    content: JsonObject = answer.json()["presence"]
    return content


def of_presence(count: int, *names: str) -> Callable[[JsonObject], bool]:
    """Whether a frame says that so many watch, with these names."""
    return lambda frame: frame == {"type": "presence", "count": count, "names": list(names)}


def wait_for(conversation: Conversation, count: int, *names: str) -> None:
    expected = {"count": count, "names": list(names)}
    wait_until(lambda: presence(conversation) == expected, f"{count} watch")


def test_information_says_who_watches_when_asked(conversation: Conversations) -> None:
    """Every kind of reader counts; names are of those that gave one."""
    one = conversation()
    assert "presence" not in one.info
    assert presence(one) == {"count": 0, "names": []}
    with one.session("?watcher=Ada"), one.socket("?watcher=Grace"), one.socket(), event_source(one) as source:
        source.until(is_transient)
        wait_for(one, 4, "Ada", "Grace")
    wait_for(one, 0)


def test_sessions_are_told_who_comes_and_goes(conversation: Conversations) -> None:
    """Names are whatever text a person has; a name is shown once."""
    one = conversation()
    with one.session("?watcher=Ada") as watching:
        opening(watching)
        read_until(watching, of_presence(1, "Ada"))
        with one.session("?watcher=J%C3%BCrgen%20%22J%22"), one.socket("?watcher=Ada"):
            read_until(watching, of_presence(3, "Ada", 'Jürgen "J"'))
        read_until(watching, of_presence(1, "Ada"))
    assert [event["kind"] for event in one.events] == []


def test_killed_client_is_no_watcher(conversation: Conversations) -> None:
    """It says nothing when it ends; its connection is closed for it."""
    one = conversation()
    killed = one.session("?watcher=Ada")
    with one.session() as watching:
        read_until(watching, of_presence(2, "Ada"))
        kill(killed)
        read_until(watching, of_presence(1))


def kill(connection: Connection) -> None:
    """End a connection as the kernel does for a process that was killed."""
    connection.socket.shutdown(socket.SHUT_RDWR)


def test_events_socket_is_sent_no_presence(conversation: Conversations) -> None:
    """Its clients know events only."""
    one = conversation()
    with one.socket() as events, one.session("?watcher=Ada") as watching:
        read(events)
        read_until(watching, of_presence(2, "Ada"))
        one.send("hello")
        assert read(events)["kind"] == "SystemPromptEvent"


@pytest.mark.parametrize("name", ["", "x" * 65])
def test_senseless_name_refuses_the_handshake(conversation: Conversations, name: str) -> None:
    """As any bad query value."""
    with pytest.raises(Exception, match="403"):
        conversation().session(f"?watcher={name}")


def senders(conversation: Conversation) -> list[str | None]:
    """Of the user messages, in order."""
    return [event.get("sender") for event in conversation.events if event["kind"] == "MessageEvent"]


def test_message_tells_its_sender(conversation: Conversations) -> None:
    """By the post's `sender`, the frame's, or the name that the socket's client gave; without one there is none."""
    one = conversation()
    one.post("/events", user_message("SAY ok") | {"sender": "Post"}).raise_for_status()
    one.send("SAY ok")
    with one.session("?watcher=Ada") as session:
        opening(session)
        for named in ({}, {"sender": "Frame"}):
            session.send(json.dumps({"role": "user", "content": "SAY ok", **named}))
            read_until(session, ends_run)

    assert [sender for sender in senders(one) if sender] == ["Post", "Ada", "Frame"]
    assert senders(one)[1] is None
