"""The machine's idle time, which hosts read to end it: what counts as using the machine, and what does not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from service.store.bash_history import BashHistory, new_command_id
from tests.integration.contract.conversations import Conversations
from tests.integration.contract.repository import Repository
from tests.redis_process import RedisProcess
from tests.server_process import Server
from tests.waiting import wait_until


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisProcess]:
    """Where the moment of the last activity is, for all workers."""
    with RedisProcess(tmp_path_factory.mktemp("redis")) as running:
        yield running


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, redis: RedisProcess) -> Iterator[Server]:
    """One whose Redis the tests can look into."""
    with Server(tmp_path_factory.mktemp("server"), {"REDIS_URL": redis.url}) as running:
        yield running


@pytest.fixture
def activity(redis: RedisProcess) -> str:
    """The name of the moment, which has been forgotten."""
    redis.client.delete("fanout:activity")
    return "fanout:activity"


@pytest.fixture
def path(tmp_path: Path) -> str:
    """A repository with a file."""
    Repository(tmp_path / "repo").write("file")
    return str(tmp_path / "repo")


USES = {
    "upload": ("POST", "/api/file/upload", {"path": "{path}/new"}),
    "download": ("GET", "/api/file/download", {"path": "{path}/file"}),
    "create_directory": ("POST", "/api/file/create_directory", {"path": "{path}/made"}),
    "archive": ("GET", "/api/file/archive", {"path": "{path}"}),
    "changes": ("GET", "/api/git/changes", {"path": "{path}"}),
    "diff": ("GET", "/api/git/diff", {"path": "{path}/file"}),
    "commits": ("GET", "/api/git/commits", {"path": "{path}"}),
    "start": ("POST", "/api/bash/start_bash_command", {}),
    "execute": ("POST", "/api/bash/execute_bash_command", {}),
}
LOOKS = {
    "bash search": ("GET", "/api/bash/bash_events/search", {}),
    "home": ("GET", "/api/file/home", {}),
    "search_subdirs": ("GET", "/api/file/search_subdirs", {"path": "{path}"}),
    "tools": ("GET", "/api/tools/", {}),
    "editor": ("GET", "/api/vscode/status", {}),
    "server_info": ("GET", "/server_info", {}),
    "conversations": ("GET", "/api/conversations/search", {}),
}


def ask(http: httpx.Client, method: str, route: str, query: dict[str, str], path: str) -> None:
    body = {"json": {"command": "true"}} if "/bash/" in route and method == "POST" else {}
    files = {"files": {"file": ("x", b"content")}} if "upload" in route else {}
    params = {name: value.format(path=path) for name, value in query.items()}
    http.request(method, route, params=params, **body, **files).raise_for_status()  # type: ignore[arg-type]


@pytest.mark.parametrize(("method", "route", "query"), USES.values(), ids=USES)
def test_use_counts(
    http: httpx.Client, redis: RedisProcess, activity: str, path: str, method: str, route: str, query: dict[str, str]
) -> None:
    ask(http, method, route, query, path)
    # A runner tells of its own once a second at most.
    wait_until(lambda: redis.client.get(activity), "the moment is known")
    assert http.get("/server_info").json()["idle_time"] < 5


def test_stop_of_a_command_that_has_ended_counts(
    http: httpx.Client, server: Server, redis: RedisProcess, activity: str
) -> None:
    history, command_id = BashHistory(server.directory / "bash_events"), new_command_id()
    history.begin(command_id, "true", None, 300)
    history.add_output(command_id, 0, 0, None, None)
    http.post(f"/api/bash/bash_commands/{command_id}/stop").raise_for_status()
    assert redis.client.get(activity) is not None


@pytest.mark.parametrize(("method", "route", "query"), LOOKS.values(), ids=LOOKS)
def test_look_does_not_count(
    http: httpx.Client, redis: RedisProcess, activity: str, path: str, method: str, route: str, query: dict[str, str]
) -> None:
    ask(http, method, route, query, path)
    assert redis.client.get(activity) is None


def test_trajectory_does_not_count(
    http: httpx.Client, conversation: Conversations, redis: RedisProcess, activity: str
) -> None:
    one = conversation()
    http.get(f"/api/file/download-trajectory/{one.id}").raise_for_status()
    assert redis.client.get(activity) is None
