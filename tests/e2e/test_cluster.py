"""What holds for one process holds for many: the same tests through a balancer with two web servers behind it."""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType

import httpx
import pytest

from tests.cluster_process import Cluster
from tests.e2e import test_remote_conversation, test_viewers
from tests.e2e.remote_client import RemoteClient, call, outline, run, send
from tests.e2e.test_viewers import script  # noqa: F401  a fixture of its tests
from tests.integration.contract.conversations import Conversation, Conversations
from tests.integration.contract.viewer import Viewer


def collected_from(module: ModuleType) -> dict[str, object]:
    """Every test of a module, also those that are written later; here they get this module's fixtures."""
    return {name: value for name, value in vars(module).items() if name.startswith("test_")}


globals().update(collected_from(test_remote_conversation) | collected_from(test_viewers))


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
