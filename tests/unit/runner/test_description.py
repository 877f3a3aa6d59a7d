"""A conversation in the words of the contract."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any
from unittest.mock import patch
from uuid import UUID

import pytest
from openhands.sdk import LLM, AgentContext
from openhands.sdk.agent.acp_agent import ACPAgent
from openhands.sdk.conversation.state import ConversationExecutionStatus
from openhands.sdk.event.conversation_state import ConversationStateUpdateEvent
from openhands.sdk.hooks import HookConfig
from openhands.sdk.llm.utils.metrics import Metrics
from openhands.sdk.skills import Skill

from service.runner.conversation import large_parts
from service.runner.conversation.description import Describer, utc_text
from service.runner.conversation.meta import Meta, read_meta, write_meta
from service.runner.conversation.opening import Opened
from service.store.snapshot import read_snapshot, write_snapshot
from tests.unit.runner.rig import ECHO, Rig, ScriptedLLM, run, says, send

ID = UUID("0123456789abcdef0123456789abcdef")
IDLE, RUNNING = ConversationExecutionStatus.IDLE, ConversationExecutionStatus.RUNNING
API_KEY = "s3cret-key"
SOCKET_LIMIT_BYTES = 1 << 20
"""The largest frame that the SDK's client takes."""


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path)


@pytest.fixture
def opened(rig: Rig) -> Opened:
    """A conversation that has run once."""
    opened = rig.create(ScriptedLLM.of(says("done")), ID)
    send(opened, "go")
    run(opened)
    return opened


def info_of(opened: Opened, **meta: Any) -> dict[str, Any]:
    """The body of a GET."""
    found: dict[str, Any] = json.loads(
        Describer(opened.conversation.state).snapshot(opened.meta.model_copy(update=meta), IDLE).info
    )
    return found


# Info


def test_info_tells_state_and_record(opened: Opened) -> None:
    """What the SDK knows, and what clients have set since."""
    info = info_of(opened, title="A title", tags={"team": "core"})
    assert info["id"] == str(ID)
    assert info["title"] == "A title"
    assert info["tags"] == {"team": "core"}
    assert info["workspace"] == {
        "working_dir": str(opened.conversation.workspace.working_dir),
        "kind": "LocalWorkspace",
    }
    assert info["leaf_event_id"] == opened.conversation.state.leaf_event_id
    assert info["last_user_message_id"] == opened.conversation.state.last_user_message_id
    assert info["stats"] == {"usage_to_metrics": {}}
    assert info["runtime_info"] == {"runtime_status": "available", "can_resume": True, "runtime_error": None}


def test_info_leaves_out_what_is_the_states_own(opened: Opened) -> None:
    """The published server does not tell it either."""
    assert not {"activated_path_rules", "head_is_empty", "client_id"} & info_of(opened).keys()


def test_hooks_have_the_names_that_clients_give_them(opened: Opened) -> None:
    """`async` is no name in Python, so the SDK has another, which its events show."""
    hook = {"type": "command", "command": "true", "async": True}
    opened.conversation.state.hook_config = HookConfig.model_validate({"stop": [{"hooks": [hook]}]})
    [shown] = info_of(opened)["hook_config"]["stop"][0]["hooks"]
    assert (shown["async"], "async_" in shown) == (True, False)
    event = json.loads(Describer(opened.conversation.state).full_state_event(IDLE))
    assert event["value"]["hook_config"]["stop"][0]["hooks"][0]["async_"] is True


def test_told_status_may_be_ahead_of_the_states(opened: Opened) -> None:
    """A run counts as running from the moment it is accepted, in every answer."""
    snapshot = Describer(opened.conversation.state).snapshot(opened.meta, RUNNING)
    assert snapshot.header.status == "running"
    assert json.loads(snapshot.info)["execution_status"] == "running"
    assert json.loads(snapshot.full_state)["value"]["execution_status"] == "running"


def test_times_are_utc_with_microseconds(opened: Opened) -> None:
    """They sort as text, in the header as in the body."""
    moment = datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone(timedelta(hours=2)))
    assert utc_text(moment) == "2026-01-02T01:04:05.000000Z"
    meta = opened.meta.model_copy(update={"created_at": moment, "updated_at": moment})
    header = Describer(opened.conversation.state).snapshot(meta, IDLE).header
    assert (header.created_at, header.updated_at) == ("2026-01-02T01:04:05.000000Z",) * 2


def test_secrets_are_null_and_redacted_headers_left_out(rig: Rig) -> None:
    """As clients of the published server expect in REST answers."""
    llm = LLM(model="openai/m", usage_id="agent", api_key=API_KEY, extra_headers={"x-plain": "shown"})
    opened = rig.create(llm)
    opened.conversation.update_secrets({"TOKEN": API_KEY})
    info = info_of(opened)
    assert info["agent"]["llm"]["api_key"] is None
    assert info["agent"]["llm"]["extra_headers"] == {"x-plain": "shown"}
    assert info["secret_registry"]["secret_sources"]["TOKEN"]["value"] is None
    snapshot = Describer(opened.conversation.state).snapshot(opened.meta, IDLE)
    assert API_KEY.encode() not in b"".join((snapshot.info, snapshot.full_state, snapshot.info_with_skills))


