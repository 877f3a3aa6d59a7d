"""The SDK's own remote client runs real agents on the server: what `RemoteConversation` promises its users."""

from __future__ import annotations

import time
from pathlib import Path
from uuid import uuid4

import httpx
import pytest
from litellm.types.utils import ModelResponseStream
from openhands.sdk import RemoteConversation
from openhands.sdk.conversation.exceptions import WebSocketConnectionError
from openhands.sdk.event import InterruptEvent, UserRejectObservation
from openhands.sdk.security.confirmation_policy import AlwaysConfirm

from service.demo.scripted_llm import COMPLETION_TOKENS, PROMPT_TOKENS, ScriptedLlm
from tests.e2e.remote_client import RemoteClient, call, observations, outline, run, send, start_run, terminal
from tests.server_process import Server
from tests.waiting import wait_until

THINK = call("think", thought="one step at a time")
SECRET = "s3cret-value-of-the-test"


def test_run_thinks_uses_the_terminal_and_finishes(client: RemoteClient) -> None:
    """A run takes every step of the agent and ends with its answer."""
    conversation = client.start()

    send(conversation, THINK, terminal("echo from-$((40 + 2))"), "SAY all done")
    run(conversation)

    assert outline(conversation) == [
        "user",
        "call think",
        "result think",
        "call terminal",
        "result terminal",
        "agent: all done",
    ]
    assert "from-42" in observations(conversation)
    assert conversation.state.execution_status == "finished"
    assert client.status(conversation) == "finished"


def test_finish_tool_ends_the_run(client: RemoteClient) -> None:
    """A run that ends with the finish tool is finished and says so once."""
    conversation = client.start()

    send(conversation, call("finish", message="that was it"))
    run(conversation)

    assert outline(conversation) == ["user", "call finish", "result finish"]
    assert client.status(conversation) == "finished"


def test_run_in_tmux_keeps_the_shell_between_commands(client: RemoteClient) -> None:
    """A terminal in tmux remembers what earlier commands did to the shell."""
    conversation = client.start(client.agent(terminal_type="tmux"))

    send(conversation, terminal("export COLOUR=green"), terminal("echo colour-is-$COLOUR"), "SAY ok")
    run(conversation, timeout_seconds=60)

    assert "colour-is-green" in observations(conversation)
    assert client.status(conversation) == "finished"


def test_parallel_tool_calls_are_all_answered(client: RemoteClient) -> None:
    """Two tool calls of one LLM answer each get their result before the next step."""
    conversation = client.start()

    send(conversation, f"{THINK} && {terminal('echo side-by-side')}", "SAY ok")
    run(conversation)

    assert sorted(outline(conversation)[1:5]) == ["call terminal", "call think", "result terminal", "result think"]
    assert outline(conversation)[5:] == ["agent: ok"]


def test_second_message_continues_the_conversation(client: RemoteClient) -> None:
    """A message after the end starts another run, and the LLM still sees the first exchange."""
    conversation = client.start()
    send(conversation, "SAY the first answer")
    run(conversation)

    send(conversation, terminal("echo again"), "SAY the second answer")
    run(conversation)

    expected = ["user", "agent: the first answer", "user", "call terminal", "result terminal"]
    assert outline(conversation) == [*expected, "agent: the second answer"]
    assert "the first answer" in client.llm.agent_requests[-1].text


def test_streamed_words_reach_the_token_callback(client: RemoteClient) -> None:
    """With a streaming LLM the client is handed the answer in pieces, in order; some words may come together."""
    words: list[str] = []

    def on_token(chunk: ModelResponseStream) -> None:
        words.append(chunk.choices[0].delta.content or "")

    conversation = client.start(client.agent(stream=True), token_callbacks=[on_token])

    send(conversation, "SAY one two three")
    run(conversation)

    assert outline(conversation) == ["user", "agent: one two three"]
    assert "".join(words) == "one two three"
    assert 1 <= len(words) <= 3


def test_pause_stops_after_the_step_and_run_resumes(client: RemoteClient) -> None:
    """A paused run finishes the step it is in and no further one; `run` goes on from there."""
    conversation = client.start()
    send(conversation, "HOLD first", THINK, "SAY after the pause")
    start_run(conversation)
    client.llm.wait_held("first")

    conversation.pause()
    client.llm.release("first")

    wait_until(lambda: "result think" in outline(conversation), "the step in flight has landed")
    assert client.status(conversation) == "paused"
    assert len(client.llm.agent_requests) == 1

    wait_until(lambda: resume(client, conversation), "the paused run is over and a new one starts")
    client.wait_status(conversation, "finished")
    wait_until(lambda: "agent: after the pause" in outline(conversation), "the client has heard the answer")
    assert outline(conversation) == ["user", "call think", "result think", "agent: after the pause"]


