"""Secrets that a client sends as the settings routes gave them to it: encrypted under the server's key."""

from __future__ import annotations

import json

from openhands.sdk.utils.cipher import Cipher
from pydantic import SecretStr

from service.demo.scripted_llm import API_KEY, ScriptedLlm
from tests.integration.contract.conversations import TERMINAL, Conversations, agent_of, terminal
from tests.server_process import Server

SERVER_KEY = "tests-only"
"""`OH_SECRET_KEY` of the servers in tests."""


def encrypted(text: str, key: str = SERVER_KEY) -> str:
    return str(Cipher(key).encrypt(SecretStr(text)))


def test_encrypted_secrets_are_decrypted(conversation: Conversations, llm: ScriptedLlm) -> None:
    """The LLM gets its key and the command its variable; what is plain passes."""
    agent = agent_of(llm, TERMINAL, api_key=encrypted(API_KEY))
    secrets = {
        "CLOAKED": {"kind": "StaticSecret", "value": encrypted("opened")},
        "PLAIN": {"kind": "StaticSecret", "value": "as it was"},
    }
    one = conversation(agent=agent, secrets=secrets, secrets_encrypted=True)
    one.run_to("finished", terminal('[ "$CLOAKED/$PLAIN" = "opened/as it was" ] && echo both'), "SAY done")
    assert llm.requests[-1].api_key == API_KEY
    assert "both" in str([event for event in one.events if event["kind"] == "ObservationEvent"])


def test_flag_off_sends_a_token_as_it_is(conversation: Conversations, llm: ScriptedLlm) -> None:
    token = encrypted(API_KEY)
    one = conversation(agent=agent_of(llm, api_key=token))
    one.send("SAY hello", run=True)
    one.wait_status("finished", "error")
    assert llm.requests[-1].api_key == token


def test_token_under_another_key_is_no_key(server: Server, conversation: Conversations, llm: ScriptedLlm) -> None:
    """Nobody is sent what only another server can read."""
    one = conversation(agent=agent_of(llm, api_key=encrypted(API_KEY, "another server's")), secrets_encrypted=True)
    stored = (server.conversations_path / one.id.replace("-", "") / "base_state.json").read_text()
    assert "api_key" not in json.loads(stored)["agent"]["llm"]