def test_tools_come_with_the_modules_that_register_them(opened: Opened) -> None:
    """What this server knows, and what the creator said over it."""
    assert info_of(opened)["tool_module_qualnames"] == {ECHO: "tests.unit.runner.rig"}
    said = info_of(opened, tool_module_qualnames={ECHO: "elsewhere", "other": "somewhere"})["tool_module_qualnames"]
    assert said == {ECHO: "elsewhere", "other": "somewhere"}


def test_skills_are_told_only_when_asked_for(rig: Rig) -> None:
    """They may be hundreds of kilobytes."""
    skill = Skill(name="s", content="long text", trigger=None)
    opened = rig.create(ScriptedLLM.of(), agent_context=AgentContext(skills=[skill]))
    snapshot = Describer(opened.conversation.state).snapshot(opened.meta, IDLE)
    assert json.loads(snapshot.info)["agent"]["agent_context"]["skills"] == []
    assert [each["name"] for each in json.loads(snapshot.info_with_skills)["agent"]["agent_context"]["skills"]] == ["s"]


def test_answer_without_skills_is_made_once(opened: Opened) -> None:
    """The snapshot then has an empty line for the other."""
    snapshot = Describer(opened.conversation.state).snapshot(opened.meta, IDLE)
    assert snapshot.info_with_skills == b""
    write_snapshot(opened.directory, snapshot)
    assert read_snapshot(opened.directory) == snapshot


def test_model_of_an_acp_agent_is_told_before_its_server_runs(opened: Opened) -> None:
    with opened.conversation.state as state:
        state.agent = ACPAgent(acp_command=["none"], acp_model="large")
    assert info_of(opened)["current_model_id"] == "large"


# full_state


def test_full_state_is_an_event_that_clients_can_read(opened: Opened) -> None:
    """The SDK's own class takes it; nulls are left out as in every frame."""
    data = Describer(opened.conversation.state).full_state_event(IDLE)
    event = ConversationStateUpdateEvent.model_validate_json(data)
    assert event.key == "full_state"
    assert event.value["execution_status"] == "idle"
    assert event.value["agent"]["llm"]["model"] == "scripted"
    assert b"null" not in data


def test_each_full_state_is_an_event_of_its_own(opened: Opened) -> None:
    """Clients drop what they know by id."""
    first, second = (json.loads(Describer(opened.conversation.state).full_state_event(IDLE)) for _ in range(2))
    assert first["id"] != second["id"]


def test_full_state_stays_below_the_clients_limit(rig: Rig) -> None:
    """After thousands of calls, with long skills: the lists of calls and the skills are left out."""
    skills = [Skill(name=f"s{number}", content="x" * 9000, trigger=None) for number in range(60)]
    opened = rig.create(ScriptedLLM.of(), agent_context=AgentContext(skills=skills))
    metrics = Metrics(model_name="scripted")
    for number in range(3000):
        metrics.add_token_usage(10, 5, 0, 0, 0, f"r{number}")
        metrics.add_response_latency(0.1, f"r{number}")
    opened.conversation.state.stats.usage_to_metrics["agent"] = metrics
    whole = len(opened.conversation.state.model_dump_json())
    assert whole > SOCKET_LIMIT_BYTES

    data = Describer(opened.conversation.state).full_state_event(IDLE)

    assert len(data) < SOCKET_LIMIT_BYTES
    value = json.loads(data)["value"]
    assert value["agent"]["agent_context"]["skills"] == []
    assert value["stats"]["usage_to_metrics"]["agent"]["accumulated_token_usage"]["prompt_tokens"] == 30_000
    ConversationStateUpdateEvent.model_validate_json(data)


def test_small_full_state_is_complete(rig: Rig) -> None:
    """Nothing is left out that fits."""
    opened = rig.create(
        ScriptedLLM.of(), agent_context=AgentContext(skills=[Skill(name="s", content="x", trigger=None)])
    )
    value = json.loads(Describer(opened.conversation.state).full_state_event(IDLE))["value"]
    assert len(value["agent"]["agent_context"]["skills"]) == 1


def test_agent_that_has_changed_is_told(rig: Rig) -> None:
    """It is made JSON once, and again when there is another, or a setting of its LLM was assigned to."""
    llm = LLM(model="openai/m", usage_id="agent", api_key=API_KEY)
    opened = rig.create(llm)
    state = opened.conversation.state
    changes: list[Callable[[], object]] = [
        lambda: None,
        lambda: setattr(llm, "timeout", 7),
        lambda: setattr(state, "agent", state.agent.model_copy(update={"filter_tools_regex": "e.*"})),
        lambda: setattr(state.agent.llm, "temperature", 0.5),
    ]
    describer = Describer(state)
    for change in changes:
        change()
        snapshot = describer.snapshot(opened.meta, IDLE)
        told = json.loads(snapshot.full_state)["value"]["agent"]
        assert told == state.agent.model_dump(mode="json", exclude_none=True)
        told = json.loads(snapshot.info)["agent"]
        told["llm"]["api_key"] = "**********"
        assert told == state.agent.model_dump(mode="json")