def resume(client: RemoteClient, conversation: RemoteConversation) -> bool:
    """Ask for a run; False while the server still finishes the former one."""
    response = client.http.post(f"/api/conversations/{conversation.id}/run")
    assert response.status_code in {200, 409}, response.text
    return response.status_code == 200


def test_interrupt_ends_a_long_command_within_a_second(client: RemoteClient) -> None:
    """`interrupt` answers, pauses and closes the open tool call within 1 s though the command sleeps for 30."""
    started = client.project / "started"
    conversation = client.start()
    send(conversation, terminal(f"touch {started}; sleep 30"), "SAY not reached")
    start_run(conversation)
    wait_until(started.exists, "the command is running")

    begin = time.monotonic()
    conversation.interrupt()
    wait_until(lambda: "error terminal" in outline(conversation), "the open tool call has an error", 10)
    wait_until(lambda: client.status(conversation) == "paused", "the conversation is paused", 10)
    elapsed_seconds = time.monotonic() - begin

    assert elapsed_seconds < 1
    assert outline(conversation) == ["user", "call terminal", "error terminal"]
    assert any(isinstance(event, InterruptEvent) for event in conversation.state.events)


def test_run_after_an_interrupt_continues(client: RemoteClient) -> None:
    """An interrupted conversation takes a new message and finishes."""
    conversation = client.start()
    send(conversation, "HOLD never", "SAY not reached")
    start_run(conversation)
    client.llm.wait_held("never")
    conversation.interrupt()
    client.wait_status(conversation, "paused")
    client.llm.release("never")

    send(conversation, "SAY back again")
    wait_until(lambda: resume(client, conversation), "the interrupted run is over and a new one starts")
    client.wait_status(conversation, "finished")

    wait_until(lambda: outline(conversation)[-1].startswith("agent: "), "the client has heard the answer")


def test_accepted_action_is_executed(client: RemoteClient) -> None:
    """With confirmation on, a command runs only once the user has accepted it."""
    witness = client.project / "witness"
    conversation = client.start()
    conversation.set_confirmation_policy(AlwaysConfirm())
    send(conversation, terminal(f"touch {witness}"), "SAY it was allowed")

    run(conversation)
    assert client.status(conversation) == "waiting_for_confirmation"
    assert outline(conversation) == ["user", "call terminal"]
    assert not witness.exists()

    answer = {"accept": True}
    client.http.post(f"/api/conversations/{conversation.id}/events/respond_to_confirmation", json=answer)
    client.wait_status(conversation, "finished")

    assert witness.exists()
    wait_until(lambda: outline(conversation)[-1] == "agent: it was allowed", "the client has heard the answer")


def test_run_accepts_the_pending_action(client: RemoteClient) -> None:
    """The SDK's way to accept is another `run`: the pending command is executed and the run finishes."""
    conversation = client.start()
    conversation.set_confirmation_policy(AlwaysConfirm())
    send(conversation, terminal("echo allowed-by-run"), "SAY ok")
    run(conversation)
    assert conversation.state.execution_status == "waiting_for_confirmation"

    run(conversation)

    assert "allowed-by-run" in observations(conversation)
    assert client.status(conversation) == "finished"


def test_rejected_action_is_not_executed(client: RemoteClient) -> None:
    """A rejected command never runs; the LLM is told the reason and goes on."""
    witness = client.project / "witness"
    conversation = client.start()
    conversation.set_confirmation_policy(AlwaysConfirm())
    send(conversation, terminal(f"touch {witness}"), "SAY another way then")
    run(conversation)

    conversation.reject_pending_actions("far too dangerous")
    wait_until(lambda: "rejected terminal" in outline(conversation), "the client has heard of the rejection")
    rejection = next(event for event in conversation.state.events if isinstance(event, UserRejectObservation))
    assert rejection.rejection_reason == "far too dangerous"
    assert client.status(conversation) == "idle"

    run(conversation)
    assert outline(conversation) == ["user", "call terminal", "rejected terminal", "agent: another way then"]
    assert not witness.exists()
    assert "far too dangerous" in client.llm.agent_requests[-1].text


