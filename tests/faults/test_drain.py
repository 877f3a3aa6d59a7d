"""SIGTERM: what a process was at goes on elsewhere, and clients notice at most a pause."""

from __future__ import annotations

import os
import signal
from functools import partial
from pathlib import Path

import httpx
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection

from service.demo.scripted_llm import ScriptedLlm
from tests.cluster_process import Cluster
from tests.faults.owner import owner_pid, wait_for_another_owner
from tests.faults.senders import Sender, acknowledged, sending, told
from tests.integration.contract.conversations import Conversation, Conversations, terminal
from tests.integration.contract.viewer import Viewer
from tests.server_process import FANOUT, Server
from tests.waiting import wait_until

PAUSES = {"PauseEvent", "InterruptEvent"}


def test_run_waiting_for_the_llm_goes_on_elsewhere_at_once(
    cluster: Cluster, conversation: Conversations, scripted_llm: ScriptedLlm
) -> None:
    """Nothing in the log tells of it; the LLM is asked again by the next owner."""
    one = conversation()
    with Viewer(one) as viewer:
        one.send("HOLD gate", "SAY moved", run=True)
        scripted_llm.wait_held("gate")
        former = owner_pid(cluster.conversations_path, one.id)

        os.kill(former, signal.SIGTERM)
        wait_for_another_owner(cluster.conversations_path, one.id, former)
        scripted_llm.release("gate")

        viewer.until("agent: moved")
    one.wait_status("finished")
    kinds = [event["kind"] for event in one.events]
    assert not PAUSES & set(kinds)
    assert "AgentErrorEvent" not in kinds
    assert "ConversationErrorEvent" not in kinds


def test_tool_at_work_is_let_end_and_the_next_step_is_taken_elsewhere(
    cluster: Cluster, conversation: Conversations, tmp_path: Path
) -> None:
    """The command runs once; its result is in the log as usual."""
    one = conversation.with_terminal()
    runs, gate = tmp_path / "runs", tmp_path / "gate"
    os.mkfifo(gate)
    one.send(terminal(f"echo once >> {runs}; read line < {gate}; echo $line"), "SAY moved", run=True)
    wait_until(runs.exists, "the tool is running", 30.0)
    former = owner_pid(cluster.conversations_path, one.id)

    os.kill(former, signal.SIGTERM)
    wait_until(lambda: one.post("/events", {"content": []}).status_code == 200, "messages are taken meanwhile")
    gate.write_text("the result\n")

    one.wait_status("finished", timeout_seconds=30)
    assert owner_pid(cluster.conversations_path, one.id) != former
    assert runs.read_text() == "once\n"
    [result] = [event for event in one.events if event["kind"] == "ObservationEvent"]
    assert "the result" in result["observation"]["content"][0]["text"]


def test_tool_longer_than_the_drain_is_cut_off_and_the_run_goes_on(
    cluster: Cluster, conversation: Conversations, tmp_path: Path
) -> None:
    """Its call gets an error as its result, and the agent is told."""
    one = conversation.with_terminal()
    started = tmp_path / "started"
    one.send(terminal(f"touch {started}; sleep 600"), "SAY all the same", run=True)
    wait_until(started.exists, "the tool is running", 30.0)
    former = owner_pid(cluster.conversations_path, one.id)

    os.kill(former, signal.SIGTERM)

    one.wait_status("finished", timeout_seconds=30)
    assert owner_pid(cluster.conversations_path, one.id) != former
    assert [event["kind"] for event in one.events].count("AgentErrorEvent") == 1


def test_idle_conversation_answers_while_its_owner_leaves(cluster: Cluster, conversation: Conversations) -> None:
    """A command that comes in the middle of it waits for the next owner."""
    one = conversation()
    one.run_to("finished", "SAY hello")
    os.kill(owner_pid(cluster.conversations_path, one.id), signal.SIGTERM)
    for number in range(20):
        one.send(f"message {number}")
    assert [line for line in one.outline if line == "user"] == ["user"] * 21