def test_agent_whose_description_failed_is_described_again(opened: Opened) -> None:
    """The reporter repeats it when another thread was changing something."""
    state = opened.conversation.state
    describer = Describer(state)
    describer.snapshot(opened.meta, IDLE)
    state.agent = state.agent.model_copy(update={"filter_tools_regex": "e.*"})
    with (
        patch.object(large_parts, "null_secrets", side_effect=RuntimeError("changed size")),
        pytest.raises(RuntimeError),
    ):
        describer.snapshot(opened.meta, IDLE)
    assert json.loads(describer.snapshot(opened.meta, IDLE).info)["agent"]["filter_tools_regex"] == "e.*"


def test_context_that_was_replaced_is_told(rig: Rig) -> None:
    """It is made JSON once, and again when the agent gets another: by a plugin, say."""
    opened = rig.create(ScriptedLLM.of())
    state = opened.conversation.state
    describer = Describer(state)
    for names in ([], ["a"], ["a", "b"]):
        skills = [Skill(name=name, content="x", trigger=None) for name in names]
        state.agent = state.agent.model_copy(update={"agent_context": AgentContext(skills=skills)})
        snapshot = describer.snapshot(opened.meta, IDLE)
        told = [
            json.loads(snapshot.info_with_skills or snapshot.info)["agent"],
            json.loads(snapshot.full_state)["value"]["agent"],
        ]
        assert [[each["name"] for each in agent["agent_context"]["skills"]] for agent in told] == [names] * 2


def test_each_llm_call_is_told(opened: Opened) -> None:
    """The statistics are made JSON again when there is one, whatever is known of it."""
    state = opened.conversation.state
    metrics = Metrics(model_name="scripted")
    changes: list[Callable[[], object]] = [
        lambda: state.stats.usage_to_metrics.update(agent=metrics),
        lambda: metrics.add_cost(0.5),
        lambda: metrics.add_cost(0.0),
        lambda: metrics.add_response_latency(1.5, "r1"),
        lambda: metrics.add_token_usage(10, 5, 0, 0, 100, "r1"),
        lambda: state.stats.usage_to_metrics.update(other=Metrics(model_name="other", max_budget_per_task=2.0)),
    ]
    describer = Describer(state)
    for change in changes:
        change()
        snapshot = describer.snapshot(opened.meta, IDLE)
        assert json.loads(snapshot.info)["stats"] == state.stats.model_dump(mode="json")
        told = json.loads(snapshot.full_state)["value"]["stats"]
        assert told == state.stats.model_dump(mode="json", exclude_none=True)


# meta.json


def test_record_is_read_as_it_was_written(opened: Opened) -> None:
    """With ids undashed where the published server has them so, and with the keys of newer servers."""
    meta = opened.meta.model_copy(update={"title": "t", "forked_from_conversation_id": ID, "from_the_future": 1})
    write_meta(opened.directory, meta, fsync=False)
    stored = json.loads(opened.directory.meta.read_bytes())
    assert (stored["id"], stored["title"], stored["from_the_future"]) == (ID.hex, "t", 1)
    assert stored["forked_from_conversation_id"] == ID.hex
    again = read_meta(opened.directory)
    assert again == meta
    write_meta(opened.directory, again, fsync=False)
    assert json.loads(opened.directory.meta.read_bytes()) == stored


def test_record_holds_no_secrets(opened: Opened) -> None:
    """The state does, encrypted."""
    meta = opened.meta.model_copy(update={"secrets": {"TOKEN": API_KEY}})
    write_meta(opened.directory, meta, fsync=False)
    assert API_KEY not in opened.directory.meta.read_text()


def test_record_of_an_sdk_directory_is_made_up(rig: Rig, opened: Opened) -> None:
    """From the state; with the time of its file."""
    opened.directory.meta.unlink()
    meta = read_meta(opened.directory)
    assert (meta.id, meta.max_iterations, meta.tags) == (ID, 500, {})
    assert meta.workspace.working_dir == str(rig.workspace)
    assert abs(datetime.now(UTC) - meta.created_at) < timedelta(minutes=5)


@pytest.mark.parametrize("content", [b"{", b"[]", b"{}"])
def test_unreadable_record_is_a_value_error(opened: Opened, content: bytes) -> None:
    """Not something the opener does not expect."""
    opened.directory.meta.write_bytes(content)
    with pytest.raises(ValueError):  # noqa: PT011  pydantic's and json's errors both are, and say different things
        read_meta(opened.directory)


def test_meta_of_a_new_conversation_has_the_current_time() -> None:
    """In UTC."""
    meta = Meta(id=ID, workspace={"working_dir": "/w", "kind": "LocalWorkspace"})
    assert meta.created_at.tzinfo is UTC
