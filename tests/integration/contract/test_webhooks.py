"""What receivers of webhooks are told, when, and how it looks on the wire."""

from __future__ import annotations

import base64
import hmac
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.demo.scripted_llm import ScriptedLlm
from tests.integration.contract.conversations import Conversation, Conversations
from tests.server_process import Server
from tests.waiting import wait_until
from tests.webhook_receiver import Post, WebhookReceiver

KEY = "webhook-session-key"
SECRET = "a secret both know"


@pytest.fixture(scope="module")
def receiver() -> Iterator[WebhookReceiver]:
    with WebhookReceiver() as running:
        yield running


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, receiver: WebhookReceiver) -> Iterator[Server]:
    """A server of its own: it tells the receiver everything."""
    spec = {
        "base_url": receiver.url + "/",
        "headers": {"x-my": "v", "X-Session-API-Key": "not this one"},
        "event_buffer_size": 4,
        "flush_delay": 0.5,
        "num_retries": 1,
        "retry_delay": 0,
        "signing_secret": SECRET,
        "dead_letter_seconds": 0,
    }
    environment = {"OH_WEBHOOKS": json.dumps([spec]), "OH_SESSION_API_KEYS_0": KEY}
    with Server(tmp_path_factory.mktemp("webhooks"), environment) as running:
        yield running


@pytest.fixture(scope="module")
def http(server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=30, trust_env=False, headers={"X-Session-API-Key": KEY}) as client:
        yield client


@pytest.fixture(autouse=True)
def fresh(receiver: WebhookReceiver) -> None:
    """A receiver that takes everything and remembers nothing."""
    receiver.status = 200
    receiver.posts.clear()


def wait_told(receiver: WebhookReceiver, one: Conversation) -> list[dict[str, Any]]:
    """Wait until the receiver has the whole log, and return that."""
    wait_until(lambda: receiver.events(one.id) == one.events, "the receiver has the whole log")
    return one.events


def event_posts(receiver: WebhookReceiver, one: Conversation) -> list[Post]:
    return [post for post in receiver.posts if post.path.endswith(f"/events/{one.id.replace('-', '')}")]


def test_events_are_told_in_order_in_batches(receiver: WebhookReceiver, conversation: Conversations) -> None:
    """Up to four at once, in arrays of the stored events; the seqs say where they stand."""
    one = conversation()
    one.run_to("finished", "SAY hello")
    events = wait_told(receiver, one)

    posts = event_posts(receiver, one)
    wait_until(lambda: full_states(receiver, one)[-1] == "finished", "the end of the run is told")
    assert full_states(receiver, one)[0] == "idle"
    assert all(1 <= len(post.content) <= 4 for post in posts)
    ranges = [post.headers["x-fanout-seq"].split("-") for post in posts if "x-fanout-seq" in post.headers]
    seqs = [seq for first, last in ranges for seq in range(int(first), int(last) + 1)]
    assert seqs == list(range(len(events)))


def full_states(receiver: WebhookReceiver, one: Conversation) -> list[str]:
    told = [event for post in event_posts(receiver, one) for event in post.content]
    return [event["value"]["execution_status"] for event in told if event.get("key") == "full_state"]


def test_headers_are_the_configured_ones_the_key_and_a_signature(
    receiver: WebhookReceiver, conversation: Conversations
) -> None:
    """The first session key overrides a header of its name; the signature is that of standardwebhooks.com."""
    conversation()
    post = wait_until(lambda: receiver.posts[0] if receiver.posts else None, "something is told")
    assert post is not None
    assert post.headers["x-my"] == "v"
    assert post.headers["x-session-api-key"] == KEY
    assert post.headers["content-type"] == "application/json"
    signed = f"{post.headers['webhook-id']}.{post.headers['webhook-timestamp']}.".encode() + post.body
    digest = base64.b64encode(hmac.digest(SECRET.encode(), signed, "sha256")).decode()
    assert post.headers["webhook-signature"] == f"v1,{digest}"


