"""A create is repeated with its key, by its client or by a web worker whose runner died with it."""

from __future__ import annotations

import uuid

from service.catalog.keys import Keys
from service.demo.scripted_llm import ScriptedLlm
from tests.cluster_process import Cluster
from tests.faults.owner import runner_id
from tests.integration.contract.conversations import PATH, Conversations, user_message
from tests.waiting import wait_until


def test_repeated_create_is_answered_by_the_owner(
    cluster: Cluster, conversation: Conversations, scripted_llm: ScriptedLlm
) -> None:
    """However busy it is: the key tells whose the conversation is."""
    body = conversation.request(initial_message=user_message("HOLD gate", "SAY done"))
    headers = {"Idempotency-Key": uuid.uuid4().hex}
    first = conversation.http.post(PATH, json=body, headers=headers).raise_for_status().json()
    scripted_llm.wait_held("gate")
    owner = runner_id(cluster.conversations_path, first["id"])
    loads, runners = cluster.redis.client, Keys("fanout").runners
    wait_until(lambda: loads.zscore(runners, owner), "its runner tells how loaded it is")
    again = conversation.http.post(PATH, json=body, headers=headers)
    assert again.status_code == 200, again.text
    assert again.json()["id"] == first["id"]
    assert runner_id(cluster.conversations_path, first["id"]) == owner
    scripted_llm.release("gate")
    one = conversation.handle(first["id"])
    one.wait_status("finished")
    assert one.outline == ["user", "agent: done"]
