"""`ask_agent`, `generate_title` and `agent_final_response`: words about a conversation that leave no trace in it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from service.demo.scripted_llm import COMPLETION_TOKENS, PROMPT_TOKENS, SIDE_ANSWER, ScriptedLlm
from tests.integration.contract.conversations import Conversations, JsonObject, call, user_message, write
from tests.integration.contract.viewer import Viewer
from tests.server_process import free_port


@pytest.fixture
def other_llm() -> Iterator[ScriptedLlm]:
    """A second LLM, which only hears what is sent to it on purpose."""
    with ScriptedLlm() as scripted:
        yield scripted


# Ask


def test_ask_answers_with_the_conversation_in_view(conversation: Conversations, llm: ScriptedLlm) -> None:
    """The LLM sees what was said and the question, and its words are the response."""
    created = conversation()
    created.run_to("finished", "SAY the capital is Paris")

    response = created.post("/ask_agent", {"question": "SAY forty-two"})

    assert response.status_code == 200
    assert response.json() == {"response": "forty-two"}
    asked = llm.agent_requests[-1]
    assert "the capital is Paris" in asked.text
    assert "SAY forty-two" in asked.text


def test_ask_leaves_no_event(conversation: Conversations) -> None:
    """Neither the log nor a viewer shows that anybody asked, and the status stays."""
    created = conversation()
    created.run_to("finished", "SAY ok")

    with Viewer(created) as viewer:
        created.post("/ask_agent", {"question": "SAY aside"}).raise_for_status()
        created.patch({"tags": {"after": "asking"}}).raise_for_status()

        assert "aside" not in "".join(viewer.until("tags"))
    assert created.outline == ["user", "agent: ok"]
    assert created.status == "finished"


def test_ask_takes_an_empty_question(conversation: Conversations) -> None:
    """Nothing asked is asked all the same."""
    response = conversation().post("/ask_agent", {"question": ""})

    assert (response.status_code, response.json()) == (200, {"response": "done"})


def test_ask_works_before_the_first_message(conversation: Conversations) -> None:
    """A conversation in which nothing was said can be asked, and stays empty."""
    created = conversation()

    assert created.post("/ask_agent", {"question": "SAY ready"}).json() == {"response": "ready"}
    assert created.outline == []


def test_ask_works_during_a_run(conversation: Conversations, llm: ScriptedLlm) -> None:
    """The answer comes while the run's own LLM call is still open."""
    created = conversation(initial_message=user_message("HOLD ask-during-run", "SAY the run's own"))
    llm.wait_held("ask-during-run")

    assert created.post("/ask_agent", {"question": "SAY meanwhile"}).json() == {"response": "meanwhile"}

    assert created.status == "running"
    llm.release("ask-during-run")
    created.wait_status("finished")
    assert created.outline == ["user", "agent: the run's own"]


def test_ask_offers_tools_and_runs_none(conversation: Conversations, llm: ScriptedLlm, project: Path) -> None:
    """Tool schemas go along so that the prompt stays the same; a call that comes back is not executed."""
    created = conversation.with_editor()
    created.run_to("finished", "SAY ok")

    created.post("/ask_agent", {"question": write(project / "written")})

    assert "file_editor" in llm.agent_requests[-1].tool_names
    assert not (project / "written").exists()
    assert created.outline == ["user", "agent: ok"]


def test_ask_is_counted_apart(conversation: Conversations) -> None:
    """Its tokens have a usage id of their own."""
    created = conversation()
    created.post("/ask_agent", {"question": "SAY counted"}).raise_for_status()

    created.patch({}).raise_for_status()

    used = created.info["stats"]["usage_to_metrics"]["ask-agent-llm"]["accumulated_token_usage"]
    assert (used["prompt_tokens"], used["completion_tokens"]) == (PROMPT_TOKENS, COMPLETION_TOKENS)


def test_ask_with_a_failing_llm_is_500_with_its_words(conversation: Conversations) -> None:
    """What the provider says reaches the client, who can do something about it."""
    response = conversation().post("/ask_agent", {"question": "HTTP 400 out of credit"})

    assert response.status_code == 500
    assert "out of credit" in response.json()["detail"]
    assert response.json()["exception"] == f"500: {response.json()['detail']}"


@pytest.mark.parametrize(
    ("content", "kind"),
    [({}, "missing"), ({"question": 5}, "string_type"), ({"question": None}, "string_type")],
    ids=["nothing", "number", "null"],
)
def test_ask_refuses(content: JsonObject, kind: str, conversation: Conversations) -> None:
    """A question is a text."""
    response = conversation().post("/ask_agent", content)

    assert response.status_code == 422
    [problem] = response.json()["detail"]
    assert (problem["type"], problem["loc"]) == (kind, ["body", "question"])


# Title


