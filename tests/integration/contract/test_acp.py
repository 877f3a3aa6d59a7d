"""Agents that are ACP servers: their runs, their models, and what they inherit."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.integration.contract.conversations import Conversation
from tests.server_process import Server
from tests.waiting import wait_until

START_SECONDS = 60.0


def notes(asked: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in asked.read_text().splitlines()]


def last_answer(one: Conversation) -> str:
    return str(one.get("/agent_final_response").raise_for_status().json()["response"])


def run(one: Conversation, *lines: str) -> str:
    """Send a script, wait until it has been run, and return what was said."""
    one.send(*lines, run=True)
    one.wait_status("finished", timeout_seconds=START_SECONDS)
    return last_answer(one)


def test_it_runs_and_tells_its_models(acp: Callable[..., Conversation]) -> None:
    one = acp()
    assert (one.info["current_model_id"], one.info["available_models"]) == (None, [])
    assert run(one, "SAY from an agent of another make") == "from an agent of another make"
    assert one.info["current_model_id"] == "small"
    assert [model["model_id"] for model in one.info["available_models"]] == ["small", "large"]
    assert one.info["supports_runtime_model_switch"] is False, "the SDK says it of the makes that it knows only"


def test_switch_reaches_the_live_server(acp: Callable[..., Conversation], asked: Path) -> None:
    """In the same session; a model that it does not have is refused, and changes nothing."""
    one = acp()
    run(one, "SAY one")
    assert one.post("/switch_acp_model", {"model": "large"}).status_code == 200
    refused = one.post("/switch_acp_model", {"model": "huge"})
    assert refused.status_code == 400
    assert "huge" in refused.json()["detail"]
    assert one.post("/switch_acp_model", {"model": " "}).status_code == 400
    assert one.info["current_model_id"] == "large"

    one.send("SAY two", run=True)
    wait_until(lambda: last_answer(one) == "two", "the second turn is over")
    assert [
        (note["what"], note.get("model")) for note in notes(asked) if note["what"].endswith(("session", "prompt"))
    ] == [
        ("new_session", None),
        ("prompt", "small"),
        ("prompt", "large"),
    ]


def test_switch_before_the_first_run_holds_for_it(acp: Callable[..., Conversation], asked: Path) -> None:
    one = acp()
    assert one.post("/switch_acp_model", {"model": "large"}).status_code == 200
    run(one, "SAY one")
    assert [note["model"] for note in notes(asked) if note["what"] == "prompt"] == ["large"]
    assert one.info["current_model_id"] == "large"


def test_switch_survives_the_loss_of_the_process(acp: Callable[..., Conversation], asked: Path, server: Server) -> None:
    """The next owner starts another ACP server, has it load the session, and gives it the model."""
    one = acp()
    run(one, "SAY one")
    one.post("/switch_acp_model", {"model": "large"}).raise_for_status()
    server.kill()
    server.start()
    assert one.info["current_model_id"] == "large"
    one.send("SAY two", run=True)
    wait_until(lambda: last_answer(one) == "two", "the second turn is over", START_SECONDS)
    first, *_, last = notes(asked)
    assert (last["what"], last["model"]) == ("prompt", "large")
    assert last["pid"] != first["pid"]
    assert [note["what"] for note in notes(asked)].count("load_session") == 1


def test_it_does_not_inherit_the_secrets_of_the_server(acp: Callable[..., Conversation]) -> None:
    """The SDK gives it the environment of the runner as it is."""
    assert run(acp(), "ENV OH_SECRET_KEY", "ENV HOME").startswith("OH_SECRET_KEY=NoneHOME=/")
