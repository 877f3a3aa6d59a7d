"""An event of 20 MiB in the middle of a conversation keeps no client from what follows it."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.cluster_process import Cluster
from tests.integration.contract.conversations import Conversation, Conversations, user_message
from tests.integration.contract.viewer import Viewer

SIZE_BYTES = 20 << 20


@pytest.fixture
def follower(cluster: Cluster, conversation: Conversations) -> Iterator[Conversation]:
    """A conversation with a small message, to which the test adds a large one and another small one."""
    one = conversation()
    one.send("before")
    yield one
    one.delete()


def add_large_and_small(conversation: Conversation) -> str:
    """Returns the id of the large event."""
    conversation.post("/events", user_message("x" * SIZE_BYTES)).raise_for_status()
    conversation.send("after")
    return next(str(event["id"]) for event in conversation.events if is_large(event))


def is_large(event: dict[str, object]) -> bool:
    return event["kind"] == "MessageEvent" and len(str(event)) > SIZE_BYTES


@pytest.mark.parametrize("is_live", [True, False], ids=["live", "resent"])
def test_client_with_the_usual_limit_gets_a_marker_and_what_follows(follower: Conversation, *, is_live: bool) -> None:
    """Python's `websockets`, as the SDK's client uses it: the marker says where the event can be fetched."""
    if is_live:
        with Viewer(follower) as viewer:
            event_id = add_large_and_small(follower)
            viewer.until("oversize_event")
            viewer.until("user")
    else:
        event_id = add_large_and_small(follower)
        with Viewer(follower, "?resend_mode=all") as viewer:
            viewer.until("oversize_event")
            viewer.until("user")
    [marker] = [frame for frame in viewer.frames if frame.get("key") == "oversize_event"]
    assert marker["value"]["event_id"] == event_id
    assert marker["value"]["size_bytes"] > SIZE_BYTES
    fetched = follower.http.get(marker["value"]["url"]).json()
    assert len(fetched["llm_message"]["content"][0]["text"]) == SIZE_BYTES


def test_client_that_takes_any_size_gets_the_event(follower: Conversation) -> None:
    """It says so in the query."""
    event_id = add_large_and_small(follower)
    with follower.socket(f"?resend_mode=all&max_frame_bytes={2 * SIZE_BYTES}", max_size=None) as socket:
        frame = next(frame for frame in socket if len(frame) > SIZE_BYTES)
    assert json.loads(frame)["id"] == event_id


def test_limit_that_no_marker_fits_is_refused(follower: Conversation) -> None:
    """As any bad query value."""
    with pytest.raises(Exception, match="403"), follower.socket("?max_frame_bytes=10"):
        pass
