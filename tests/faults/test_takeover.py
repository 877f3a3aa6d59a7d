"""A runner dies or stops and another goes on with its conversations; clients never notice the processes."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from uuid import UUID

import httpx

from service.catalog.keys import Keys
from service.demo.scripted_llm import ScriptedLlm
from tests.cluster_process import Cluster, counted
from tests.faults.owner import owner_pid, runner_id, stopped, wait_for_another_owner
from tests.integration.contract.conversations import TERMINAL, Conversations, agent_of, call, terminal
from tests.integration.contract.viewer import Viewer
from tests.waiting import wait_until


def test_killed_runner_is_a_pause_for_everybody(
    cluster: Cluster, conversation: Conversations, scripted_llm: ScriptedLlm, tmp_path: Path
) -> None:
    """Nobody asks for anything: the run goes on elsewhere and ends; an open socket has every event once, in order.

    Both calls of a parallel batch get their error, in order, on the branch that the agent sees.
    """
    agent = agent_of(scripted_llm, TERMINAL) | {"tool_concurrency_limit": 2}
    one = conversation(agent=agent)
    started = tmp_path / "started"
    with Viewer(one) as viewer:
        sleeping = terminal(f"touch {started}; sleep 600")
        one.send(f"{sleeping} && {call('think', thought='meanwhile')}", "SAY all the same", run=True)
        wait_until(started.exists, "the tool is running", 30.0)
        killed = owner_pid(cluster.conversations_path, one.id)
        os.kill(killed, signal.SIGKILL)
        viewer.until("agent: all the same")
        one.wait_status("finished")
        viewer.until("full_state=finished")

    events = one.events
    received = [frame["id"] for frame in viewer.frames if frame.get("key") != "full_state"]
    assert received == [event["id"] for event in events]
    actions = [event["tool_call_id"] for event in events if event["kind"] == "ActionEvent"]
    errors = [event["tool_call_id"] for event in events if event["kind"] == "AgentErrorEvent"]
    assert errors == actions
    assert len(errors) == 2
    asked = scripted_llm.agent_requests[-1].messages
    assert [message["tool_call_id"] for message in asked if message["role"] == "tool"] == actions
    assert owner_pid(cluster.conversations_path, one.id) != killed


def test_switch_of_the_llm_holds_for_the_next_owner(
    cluster: Cluster, conversation: Conversations, scripted_llm: ScriptedLlm, tmp_path: Path
) -> None:
    """It was acknowledged while a tool was running, and its owner was killed in the middle of that tool."""
    one = conversation(agent=agent_of(scripted_llm, TERMINAL))
    started = tmp_path / "started"
    one.send(terminal(f"touch {started}; sleep 600"), "SAY with another voice", run=True)
    wait_until(started.exists, "the tool is running", 30.0)
    asked = len(scripted_llm.requests)
    with ScriptedLlm() as other:
        llm = other.settings | {"usage_id": "other"}
        one.post("/switch_llm", {"llm": llm}).raise_for_status()
        os.kill(owner_pid(cluster.conversations_path, one.id), signal.SIGKILL)
        one.wait_status("finished", timeout_seconds=30.0)
        assert one.outline[-1] == "agent: with another voice"
        assert (len(scripted_llm.requests), len(other.requests)) == (asked, 1)


def test_commands_in_the_gap_are_done(cluster: Cluster, conversation: Conversations) -> None:
    """They wait for the next owner, or are refused with a time to come back; none is lost or done twice.

    A dead owner's lease is taken over though it would last for ever, and that is counted.
    """
    one = conversation()
    one.run_to("finished", "SAY hello")
    before = leases(cluster, "taken_over")
    for number in range(5):
        os.kill(owner_pid(cluster.conversations_path, one.id), signal.SIGKILL)
        cluster.redis.client.set(Keys("fanout").owner(UUID(one.id)), runner_id(cluster.conversations_path, one.id))
        insist(one.http, f"{one.path}/events", f"key {one.id} {number}", f"message {number}")
    texts = [
        event["llm_message"]["content"][0]["text"]
        for event in one.events
        if event["kind"] == "MessageEvent" and event["source"] == "user"
    ]
    assert texts[1:] == [f"message {number}" for number in range(5)]
    assert leases(cluster, "taken_over") >= before + 5


def leases(cluster: Cluster, change: str) -> float:
    """How often that has happened to one, once the runner that tells is there; it may be being replaced."""

    def told() -> tuple[float] | None:
        try:
            return (counted(cluster.runners_url, f'fanout_leases_total{{change="{change}"}}'),)
        except httpx.TransportError:
            return None

    (number,) = wait_until(told, "the runners tell what they have counted") or (0.0,)
    return number


def insist(http: httpx.Client, path: str, key: str, text: str) -> None:
    """Post a message, again with its key when told to come back or when the outcome is unknown."""

    def answered() -> bool:
        answer = http.post(path, json={"content": [{"type": "text", "text": text}]}, headers={"Idempotency-Key": key})
        assert answer.status_code in {200, 503, 504}, answer.text
        assert answer.status_code != 503 or "retry-after" in answer.headers
        return answer.status_code == 200

    wait_until(answered, "the message is accepted", 30.0)


def test_stopped_runner_loses_its_conversation_and_writes_nothing_more(
    cluster: Cluster, conversation: Conversations, scripted_llm: ScriptedLlm, tmp_path: Path
) -> None:
    """It does not run out of connections, only of time; continued, it neither stores the answer nor starts the tool."""
    one = conversation.with_terminal()
    ran = tmp_path / "ran"
    lost = leases(cluster, "lost")
    one.send("HOLD gate", terminal(f"echo ran >> {ran}"), "SAY once", run=True)
    scripted_llm.wait_held("gate")
    former = owner_pid(cluster.conversations_path, one.id)
    with stopped(former):
        wait_for_another_owner(cluster.conversations_path, one.id, former)
        # The LLM answers both: the new owner, and the connection of the one that cannot hear.
        scripted_llm.release("gate")
        one.wait_status("finished", timeout_seconds=30)
        before = one.events
    wait_until(lambda: says_that_it_lost(cluster, one.id), "the former owner has noticed", 20.0)
    assert leases(cluster, "lost") > lost

    one.run_to("finished", "SAY still here")
    assert one.events[: len(before)] == before
    assert ran.read_text() == "ran\n"
    assert owner_pid(cluster.conversations_path, one.id) != former


def says_that_it_lost(cluster: Cluster, conversation_id: str) -> bool:
    """Whether a runner has logged that it let go of a conversation which another took."""
    return any("lease_lost" in line and conversation_id in line for line in cluster.runners.log.splitlines())
