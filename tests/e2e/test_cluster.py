"""What holds for one process holds for many: the same tests through a balancer with two web servers behind it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType

import httpx
import pytest

from service.demo.scripted_llm import ScriptedLlm
from tests.cluster_process import Cluster
from tests.e2e import test_remote_conversation, test_remote_operations, test_viewers
from tests.e2e.remote_client import RemoteClient, call, outline, run, send
from tests.e2e.test_viewers import script  # noqa: F401  a fixture of its tests
from tests.faults.owner import runner_id
from tests.integration.contract.conversations import Conversation, Conversations
from tests.integration.contract.viewer import Viewer
from tests.mcp_server import served
from tests.waiting import wait_until


def collected_from(module: ModuleType) -> dict[str, object]:
    """Every test of a module, also those that are written later; here they get this module's fixtures."""
    return {name: value for name, value in vars(module).items() if name.startswith("test_")}


globals().update(
    collected_from(test_remote_conversation) | collected_from(test_remote_operations) | collected_from(test_viewers)
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Two web servers on two ports and two runners, behind the balancer."""
    with Cluster(tmp_path_factory.mktemp("cluster")) as running:
        yield running


@pytest.fixture(autouse=True)
def other_servers_are_clusters(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test that starts a server with settings of its own starts many processes, too."""
    monkeypatch.setattr(test_remote_conversation, "Server", Cluster)


def test_requests_and_socket_land_on_different_workers(client: RemoteClient, server: Cluster) -> None:
    """One client's socket is on one web server while both answer its requests, and it hears all the same."""
    before = server.balancer.statistics()
    conversation = client.start()

    send(conversation, call("think", thought="which worker is this?"), "SAY any of them")
    run(conversation)

    after = server.balancer.statistics()
    sockets = {name: after[name].sockets - before[name].sockets for name in after}
    answers = {name: after[name].responses - before[name].responses for name in after}
    assert sorted(sockets.values()) == [0, 1]
    assert all(answers.values()), answers
    assert outline(conversation) == ["user", "call think", "result think", "agent: any of them"]


def test_settings_are_the_same_on_every_worker_and_lose_no_change(server: Cluster) -> None:
    """Written through one web server and read through the other; changed through both at once."""
    with server.past_the_balancer(0) as first, server.past_the_balancer(1) as second:

        def change(number: int) -> None:
            diff = {"misc_settings_diff": {f"key-{number}": number}}
            (first, second)[number % 2].patch("/api/settings", json=diff).raise_for_status()

        change(0)
        assert second.get("/api/settings").json()["misc_settings"] == {"key-0": 0}
        with ThreadPoolExecutor(8) as threads:
            list(threads.map(change, range(1, 24)))
        for client in (first, second):
            assert client.get("/api/settings").json()["misc_settings"] == {f"key-{each}": each for each in range(24)}


def test_authorization_is_followed_and_ended_on_other_workers(server: Cluster) -> None:
    """Begun through one web server, told of by the other, and gone on with there."""
    first, second = (httpx.Client(base_url=url, timeout=30, trust_env=False) for url in server.web_urls)
    with first, second, served(with_oauth=True) as url:
        wanted = {"server": {"url": url, "auth": {"strategy": "oauth2"}}}
        begun = first.post("/api/mcp/oauth/start", json=wanted).raise_for_status().json()
        told = second.get(f"/api/mcp/oauth/status/{begun['job_id']}").raise_for_status().json()
        assert (told["status"], told["callback_ready"]) == ("authorizing", True)
        callback_url = httpx.get(begun["authorization_url"], trust_env=False).headers["location"]
        path = f"/api/mcp/oauth/callback/{begun['job_id']}"
        ended = second.post(path, json={"callback_url": callback_url}).raise_for_status().json()
        assert (ended["status"], ended["tools"]) == ("succeeded", ["greet"])
        assert first.get(f"/api/mcp/oauth/status/{begun['job_id']}").json() == ended


def test_openais_client_goes_on_at_another_worker(server: Cluster, scripted_llm: ScriptedLlm) -> None:
    """The second turn, streamed by the other web server, follows the first."""
    profiles = server.directory / "home" / ".openhands" / "profiles"
    profiles.mkdir(parents=True)
    (profiles / "scripted.json").write_text(json.dumps(scripted_llm.settings))
    first, second = (httpx.Client(base_url=url, timeout=30, trust_env=False) for url in server.web_urls)
    with first, second:
        wanted = {"model": "openhands_scripted", "messages": [{"role": "user", "content": "SAY the first"}]}
        begun = first.post("/v1/chat/completions", json=wanted).raise_for_status()
        assert begun.json()["choices"][0]["message"]["content"] == "the first"
        again = {**wanted, "messages": [{"role": "user", "content": "SAY the second"}], "stream": True}
        name = "x-openhands-serverconversation-id"
        headers = {name: begun.headers[name]}
        with second.stream("POST", "/v1/chat/completions", json=again, headers=headers) as streamed:
            chunks = [line.removeprefix("data: ") for line in streamed.iter_lines() if line.startswith("data: ")]
    assert chunks.pop() == "[DONE]"
    deltas = [json.loads(chunk)["choices"][0]["delta"] for chunk in chunks]
    assert "".join(delta.get("content", "") for delta in deltas) == "the second"
    assert "the first" in scripted_llm.requests[-1].text


def test_every_runner_closes_its_conversations_before_a_pause(client: RemoteClient, server: Cluster) -> None:
    """Asked of one web server."""
    with server.past_the_balancer(0) as web:
        conversations = Conversations(web, client.llm, str(client.project))
        created: list[Conversation] = []

        def owners() -> set[str]:
            return {runner_id(server.conversations_path, one.id) for one in created}

        def create_until_both_have_some() -> bool:
            created.append(conversations())
            return len(owners()) == 2

        wait_until(create_until_both_have_some, "both runners have a conversation")
        assert web.post("/api/conversations/prepare-for-sandbox-pause").status_code == 204
        assert owners() == {""}
        created[0].run_to("finished", "SAY again")


@pytest.mark.parametrize(("creator", "watcher", "sender"), [(0, 1, 0), (0, 1, 1), (1, 0, 0), (1, 0, 1)])
def test_each_step_may_be_taken_on_another_worker(
    client: RemoteClient, server: Cluster, creator: int, watcher: int, sender: int
) -> None:
    """A conversation created through one web server is watched through the other and run through either."""
    on = [httpx.Client(base_url=url, timeout=30, trust_env=False) for url in server.web_urls]
    conversations = Conversations(on[creator], client.llm, str(client.project))
    created = conversations()

    with Viewer(Conversation(on[watcher], created.id, client.llm)) as viewer:
        Conversation(on[sender], created.id, client.llm).send("SAY across", run=True)
        assert "agent: across" in viewer.until("full_state=finished")

    assert Conversation(on[watcher], created.id, client.llm).outline == created.outline == ["user", "agent: across"]
    conversations.delete_all()
    for http in on:
        http.close()
