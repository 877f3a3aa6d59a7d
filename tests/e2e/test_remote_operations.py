"""What the SDK's client does with a conversation beside running it: forks, branches, condensation, titles, plugins."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import pytest
from openhands.sdk import Agent, RemoteConversation
from openhands.sdk.context import AgentContext
from openhands.sdk.context.condenser import LLMSummarizingCondenser
from openhands.sdk.event import MessageEvent
from openhands.sdk.marketplace import MarketplaceRegistration
from openhands.sdk.security.confirmation_policy import AlwaysConfirm
from openhands.sdk.security.llm_analyzer import LLMSecurityAnalyzer

from tests.e2e.remote_client import RemoteClient, generate_title, outline, run, send
from tests.waiting import wait_until

SKILL = "---\nname: waving\ndescription: How to wave\n---\nWave.\n"


def first_answer(conversation: RemoteConversation) -> MessageEvent:
    """The agent's first message."""
    messages = [event for event in conversation.state.events if isinstance(event, MessageEvent)]
    return next(message for message in messages if message.source == "agent")


def test_fork_goes_its_own_way(client: RemoteClient) -> None:
    """With all that was said before, and without touching where it came from."""
    conversation = client.start()
    send(conversation, "SAY one")
    run(conversation)

    fork = client.keep(conversation.fork(title="another way", tags={"of": "first"}))
    send(fork, "SAY two")
    run(fork)

    assert outline(fork) == ["user", "agent: one", "user", "agent: two"]
    assert outline(conversation) == ["user", "agent: one"]
    info = client.http.get(f"/api/conversations/{fork.id}").json()
    assert (info["title"], info["tags"]) == ("another way", {"of": "first"})


def test_fork_from_an_event_has_what_led_to_it(client: RemoteClient) -> None:
    conversation = client.start()
    send(conversation, "SAY one")
    run(conversation)
    answer = conversation.state.events[-1]
    answer = next(
        event for event in conversation.state.events if isinstance(event, MessageEvent) and event.source == "agent"
    )
    send(conversation, "SAY two")
    run(conversation)

    fork = client.keep(conversation.fork(from_event_id=answer.id))

    assert outline(fork) == ["user", "agent: one"]
    with pytest.raises(httpx.HTTPStatusError):
        conversation.fork(from_event_id="no such event")


def test_navigate_makes_an_earlier_event_the_newest(client: RemoteClient) -> None:
    """The agent goes on from there: the LLM is not shown what came after."""
    conversation = client.start()
    send(conversation, "SAY one")
    run(conversation)
    first = next(
        event for event in conversation.state.events if isinstance(event, MessageEvent) and event.source == "agent"
    )
    send(conversation, "SAY a mistake")
    run(conversation)

    conversation.navigate_to(first.id)
    send(conversation, "SAY better")
    run(conversation)

    asked = client.llm.agent_requests[-1].text
    assert "one" in asked
    assert "a mistake" not in asked


def test_condense_replaces_the_history_by_a_summary(client: RemoteClient) -> None:
    agent = client.agent()
    condenser = LLMSummarizingCondenser(llm=agent.llm.model_copy(update={"usage_id": "condenser"}), keep_first=1)
    conversation = client.start(agent.model_copy(update={"condenser": condenser}))
    for word in ("one", "two", "three"):
        send(conversation, f"SAY {word}")
        run(conversation)

    conversation.condense()

    wait_until(
        lambda: any(type(event).__name__ == "Condensation" for event in conversation.state.events),
        "the client has the condensation",
    )


def test_titles(client: RemoteClient) -> None:
    """One that is set while the server has the LLM make one stays; and the client has one made."""
    conversation = client.start()
    send(conversation, "SAY hello")
    conversation.set_title("Chosen")
    assert client.http.get(f"/api/conversations/{conversation.id}").json()["title"] == "Chosen"
    assert generate_title(conversation)


def test_policies_are_seen_by_every_client(client: RemoteClient) -> None:
    conversation = client.start()
    conversation.set_confirmation_policy(AlwaysConfirm())
    conversation.set_security_analyzer(LLMSecurityAnalyzer())
    other = client.attach(conversation.id)
    assert isinstance(other.state.confirmation_policy, AlwaysConfirm)
    assert isinstance(other.state.security_analyzer, LLMSecurityAnalyzer)


def test_plugin_is_loaded(client: RemoteClient, tmp_path: Path) -> None:
    plugin = tmp_path / "market" / "plugins" / "helper"
    (plugin / "skills" / "waving").mkdir(parents=True)
    (plugin / "skills" / "waving" / "SKILL.md").write_text(SKILL)
    (plugin / ".plugin").mkdir()
    (plugin / ".plugin" / "plugin.json").write_text(json.dumps({"name": "helper", "version": "1.0.0"}))
    (tmp_path / "market" / ".plugin").mkdir()
    offered = {"name": "market", "owner": {"name": "o"}, "plugins": [{"name": "helper", "source": "./plugins/helper"}]}
    (tmp_path / "market" / ".plugin" / "marketplace.json").write_text(json.dumps(offered))
    registered = [MarketplaceRegistration(name="market", source=str(tmp_path / "market"))]
    plain = client.agent()
    conversation = client.start(Agent(llm=plain.llm, agent_context=AgentContext(registered_marketplaces=registered)))

    conversation.load_plugin("helper@market")

    shown = client.http.get(f"/api/conversations/{conversation.id}", params={"include_skills": "true"}).json()
    assert "waving" in [skill["name"].rpartition(":")[2] for skill in shown["agent"]["agent_context"]["skills"]]
    with pytest.raises(httpx.HTTPStatusError):
        conversation.load_plugin("nothing@market")