def test_secrets_reach_the_terminal_and_are_masked(client: RemoteClient) -> None:
    """A command finds a secret in its environment; no event, reply or prompt shows its value."""
    conversation = client.start(secrets={"DEPLOY_TOKEN": SECRET})

    def is_shown() -> bool:
        send(conversation, terminal('printf %s "$DEPLOY_TOKEN" > token; echo "token=$DEPLOY_TOKEN"'), "SAY used it")
        run(conversation)
        return "token=<secret-hidden>" in observations(conversation)

    # The SDK gives a shell a second to start; a prompt that comes later is taken for the end of a command.
    wait_until(is_shown, "the shell is in step with its commands")
    assert (client.project / "token").read_text() == SECRET
    assert SECRET not in client.http.get(f"/api/conversations/{conversation.id}/events/search").text
    assert SECRET not in client.http.get(f"/api/conversations/{conversation.id}").text
    assert all(SECRET not in request.text for request in client.llm.requests)


def test_updated_secret_replaces_the_former_value(client: RemoteClient) -> None:
    """A secret given again is used with its new value in the next command."""
    conversation = client.start(secrets={"DEPLOY_TOKEN": "the-former-value"})
    send(conversation, terminal('printf %s "$DEPLOY_TOKEN" > before'), "SAY ok")
    run(conversation)

    conversation.update_secrets({"DEPLOY_TOKEN": SECRET})
    send(conversation, terminal('printf %s "$DEPLOY_TOKEN" > after'), "SAY ok")
    run(conversation)

    assert (client.project / "before").read_text() == "the-former-value"
    assert (client.project / "after").read_text() == SECRET


def test_stats_count_every_llm_call(client: RemoteClient) -> None:
    """The client's statistics add up the tokens of all requests the LLM has answered."""
    conversation = client.start()
    send(conversation, THINK, terminal("echo counted"), "SAY ok")
    run(conversation)

    wait_until(lambda: tokens(conversation) == expected_tokens(client.llm), "all requests are counted")
    assert len(client.llm.agent_requests) == 3


def tokens(conversation: RemoteConversation) -> tuple[int, int]:
    """Prompt and completion tokens the client knows of."""
    usage = conversation.conversation_stats.get_combined_metrics().accumulated_token_usage
    return (usage.prompt_tokens, usage.completion_tokens) if usage else (0, 0)


def expected_tokens(llm: ScriptedLlm) -> tuple[int, int]:
    """What the LLM has charged; a title may have been asked for beside the run."""
    return PROMPT_TOKENS * len(llm.requests), COMPLETION_TOKENS * len(llm.requests)


def test_new_client_attaches_by_id_and_continues(
    client: RemoteClient, server: Server, scripted_llm: ScriptedLlm, project: Path
) -> None:
    """A client that only knows the id sees the same history, runs the next turn, and the first client hears of it."""
    first = client.start()
    send(first, terminal("echo made-by-the-first"), "SAY ready")
    run(first)

    with RemoteClient(server, scripted_llm, project) as other:
        second = other.attach(first.id)
        assert outline(second) == outline(first)
        assert "made-by-the-first" in observations(second)

        send(second, terminal("echo made-by-the-second"), "SAY taken over")
        run(second)

        assert outline(second)[-1] == "agent: taken over"
        wait_until(lambda: outline(first) == outline(second), "the first client has heard of the second's run")


def test_attach_to_an_unknown_id_is_refused(client: RemoteClient) -> None:
    """Attaching never makes a conversation: an id nobody knows is 404."""
    with pytest.raises(httpx.HTTPStatusError) as refused:
        client.attach(uuid4())

    assert refused.value.response.status_code == 404


def test_chosen_id_is_used_and_found_again(client: RemoteClient) -> None:
    """A conversation made with the client's own id is joined, not made anew, by a second constructor with that id."""
    chosen = uuid4()
    first = client.start(conversation_id=chosen)
    send(first, "SAY mine")
    run(first)

    again = client.start(conversation_id=chosen)

    assert first.id == again.id == chosen
    assert outline(again) == ["user", "agent: mine"]


def test_ask_agent_leaves_the_conversation_alone(client: RemoteClient) -> None:
    """A side question is answered with the conversation in view, also during a run, and leaves no event."""
    conversation = client.start()
    send(conversation, "HOLD busy", "SAY the answer proper")
    start_run(conversation)
    client.llm.wait_held("busy")

    assert conversation.ask_agent("SAY forty-two") == "forty-two"

    client.llm.release("busy")
    client.wait_status(conversation, "finished")
    wait_until(lambda: outline(conversation) == ["user", "agent: the answer proper"], "only the run left events")
    assert conversation.ask_agent("SAY still here") == "still here"
    assert "the answer proper" in client.llm.agent_requests[-1].text


