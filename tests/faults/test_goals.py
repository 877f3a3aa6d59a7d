"""A conversation that works for a goal, or whose branch was moved, loses its runner."""

from __future__ import annotations

import os
import signal

import pytest

from service.demo.scripted_llm import ScriptedLlm
from tests.cluster_process import Cluster
from tests.faults.owner import owner_pid, wait_for_another_owner
from tests.faults.test_takeover import insist
from tests.integration.contract.conversations import Conversations
from tests.integration.contract.test_goals import REACHED, goal_updates, said, wait_goal


@pytest.mark.heavy
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["killed", "drained"])
def test_goal_goes_on_with_another_runner(
    cluster: Cluster, conversation: Conversations, scripted_llm: ScriptedLlm, number: signal.Signals
) -> None:
    """In the middle of its run: the objective is not told twice, and the judge decides."""
    one, gate = conversation(), f"goal-{number.name}"
    one.post("/goal", {"objective": f"HOLD {gate}\nSAY reached\n{said(REACHED)}"}).raise_for_status()
    scripted_llm.wait_held(gate)
    former = owner_pid(cluster.conversations_path, one.id)
    os.kill(former, number)
    wait_for_another_owner(cluster.conversations_path, one.id, former)
    scripted_llm.release(gate)
    told = wait_goal(one, "complete")
    assert told[-1]["iteration"] == 1
    assert one.outline == ["user", "agent: reached"]
    assert {update["status"] for update in goal_updates(one)} == {"running", "complete"}


@pytest.mark.heavy
def test_moved_branch_stays_where_it_was_moved(cluster: Cluster, conversation: Conversations) -> None:
    """The next owner goes on from there, not from the end of the log."""
    one = conversation()
    one.run_to("finished", "SAY first")
    answer = next(each["id"] for each in reversed(one.events) if each["kind"] == "MessageEvent")
    one.run_to("finished", "SAY second")
    one.post("/navigate", {"event_id": answer}).raise_for_status()
    former = owner_pid(cluster.conversations_path, one.id)
    os.kill(former, signal.SIGKILL)
    insist(one.http, f"{one.path}/events", f"key {one.id}", "third")
    third = next(each for each in one.events if each.get("source") == "user" and "third" in str(each))
    assert third["parent_id"] == answer
