"""`/v1` through OpenAI's own client: models, answers in one piece and streamed, histories, errors."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from uuid import UUID, uuid4

import httpx
import openai
import pytest
from openai import OpenAI
from openai.types.chat import ChatCompletionMessageParam
from openhands.sdk import LLM
from openhands.sdk.llm.llm_profile_store import LLMProfileStore
from openhands.sdk.profiles.agent_profile import OpenHandsAgentProfile
from openhands.sdk.profiles.agent_profile_store import AgentProfileStore
from openhands.sdk.utils.cipher import Cipher

from service.app import create_app
from service.demo.scripted_llm import API_KEY, COMPLETION_TOKENS, PROMPT_TOKENS, ScriptedLlm
from service.settings import Settings
from tests.conftest import StartClient
from tests.integration.contract.conversations import Conversation, call
from tests.server_process import Server
from tests.waiting import wait_until

MODEL = "openhands_scripted"
CONVERSATION = "x-openhands-serverconversation-id"


@pytest.fixture(scope="module")
def client(server: Server, llm: ScriptedLlm) -> Iterator[OpenAI]:
    """A client of a server with one LLM profile, stored as the published server stores it."""
    profiles = server.directory / "home" / ".openhands" / "profiles"
    profiles.mkdir(parents=True, exist_ok=True)
    profile = profiles / "scripted.json"
    profile.write_text(json.dumps(llm.settings))
    with (
        httpx.Client(trust_env=False, timeout=30) as transport,
        OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0, http_client=transport) as client,
    ):
        yield client
    profile.unlink()


def user(text: str) -> ChatCompletionMessageParam:
    return {"role": "user", "content": text}


def assistant(text: str) -> ChatCompletionMessageParam:
    return {"role": "assistant", "content": text}


def test_models_are_the_llm_profiles(client: OpenAI) -> None:
    [model] = [each for each in client.models.list() if each.id == MODEL]
    assert (model.object, model.owned_by) == ("model", "openhands")


def test_answer_in_one_piece(client: OpenAI) -> None:
    completion = client.chat.completions.create(model=MODEL, messages=[user("SAY four words of answer")])
    [choice] = completion.choices
    assert (choice.message.role, choice.message.content) == ("assistant", "four words of answer")
    assert (choice.finish_reason, completion.model, completion.object) == ("stop", MODEL, "chat.completion")
    assert completion.usage is not None
    assert (completion.usage.prompt_tokens, completion.usage.completion_tokens) == (PROMPT_TOKENS, COMPLETION_TOKENS)


def test_answer_is_the_last_word_of_a_run_with_tools(client: OpenAI) -> None:
    script = f"{call('think', thought='hard')}\n{call('finish', message='thought over')}"
    completion = client.chat.completions.create(model=MODEL, messages=[user(script)])
    assert completion.choices[0].message.content == "thought over"
    assert completion.usage is not None
    assert completion.usage.total_tokens == 2 * (PROMPT_TOKENS + COMPLETION_TOKENS)


def test_stream_comes_while_the_llm_still_answers(client: OpenAI, llm: ScriptedLlm) -> None:
    stream = client.chat.completions.create(
        model=MODEL,
        messages=[user("STALL gateway\nSAY one two three")],
        stream=True,
        stream_options={"include_usage": True},
    )
    texts: list[str] = []
    for chunk in stream:
        if not chunk.choices:
            assert chunk.usage is not None
            assert chunk.usage.total_tokens == PROMPT_TOKENS + COMPLETION_TOKENS
            break
        texts.append(chunk.choices[0].delta.content or "")
        if texts[-1] == "one":
            llm.release("gateway")
    assert "".join(texts) == "one two three"
    assert len([text for text in texts if text]) > 1


def test_stream_ends_with_what_was_not_streamed(client: OpenAI) -> None:
    """A text given to a tool does not grow."""
    stream = client.chat.completions.create(
        model=MODEL, messages=[user(call("finish", message="at once"))], stream=True
    )
    chunks = list(stream)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "at once"
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert {chunk.usage for chunk in chunks} == {None}


@pytest.mark.parametrize("stream", [False, True])
def test_whole_history_is_used(client: OpenAI, llm: ScriptedLlm, *, stream: bool) -> None:
    before = len(llm.requests)
    messages: list[ChatCompletionMessageParam] = [
        {"role": "system", "content": "Be brief, says the system."},
        user("SAY something else"),
        assistant("the first answer"),
        user("SAY the second"),
    ]
    answer = client.chat.completions.create(model=MODEL, messages=messages, stream=stream)
    if isinstance(answer, openai.Stream):
        assert "".join(chunk.choices[0].delta.content or "" for chunk in answer) == "the second"
    else:
        assert answer.choices[0].message.content == "the second"
    [asked] = llm.requests[before:]
    assert "Be brief, says the system." in asked.text
    turns = [(turn["role"], turn["content"]) for turn in asked.messages if turn["role"] != "system"]
    assert [role for role, _ in turns] == ["user", "assistant", "user"]
    assert "the first answer" in str(turns[1])


def test_two_turns_of_one_conversation(client: OpenAI, llm: ScriptedLlm) -> None:
    """The header goes on where the first answer ended, and usage is each request's own."""
    first = client.chat.completions.with_raw_response.create(model=MODEL, messages=[user("SAY first")])
    conversation_id = first.headers[CONVERSATION]
    before = len(llm.requests)
    second = client.chat.completions.with_raw_response.create(
        model=MODEL, messages=[user("SAY second")], extra_headers={CONVERSATION: conversation_id}
    )
    assert second.headers[CONVERSATION] == conversation_id
    completion = second.parse()
    assert completion.choices[0].message.content == "second"
    assert completion.usage is not None
    assert completion.usage.total_tokens == PROMPT_TOKENS + COMPLETION_TOKENS
    assert "first" in llm.requests[before].text