def test_stopping_web_server_sends_its_clients_elsewhere(
    cluster: Cluster, conversation: Conversations, scripted_llm: ScriptedLlm
) -> None:
    """Its sockets are closed with 1012, and a new one through the balancer goes on; no request fails."""
    one = conversation()
    wait_until(lambda: cluster.is_ready, "both web servers serve", 30.0)
    leaving = cluster.web_servers[0]
    with cluster.past_the_balancer(0) as http:
        on_it = Conversation(http, one.id, scripted_llm).socket("?resend_mode=all")
    sockets = [on_it, *(one.socket("?resend_mode=all") for _ in range(4))]
    try:
        for socket in sockets:
            socket.recv(timeout=20)
        leaving.send_signal(signal.SIGTERM)
        for number in range(20):
            one.send(f"message {number}")
        leaving.wait_exit()
        assert closing_code(on_it) == 1012
        # How many of the others were on it is the balancer's affair.
        assert {closing_code(socket) for socket in sockets[1:]} <= {0, 1012}
        with Viewer(one, "?resend_mode=all") as viewer:
            for _ in range(20):
                viewer.until("user")
    finally:
        for socket in sockets:
            socket.close()
        cluster.web_servers[0].start()
        wait_until(lambda: cluster.is_ready, "both web servers serve", 30.0)


def closing_code(socket: ClientConnection) -> int:
    """With what a socket was closed; 0 when it is open and quiet."""
    try:
        while True:
            socket.recv(timeout=0.5)
    except TimeoutError:
        return 0
    except ConnectionClosed as closed:
        return closed.rcvd.code if closed.rcvd else 1006


def test_rolling_restart_loses_nothing(cluster: Cluster, conversation: Conversations) -> None:
    """Each process in turn under load: no message, no run, and not one tool call or LLM call that ends in an error."""
    one = conversation()
    with sending(one, 2) as senders:
        for web in cluster.web_servers:
            sent = senders[0].acknowledged
            web.send_signal(signal.SIGTERM)
            web.wait_exit()
            web.start()
            wait_until(lambda: cluster.is_ready, "the web server is back", 30.0)
            wait_until(partial(has_sent, senders[0], sent + 3), "messages are taken", 30.0)
        for _ in range(4):
            sent, former = senders[0].acknowledged, owner_pid(cluster.conversations_path, one.id)
            os.kill(former, signal.SIGTERM)
            wait_for_another_owner(cluster.conversations_path, one.id, former)
            wait_until(partial(has_sent, senders[0], sent + 3), "messages are taken", 30.0)
    one.wait_status("finished", timeout_seconds=30)
    wait_until(lambda: told(one) == acknowledged(senders), "the log is what was acknowledged", 30.0)
    errors = one.get("/events/count", params={"kind": "ConversationErrorEvent"}).json()
    assert errors == 0
    assert not [status for sender in senders for status in sender.refusals if status not in {502, 503}]


def has_sent(sender: Sender, count: int) -> bool:
    """Whether more than so many of its messages have been acknowledged."""
    return sender.acknowledged > count


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.heavy)])
def test_whole_node_stops_in_good_order(number: signal.Signals, tmp_path: Path, scripted_llm: ScriptedLlm) -> None:
    """All roles at once, the private Redis last: the run is not interrupted, and a new start goes on with it."""
    command = [*FANOUT, "serve", "--workers", "1", "--runners", "2"]
    with Server(tmp_path / "node", {"OH_DRAIN_SECONDS": "4"}, command) as node:
        with httpx.Client(base_url=node.url, timeout=30, trust_env=False) as http:
            one = Conversations(http, scripted_llm, str(tmp_path / "project"))()
            one.send(f"HOLD {number.name}", "SAY moved", run=True)
            scripted_llm.wait_held(number.name)

            node.process.send_signal(number)
            assert node.process.wait_exit() == 0
            scripted_llm.release(number.name)
            node.start()

            one.wait_status("finished")
            assert not PAUSES & {event["kind"] for event in one.events}