def test_agent_final_response_is_the_last_answer(client: RemoteClient) -> None:
    """The final response is the agent's newest message or finish text, and empty before there is one."""
    conversation = client.start()

    def final_response() -> str:
        path = f"/api/conversations/{conversation.id}/agent_final_response"
        return str(client.http.get(path).raise_for_status().json()["response"])

    assert final_response() == ""
    send(conversation, "SAY spoken")
    run(conversation)
    assert final_response() == "spoken"
    send(conversation, THINK, call("finish", message="finished with"))
    run(conversation)
    assert final_response() == "finished with"


def test_failed_llm_fails_the_run_with_its_reason(client: RemoteClient) -> None:
    """A run whose LLM refuses raises in the client with the provider's text, and a later message recovers."""
    conversation = client.start()
    send(conversation, "HTTP 400 the scripted refusal")

    with pytest.raises(Exception, match="the scripted refusal"):
        run(conversation)
    assert client.status(conversation) == "error"

    send(conversation, "SAY recovered")
    run(conversation)
    assert outline(conversation)[-1] == "agent: recovered"
    assert client.status(conversation) == "finished"


def test_delete_removes_the_conversation(client: RemoteClient) -> None:
    """A client that closes with `delete_on_close` leaves nothing behind."""
    conversation = client.start(delete_on_close=True)
    send(conversation, "SAY soon gone")
    run(conversation)

    conversation.close()

    assert client.http.get(f"/api/conversations/{conversation.id}").status_code == 404


def test_session_key_opens_http_and_socket(
    tmp_path_factory: pytest.TempPathFactory, scripted_llm: ScriptedLlm, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a key configured, a client that has it runs agents; one without or with another is refused everywhere."""
    monkeypatch.setenv("OPENHANDS_REMOTE_WS_READY_TIMEOUT", "5")
    with Server(tmp_path_factory.mktemp("keyed"), {"OH_SESSION_API_KEYS_0": "the-key"}) as keyed:
        with RemoteClient(keyed, scripted_llm, project, api_key="the-key") as insider:
            conversation = insider.start()
            send(conversation, terminal("echo inside; env"), "SAY let in")
            run(conversation)
            assert outline(conversation)[-1] == "agent: let in"
            assert "the-key" not in observations(conversation)

            for wrong_key in (None, "another-key"):
                with RemoteClient(keyed, scripted_llm, project, api_key=wrong_key) as outsider:
                    assert_refused(outsider, conversation)


def assert_refused(outsider: RemoteClient, conversation: RemoteConversation) -> None:
    """Neither creating, nor attaching, nor the events socket works for this client."""
    with pytest.raises(httpx.HTTPStatusError) as refused:
        outsider.start()
    assert refused.value.response.status_code == 401
    with pytest.raises(httpx.HTTPStatusError) as refused:
        outsider.attach(conversation.id)
    assert refused.value.response.status_code == 401
    # HTTP gets the right key here, so that only the socket can refuse.
    outsider.http.headers["x-session-api-key"] = "the-key"
    with pytest.raises(WebSocketConnectionError):
        outsider.attach(conversation.id)


@pytest.mark.parametrize("length", [5, 3_000_000], ids=["short", "long"])
def test_workspace_executes_commands(client: RemoteClient, length: int) -> None:
    """Started, polled and put together by the SDK's own client."""
    result = client.workspace.execute_command(
        f"head -c {length} /dev/zero | tr '\\0' x; echo err >&2; exit 3", timeout=30
    )
    assert (result.exit_code, result.timeout_occurred) == (3, False)
    assert result.stdout == "x" * length
    assert result.stderr == "err\n"


def test_workspace_command_that_takes_too_long_is_cut_off(client: RemoteClient) -> None:
    """The client is told so."""
    assert client.workspace.execute_command("sleep 60", timeout=1).exit_code == -1


def test_workspace_moves_files_both_ways(client: RemoteClient, tmp_path: Path) -> None:
    """Up to the machine of the agents and down again."""
    here, there, back = tmp_path / "here", client.project / "sub" / "there", tmp_path / "back"
    here.write_bytes(bytes(range(256)) * 1000)
    up = client.workspace.file_upload(here, there)
    assert (up.success, up.file_size) == (True, 256_000)
    down = client.workspace.file_download(there, back)
    assert down.success
    assert back.read_bytes() == here.read_bytes()
    assert not client.workspace.file_download(client.project / "nowhere", back).success


def test_workspace_tells_what_has_changed(client: RemoteClient) -> None:
    """In the repository that the conversation's creation makes of its directory."""
    client.start()
    (client.project / "new file").write_text("content\n")
    changed = client.workspace.git_changes(client.project)
    assert [(str(change.path), change.status.value) for change in changed] == [("new file", "ADDED")]
    assert client.workspace.git_diff(client.project / "new file").modified == "content"
