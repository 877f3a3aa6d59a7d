"""Secrets on disk outlive a change of the key that encrypts them, and a key that is missing destroys none."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from openhands.sdk.utils.cipher import Cipher

from service.demo.scripted_llm import API_KEY, ScriptedLlm
from tests.integration.contract.conversations import TERMINAL, Conversation, Conversations, agent_of, terminal
from tests.server_process import Server

SECRET = "a-posted-secret"


@contextmanager
def serving(directory: Path, llm: ScriptedLlm, secret_key: str, *previous: str) -> Iterator[Conversations]:
    """A server over the directory with these keys."""
    environment = {"OH_SECRET_KEY": secret_key}
    environment |= {f"OH_PREVIOUS_SECRET_KEYS_{number}": key for number, key in enumerate(previous)}
    with (
        Server(directory, environment) as server,
        httpx.Client(base_url=server.url, timeout=30, trust_env=False) as http,
    ):
        yield Conversations(http, llm, str(directory / "project"))


def make(conversations: Conversations) -> Conversation:
    """A conversation with a secret of its own."""
    one = conversations(agent=agent_of(conversations.llm, TERMINAL))
    one.post("/secrets", {"secrets": {"TOKEN": SECRET}}).raise_for_status()
    return one


def use(one: Conversation) -> None:
    """Run with both secrets: the LLM's key, and the posted one in a command."""
    one.run_to("finished", terminal("test $TOKEN = a-posted-secret && echo it is the same one"), "SAY done")
    assert one.llm.requests[-1].api_key == API_KEY
    assert "it is the same one" in str([event for event in one.events if event["kind"] == "ObservationEvent"][-1])


def tokens(directory: Path, one: Conversation) -> list[str]:
    stored = (directory / "conversations" / one.id.replace("-", "") / "base_state.json").read_text()
    assert SECRET not in stored
    assert API_KEY not in stored
    return re.findall(r'"(gAAAAA[^"]+)"', stored)


def test_key_is_rotated(tmp_path: Path, scripted_llm: ScriptedLlm) -> None:
    """Under a wrong key nothing opens and nothing is lost; with the former one beside it the new one takes over."""
    with serving(tmp_path, scripted_llm, "old") as conversations:
        one = make(conversations)
        before = tokens(tmp_path, one)
        assert len(before) >= 2
        one.post("/events", {"content": [{"type": "text", "text": "hello"}]}).raise_for_status()
        assert tokens(tmp_path, one) == before, "what has not changed is not encrypted anew"
    before = tokens(tmp_path, one)
    with serving(tmp_path, scripted_llm, "wrong") as conversations:
        one = conversations.handle(one.id)
        assert one.status == "idle"
        refused = one.post("/events", {"content": [{"type": "text", "text": "hello"}]})
        assert refused.status_code == 500
        assert "OH_PREVIOUS_SECRET_KEYS" in refused.json()["detail"]
    assert tokens(tmp_path, one) == before
    with serving(tmp_path, scripted_llm, "new", "older", "old") as conversations:
        one = conversations.handle(one.id)
        one.post("/events", {"content": [{"type": "text", "text": "hello"}]}).raise_for_status()
        assert all(Cipher("new").is_current(token) for token in tokens(tmp_path, one))
    with serving(tmp_path, scripted_llm, "new") as conversations:
        use(conversations.handle(one.id))


@pytest.mark.heavy
def test_first_configured_key_follows_the_one_that_was_kept(tmp_path: Path, scripted_llm: ScriptedLlm) -> None:
    """Whoever began without a key can configure one later."""
    with serving(tmp_path, scripted_llm, "") as conversations:
        one = make(conversations)
    with serving(tmp_path, scripted_llm, "first") as conversations:
        use(conversations.handle(one.id))
    assert all(Cipher("first").is_current(token) for token in tokens(tmp_path, one))
