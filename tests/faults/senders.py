"""Clients that send numbered messages until each is acknowledged, and what the log then must hold."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import httpx

from tests.integration.contract.conversations import Conversation

PATIENCE_SECONDS = 60.0


class Sender(threading.Thread):
    """One client: numbered messages, each sent again with its key until it is acknowledged."""

    def __init__(self, conversation: Conversation, name: str, over: threading.Event) -> None:
        super().__init__(name=name, daemon=True)
        self.acknowledged = 0
        self.refusals: list[int] = []
        self._path = f"{conversation.http.base_url}{conversation.path}/events".replace("//api", "/api")
        self._over = over

    def run(self) -> None:
        with httpx.Client(timeout=30, trust_env=False) as http:
            while not self._over.is_set():
                self._insist(http, f"{self.name} {self.acknowledged}")
                self.acknowledged += 1

    def _insist(self, http: httpx.Client, text: str) -> None:
        body = {"content": [{"type": "text", "text": f"SAY heard {text}\n# {text}"}], "run": True}
        give_up_at = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < give_up_at:
            with suppress(httpx.TransportError):
                answer = http.post(self._path, json=body, headers={"Idempotency-Key": text})
                if answer.status_code == 200:
                    return
                self.refusals.append(answer.status_code)
                assert answer.status_code in {409, 429, 502, 503, 504}, answer.text
        raise AssertionError(f"nobody took {text} for {PATIENCE_SECONDS} s")


@contextmanager
def sending(conversation: Conversation, count: int) -> Iterator[list[Sender]]:
    """So many senders at work while the block runs; then all of them have been answered."""
    over = threading.Event()
    senders = [Sender(conversation, f"sender-{number}", over) for number in range(count)]
    for sender in senders:
        sender.start()
    try:
        yield senders
    finally:
        over.set()
        for sender in senders:
            sender.join(PATIENCE_SECONDS)
    assert not [sender.name for sender in senders if sender.is_alive()], "a sender is still not answered"


def acknowledged(senders: list[Sender]) -> dict[str, list[int]]:
    """What each sender was told is stored."""
    return {sender.name: list(range(sender.acknowledged)) for sender in senders}


def told(conversation: Conversation) -> dict[str, list[int]]:
    """The numbers in the log, in its order, by sender."""
    numbers: dict[str, list[int]] = {}
    page_id = None
    while True:
        query = {"limit": "100", "kind": "MessageEvent", "source": "user"} | ({"page_id": page_id} if page_id else {})
        page = conversation.get("/events/search", params=query).raise_for_status().json()
        for event in page["items"]:
            sender, number = event["llm_message"]["content"][0]["text"].rpartition("# ")[2].split()
            numbers.setdefault(sender, []).append(int(number))
        page_id = page["next_page_id"]
        if page_id is None:
            return numbers