def test_title_is_the_llms_and_is_stored_nowhere(conversation: Conversations, llm: ScriptedLlm) -> None:
    """The client gets a title to use as it likes; the conversation has none until it is patched."""
    created = conversation()
    created.send("Please order the books by colour")

    response = created.post("/generate_title", {})

    assert (response.status_code, response.json()) == (200, {"title": SIDE_ANSWER})
    assert "order the books by colour" in llm.requests[-1].text
    assert created.info["title"] is None
    assert created.outline == ["user"]


def test_title_can_be_asked_of_another_llm(
    conversation: Conversations, llm: ScriptedLlm, other_llm: ScriptedLlm
) -> None:
    """The LLM in the request is used instead of the agent's."""
    created = conversation()
    created.send("Please order the books")
    before = len(llm.requests)

    title = created.post("/generate_title", {"llm": other_llm.settings | {"usage_id": "title"}}).json()

    assert title == {"title": SIDE_ANSWER}
    assert len(other_llm.requests) == 1
    assert len(llm.requests) == before


def test_title_is_no_longer_than_wanted(conversation: Conversations) -> None:
    """`max_length` cuts what the LLM says."""
    created = conversation()
    created.send("Please order the books")

    title = created.post("/generate_title", {"max_length": 10}).json()["title"]

    assert len(title) == 10
    assert title == f"{SIDE_ANSWER[:7]}..."


def test_title_falls_back_to_the_first_message(conversation: Conversations, llm: ScriptedLlm) -> None:
    """An LLM that cannot be reached costs nothing but its wording."""
    created = conversation()
    created.send("Please order all of the books by colour")
    unreachable = llm.settings | {"base_url": f"http://127.0.0.1:{free_port()}/v1", "usage_id": "title"}

    response = created.post("/generate_title", {"max_length": 20, "llm": unreachable})

    assert (response.status_code, response.json()) == (200, {"title": "Please order all ..."})


def test_title_of_nothing_said_is_500_with_the_reason(conversation: Conversations) -> None:
    """There is nothing to make a title of, and the answer says so."""
    response = conversation().post("/generate_title", {})

    assert response.status_code == 500
    assert response.json()["detail"] == "No user messages found in conversation events"


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        ({"max_length": 0}, "greater_than_equal"),
        ({"max_length": 201}, "less_than_equal"),
        ({"max_length": "long"}, "int_parsing"),
    ],
    ids=["0", "201", "text"],
)
def test_title_refuses(content: JsonObject, kind: str, conversation: Conversations) -> None:
    """Titles have 1 to 200 characters."""
    response = conversation().post("/generate_title", content)

    assert response.status_code == 422
    [problem] = response.json()["detail"]
    assert (problem["type"], problem["loc"]) == (kind, ["body", "max_length"])


def test_title_without_a_body_is_422(conversation: Conversations) -> None:
    """There has to be one, if an empty object."""
    response = conversation().post("/generate_title")

    assert response.status_code == 422
    assert response.json()["detail"][0]["loc"] == ["body"]


# Final response


def test_final_response_is_empty_before_any_answer(conversation: Conversations) -> None:
    """Neither an empty conversation nor a question has one."""
    created = conversation()
    assert final_response(created.get("/agent_final_response").json()) == ""
    created.send("SAY never asked")
    assert final_response(created.get("/agent_final_response").json()) == ""


def final_response(content: JsonObject) -> str:
    """The one field there is."""
    assert content.keys() == {"response"}
    return str(content["response"])


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        (["SAY spoken"], "spoken"),
        ([call("finish", message="finished with")], "finished with"),
        ([call("think", thought="hm"), "SAY after thinking"], "after thinking"),
    ],
    ids=["message", "finish", "message after a tool"],
)
def test_final_response_is_the_last_answer(script: list[str], expected: str, conversation: Conversations) -> None:
    """A message of the agent or the text it finishes with."""
    created = conversation()
    created.run_to("finished", *script)

    assert created.get("/agent_final_response").json() == {"response": expected}


def test_final_response_is_the_newest(conversation: Conversations) -> None:
    """A later answer replaces an earlier one, and stays while the next question is open."""
    created = conversation()
    created.run_to("finished", call("finish", message="the first"))
    created.send("SAY the second", run=True)
    created.wait_event("the second answer", lambda event: "the second" in str(event.get("llm_message", "")))
    created.wait_status("finished")
    assert created.get("/agent_final_response").json() == {"response": "the second"}

    created.send("SAY not asked yet")

    assert created.get("/agent_final_response").json() == {"response": "the second"}


def test_final_response_of_a_finish_without_a_message_is_empty(conversation: Conversations) -> None:
    """A finish call the agent got wrong is no answer, and what came before is not repeated."""
    created = conversation(max_iterations=1)
    created.run_to("finished", "SAY the first")
    created.run_to("error", call("finish"), "SAY never reached")

    assert created.get("/agent_final_response").json() == {"response": ""}