def test_parts_of_a_content(client: OpenAI, llm: ScriptedLlm) -> None:
    answer = client.chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": [{"type": "text", "text": "SAY parts"}]}]
    )
    assert answer.choices[0].message.content == "parts"


def test_responses(client: OpenAI, llm: ScriptedLlm) -> None:
    """OpenAI's newer interface, with a history as its input."""
    before = len(llm.requests)
    answer = client.responses.create(
        model=MODEL,
        instructions="Be brief, say the instructions.",
        input=[
            {"role": "user", "content": "SAY something else"},
            {"role": "assistant", "content": "the first answer"},
            {"role": "user", "content": [{"type": "input_text", "text": "SAY the second"}]},
        ],
        metadata={"key": "value"},
    )
    assert (answer.output_text, answer.status, answer.metadata) == ("the second", "completed", {"key": "value"})
    assert answer.usage is not None
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (PROMPT_TOKENS, COMPLETION_TOKENS)
    assert "say the instructions" in llm.requests[before].text
    assert "the first answer" in llm.requests[before].text
    assert client.responses.create(model=MODEL, input="SAY plain").output_text == "plain"


@pytest.mark.parametrize(
    "wanted",
    [{"stream": True}, {"store": True}, {"previous_response_id": "resp_1"}, {"input": ""}, {"input": []}],
)
def test_responses_that_cannot_be_had_are_400(client: OpenAI, wanted: dict[str, Any]) -> None:
    with pytest.raises(openai.BadRequestError):
        client.responses.create(**{"model": MODEL, "input": "hello"} | wanted)


def test_active_agent_profile_is_asked(client: OpenAI, llm: ScriptedLlm, server: Server) -> None:
    """With the model that the request names, and keys that are encrypted on disk."""
    root = server.directory / "home" / ".openhands"
    cipher = Cipher("tests-only")
    LLMProfileStore(root / "profiles").save("kept", LLM(**llm.settings), include_secrets=True, cipher=cipher)
    profile = OpenHandsAgentProfile(
        name="own", llm_profile_ref="gone", system_message_suffix="Speak like the profile.", tools=[]
    )
    dangling = OpenHandsAgentProfile(name="dangling", llm_profile_ref="kept", mcp_server_refs=["nowhere"], tools=[])
    for each in (profile, dangling):
        AgentProfileStore(root / "agent-profiles").save(each)
    stored = root / "settings.json"
    before, asked = stored.read_bytes() if stored.exists() else None, len(llm.requests)
    stored.write_text(json.dumps({"active_agent_profile_id": str(profile.id)}))
    try:
        answer = client.chat.completions.create(model="openhands_kept", messages=[user("SAY as told")])
        assert answer.choices[0].message.content == "as told"
        assert "Speak like the profile." in llm.requests[asked].text
        assert llm.requests[asked].api_key == API_KEY
        stored.write_text(json.dumps({"active_agent_profile_id": str(dangling.id)}))
        with pytest.raises(openai.UnprocessableEntityError) as refused:
            client.chat.completions.create(model="openhands_kept", messages=[user("SAY no")])
        assert "nowhere" in refused.value.body["message"]  # type: ignore[index]
        assert not refused.value.body["message"].startswith("{")  # type: ignore[index]
        stored.write_text(json.dumps({"active_agent_profile_id": str(uuid4())}))
        with pytest.raises(openai.ConflictError, match="gone"):
            client.chat.completions.create(model="openhands_kept", messages=[user("SAY no")])
    finally:
        stored.unlink()
        if before is not None:
            stored.write_bytes(before)
        (root / "profiles" / "kept.json").unlink()


def test_unknown_model_is_404(client: OpenAI) -> None:
    for model in ("gpt-4", "openhands_gone", "openhands_../x"):
        with pytest.raises(openai.NotFoundError) as refused:
            client.chat.completions.create(model=model, messages=[user("hello")])
        assert refused.value.type == "invalid_request_error"


def test_unknown_model_is_404_in_a_conversation_too(client: OpenAI, http: httpx.Client) -> None:
    """Which keeps its own LLM, and has no other message."""
    first = client.chat.completions.with_raw_response.create(model=MODEL, messages=[user("SAY one")])
    named = {CONVERSATION: first.headers[CONVERSATION]}
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(model="gpt-4", messages=[user("SAY two")], extra_headers=named)
    found = http.get(f"/api/conversations/{first.headers[CONVERSATION]}/events/count", params={"source": "user"})
    assert found.json() == 1