def test_what_clients_do_to_a_conversation_is_told(
    receiver: WebhookReceiver, conversation: Conversations, llm: ScriptedLlm
) -> None:
    """Create, PATCH, pause, interrupt and delete; neither the end of a run nor a create of what exists."""
    one = conversation()
    conversation.create(conversation_id=one.id)
    one.run_to("finished", "SAY hello")
    one.patch({"title": "new"}).raise_for_status()
    one.send("HOLD interrupted webhook", "SAY late", run=True)
    llm.wait_held("interrupted webhook")
    one.post("/interrupt").raise_for_status()
    one.post("/pause").raise_for_status()
    one.delete().raise_for_status()
    wait_until(lambda: "deleting" in receiver.statuses(one.id), "the deletion is told")
    assert receiver.statuses(one.id) == ["idle", "finished", "paused", "paused", "deleting"]
    info = next(post.content for post in receiver.posts if post.path == "/hooks/conversations")
    assert info["runtime_info"] is None
    assert info["sub_conversation_ids"] == []


def test_rest_of_a_deleted_conversation_is_told(receiver: WebhookReceiver, conversation: Conversations) -> None:
    """Although its log is gone."""
    one = conversation()
    one.send("SAY nothing", run=False)
    events = one.events
    one.delete().raise_for_status()
    wait_until(lambda: receiver.events(one.id) == events, "the rest is told")


@pytest.mark.parametrize("status", [500, 307, 404])
def test_refused_events_are_tried_as_often_as_configured_and_redelivered_on_request(
    receiver: WebhookReceiver, conversation: Conversations, http: httpx.Client, status: int
) -> None:
    """Each attempt has the same id. A redirect is not followed: its target would get the key."""
    one = conversation()
    wait_until(lambda: receiver.statuses(one.id), "the creation is told")
    receiver.status = status
    one.send("SAY nothing", run=False)
    letters = wait_until(lambda: dead_letters(http, one), "the events are given up")
    assert {(letter["first_seq"], letter["reason"]) for letter in letters} >= {(0, f"HTTP {status}")}
    attempts = [post.headers["webhook-id"] for post in event_posts(receiver, one) if "x-fanout-seq" in post.headers]
    assert attempts.count(letters[0]["delivery_id"]) == 2
    counted = http.get("/metrics").text
    assert "fanout_webhook_posts_total{outcome=" in counted
    assert "\nfanout_webhook_queue " in counted
    assert not [post for post in receiver.posts if post.path == "/elsewhere"]

    wanted = {"delivery_ids": [letter["delivery_id"] for letter in letters]}
    again = http.post("/api/webhooks/dead_letters/redeliver", json=wanted).raise_for_status().json()
    assert again["delivered"] == []
    receiver.status = 200
    again = http.post("/api/webhooks/dead_letters/redeliver", json=wanted).raise_for_status().json()
    assert again == {"delivered": wanted["delivery_ids"], "failed": {}}
    wait_told(receiver, one)
    assert not dead_letters(http, one)


def dead_letters(http: httpx.Client, one: Conversation) -> list[dict[str, Any]]:
    page = http.get("/api/webhooks/dead_letters").raise_for_status().json()
    return [letter for letter in page["items"] if letter["conversation_id"] == one.id]


def test_dead_letters_are_paged(receiver: WebhookReceiver, conversation: Conversations, http: httpx.Client) -> None:
    receiver.status = 500
    one = conversation()
    for number in range(3):
        one.patch({"title": str(number)}).raise_for_status()
    wait_until(lambda: len(dead_letters(http, one)) >= 4, "four letters are given up")
    whole = http.get("/api/webhooks/dead_letters").json()["items"]
    found: list[dict[str, Any]] = []
    page_id = None
    while not found or page_id is not None:
        query = {"limit": "2"} | ({"page_id": page_id} if page_id else {})
        page = http.get("/api/webhooks/dead_letters", params=query).json()
        found += page["items"]
        page_id = page["next_page_id"]
    assert found[: len(whole)] == whole
    unknown = http.get("/api/webhooks/dead_letters", params={"page_id": one.id})
    assert unknown.status_code == 400


def test_dead_receiver_delays_no_request(receiver: WebhookReceiver, conversation: Conversations) -> None:
    """One that takes posts and answers none: everything goes on, and is told afterwards."""
    receiver.hang()
    one = conversation()
    one.run_to("finished", "SAY hello")
    one.patch({"title": "new"}).raise_for_status()
    assert not event_posts(receiver, one)
    receiver.go_on()
    wait_told(receiver, one)


def test_restarted_server_tells_what_the_killed_one_did_not(
    receiver: WebhookReceiver, conversation: Conversations, server: Server, tmp_path: Path
) -> None:
    """Nobody asks for anything."""
    one = conversation()
    receiver.hang()
    one.send("SAY nothing", run=False)
    server.kill()
    receiver.go_on()
    server.start()
    wait_told(receiver, one)