def test_settings_of_conversations_count(client: OpenAI, http: httpx.Client) -> None:
    """An action that the settings want to be asked about is not done."""

    def set_to(**diff: Any) -> None:
        http.patch("/api/settings", json={"conversation_settings_diff": diff}).raise_for_status()

    set_to(confirmation_mode=True, security_analyzer="none", max_iterations=7)
    conversation_id = str(uuid4())
    script = f"{call('terminal', command='true')}\nSAY no"
    try:
        with pytest.raises(openai.ConflictError, match="confirmation"):
            client.chat.completions.create(
                model=MODEL, messages=[user(script)], extra_headers={CONVERSATION: conversation_id}
            )
    finally:
        set_to(confirmation_mode=False, security_analyzer="llm", max_iterations=500)
    made = http.get(f"/api/conversations/{conversation_id}").json()
    assert (made["confirmation_policy"]["kind"], made["max_iterations"]) == ("AlwaysConfirm", 7)


def test_observability_comes_in_headers(client: OpenAI, server: Server) -> None:
    prefix = "X-OpenHands-Observability-"
    headers = {f"{prefix}Span-Name": "nightly", f"{prefix}Tags": "a, b", f"{prefix}Metadata": '{"k": 1}'}
    answered = client.chat.completions.with_raw_response.create(
        model=MODEL, messages=[user("SAY ok")], extra_headers=headers
    )
    folder = UUID(answered.headers[CONVERSATION]).hex
    [path] = server.directory.rglob(f"{folder}/meta.json")
    meta = json.loads(path.read_text())
    told = [meta[f"observability_{name}"] for name in ("span_name", "tags", "metadata")]
    assert told == ["nightly", ["a", "b"], {"k": 1}]
    for wrong in ({f"{prefix}Metadata": "{"}, {f"{prefix}Span-Name": "x" * 129}):
        with pytest.raises(openai.UnprocessableEntityError):
            client.responses.create(model=MODEL, input="SAY no", extra_headers=wrong)


def test_request_without_a_user_message_is_400(client: OpenAI) -> None:
    nobody: tuple[list[ChatCompletionMessageParam], ...] = ([], [{"role": "system", "content": "alone"}])
    for messages in nobody:
        with pytest.raises(openai.BadRequestError, match="role user"):
            client.chat.completions.create(model=MODEL, messages=messages)


def test_invalid_request_is_422_in_openais_shape(client: OpenAI) -> None:
    with pytest.raises(openai.UnprocessableEntityError, match=r"body\.messages"):
        client.chat.completions.create(model=MODEL, messages=None)  # type: ignore[call-overload]


@pytest.mark.parametrize("stream", [False, True])
def test_failed_run_is_told_and_a_remote_401_is_not_ours(client: OpenAI, *, stream: bool) -> None:
    script = [user("HTTP 401 no such key")]
    with pytest.raises(openai.APIError, match="LLM API key") as failed:
        list(client.chat.completions.create(model=MODEL, messages=script, stream=stream))
    assert getattr(failed.value, "status_code", 500) == 500
    assert failed.value.type == "server_error"


def test_run_outlives_a_client_that_goes_away(client: OpenAI, llm: ScriptedLlm, http: httpx.Client) -> None:
    stream = client.chat.completions.create(
        model=MODEL, messages=[user("STALL abandoned\nSAY still said at last")], stream=True
    )
    conversation = Conversation(http, stream.response.headers[CONVERSATION], llm)
    llm.wait_held("abandoned")
    stream.close()
    llm.release("abandoned")
    wait_until(lambda: conversation.status == "finished", "the run has ended")
    assert conversation.get("/agent_final_response").json()["response"] == "still said at last"
    conversation.delete()


def test_conversation_that_is_running_is_409(client: OpenAI, llm: ScriptedLlm) -> None:
    stream = client.chat.completions.create(model=MODEL, messages=[user("HOLD busy\nSAY done")], stream=True)
    llm.wait_held("busy")
    headers = {CONVERSATION: stream.response.headers[CONVERSATION]}
    with pytest.raises(openai.ConflictError, match="already running"):
        client.chat.completions.create(model=MODEL, messages=[user("SAY no")], extra_headers=headers)
    llm.release("busy")
    assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == "done"


async def test_stopping_server_sends_no_message(settings: Settings, sanic_client: StartClient) -> None:
    """It says to try again, which OpenAI's clients do by themselves."""
    conversation_id = uuid4()
    directory = settings.conversations_path / conversation_id.hex
    directory.mkdir(parents=True)
    (directory / "base_state.json").write_text("{}")
    app = create_app(settings, embedded_runner=False)
    client = await sanic_client(app)
    app.ctx.web.is_stopping = True
    asked = {"model": MODEL, "messages": [user("SAY no")]}
    answer = await client.post("/v1/chat/completions", json=asked, headers={CONVERSATION: str(conversation_id)})
    assert (answer.status_code, "stopping" in answer.json()["error"]["message"]) == (503, True)
