"""Servers of many processes: who is replaced, who goes with whom, and who gets the connections."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from uuid import uuid4

import httpx
import pytest

from service.demo.scripted_llm import ScriptedLlm
from tests.integration.contract.conversations import Conversation, Conversations
from tests.integration.contract.viewer import Viewer
from tests.redis_process import RedisProcess
from tests.server_process import FANOUT, START_SECONDS, Sandbox, Server
from tests.session_processes import Process, connections, listeners, processes_of
from tests.waiting import wait_until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are looked at in /proc")

WORKERS = 2
RUNNERS = 2
MANY = [*FANOUT, "serve", "--workers", str(WORKERS), "--runners", str(RUNNERS)]
SANIC = [sys.executable, "-m", "sanic", "service.app:create_app", "--factory"]
REPLACED_SECONDS = 5.0
STOPPED_SECONDS = 10.0
CONNECTIONS = 200
LARGEST_SHARE = 0.4


class Roles:
    """The processes of a running server, by what they are there for."""

    def __init__(self, server: Server) -> None:
        processes = processes_of(server.pid)
        self.all = processes
        self.web = [each for each in processes if each.name.startswith("fanout-web-")]
        self.redis = [each for each in processes if each.command.startswith("redis-server")]
        self.runners_parent = [each for each in processes if each.name == "fanout-runners"]
        self.runners = [each for each in processes if each.name.startswith("fanout-runner-")]

    @property
    def is_complete(self) -> bool:
        """Whether nobody is missing."""
        counts = [len(self.web), len(self.redis), len(self.runners_parent), len(self.runners)]
        return counts == [WORKERS, 1, 1, RUNNERS]


ROLES: dict[str, Callable[[Roles], list[Process]]] = {
    "web worker": lambda roles: roles.web,
    "runner": lambda roles: roles.runners,
    "parent of the runners": lambda roles: roles.runners_parent,
    "private Redis": lambda roles: roles.redis,
}

MOMENTS: dict[str, Callable[[Server], bool]] = {
    "at once": lambda server: True,
    "when it has its first child": lambda server: len(Roles(server).all) > 1,
    "when Redis starts": lambda server: bool(Roles(server).redis),
    "when a web worker starts": lambda server: bool(Roles(server).web),
    "when the runners' parent starts": lambda server: bool(Roles(server).runners_parent),
    "when a web worker listens": lambda server: listeners(server.port) > 0,
}


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Two web workers and two runners with a Redis of their own."""
    with Server(tmp_path_factory.mktemp("server"), command=MANY) as server:
        yield server


@pytest.fixture
def server(started: Server) -> Server:
    """The same, complete whatever the test before has done to it."""
    if not started.process.is_running:
        started.start()
    wait_until(lambda: Roles(started).is_complete, "every process is there", START_SECONDS)
    started.wait_ready()
    return started


@pytest.mark.parametrize("role", ROLES)
def test_killed_process_is_replaced_while_the_others_answer(
    server: Server, scripted_llm: ScriptedLlm, tmp_path: Path, role: str
) -> None:
    """Whoever is killed is there again within 5 s, no request is refused meanwhile, and agents run as before."""
    victim, *_ = ROLES[role](Roles(server))

    os.kill(victim.pid, signal.SIGKILL)
    wait_until(lambda: victim.pid not in {each.pid for each in Roles(server).all}, "the victim is dead", 2)

    def is_replaced() -> bool:
        assert server.status("/alive") == 200
        there = {each.pid for each in ROLES[role](Roles(server))}
        is_listening = listeners(server.port) == WORKERS
        return len(there) == (RUNNERS if role == "runner" else WORKERS if role == "web worker" else 1) and is_listening

    wait_until(is_replaced, f"there is another {role}", REPLACED_SECONDS)
    wait_until(lambda: Roles(server).is_complete, "every process is there", START_SECONDS)
    server.wait_ready()
    run_an_agent(server, scripted_llm, tmp_path)


def run_an_agent(server: Server, llm: ScriptedLlm, project: Path) -> None:
    """A conversation from its creation to the agent's answer."""
    with httpx.Client(base_url=server.url, timeout=30, trust_env=False) as http:
        conversations = Conversations(http, llm, str(project))
        conversation = conversations()
        conversation.run_to("finished", "SAY still here")
        assert conversation.outline == ["user", "agent: still here"]
        conversations.delete_all()


def test_web_workers_do_without_the_sdk(server: Server) -> None:
    """What the SDK loads into a process is in every runner and in no web worker."""
    roles = Roles(server)
    in_web = set[str]().union(*(each.native_modules for each in roles.web))
    in_runners = [each.native_modules for each in [*roles.runners_parent, *roles.runners]]

    assert all(any("tiktoken" in module for module in modules) for modules in in_runners)
    assert in_web
    assert not [module for module in in_web if "tiktoken" in module]


def test_killed_main_process_leaves_nothing_behind(server: Server) -> None:
    """Workers, runners and Redis go with the main process, however that ends."""
    assert_nothing_is_left_after(server, lambda: server.process.send_signal(signal.SIGKILL))


@pytest.mark.parametrize("moment", MOMENTS)
def test_sigterm_during_the_start_ends_it(tmp_path: Path, moment: str) -> None:
    """A server that is told to stop while it starts does, whatever it is at, and leaves nothing behind."""
    assert_start_can_be_ended(tmp_path, MOMENTS[moment], signal.SIGTERM)


def test_web_worker_killed_during_the_start_is_replaced(redis_process: RedisProcess, tmp_path: Path) -> None:
    """A start goes on when a worker is killed before it has ever served."""
    with web_only(redis_process, tmp_path, WORKERS) as web:
        web.process.start()
        web.process.wait_until(lambda: len(Roles(web).web) == WORKERS, "the workers start", START_SECONDS)
        victim, *_ = Roles(web).web
        assert listeners(web.port) == 0

        os.kill(victim.pid, signal.SIGKILL)

        web.process.wait_until(lambda: listeners(web.port) == WORKERS, "both workers listen", START_SECONDS)
        assert victim.pid not in {each.pid for each in Roles(web).web}


@contextmanager
def web_only(redis: RedisProcess, directory: Path, workers: int) -> Iterator[Server]:
    """`fanout web`, not started yet: without a runner it never becomes ready."""
    environment = {"REDIS_URL": redis.url, "OH_REDIS_NAMESPACE": "web-only"}
    web = Server(directory, environment, [*FANOUT, "web", "--workers", str(workers)])
    try:
        yield web
    finally:
        web.close()


def test_main_process_killed_during_the_start_leaves_nothing_behind(tmp_path: Path) -> None:
    """A web worker that is still being imported when its parent dies does not go on alone."""
    assert_start_can_be_ended(tmp_path, MOMENTS["when a web worker starts"], signal.SIGKILL)


def assert_start_can_be_ended(directory: Path, moment: Callable[[Server], bool], number: signal.Signals) -> None:
    """Start a server, send its main process a signal at a moment, and look at what is left."""
    server = Server(directory, command=MANY)
    try:
        server.process.start()
        server.process.wait_until(lambda: moment(server), "the moment comes", START_SECONDS)
        assert_nothing_is_left_after(server, lambda: server.process.send_signal(number))
    finally:
        server.close()


def assert_nothing_is_left_after(server: Server, end: Callable[[], None]) -> None:
    """End the main process; its session must be empty and its port free soon after."""
    session_id = server.pid
    end()
    try:
        server.process.wait_exit(STOPPED_SECONDS)
        wait_until(lambda: not processes_of(session_id), "no process is left", STOPPED_SECONDS)
    finally:
        for orphan in processes_of(session_id):
            os.kill(orphan.pid, signal.SIGKILL)
    assert listeners(server.port) == 0


def test_connections_are_spread_evenly_over_web_workers(redis_process: RedisProcess, tmp_path: Path) -> None:
    """Of 200 connections no worker of four gets more than 40 %."""
    with ExitStack() as stack:
        web = stack.enter_context(web_only(redis_process, tmp_path, 4))
        web.process.start()
        web.process.wait_until(lambda: listeners(web.port) == 4, "four workers listen", START_SECONDS)

        for _ in range(CONNECTIONS):
            stack.enter_context(answered_connection(web.port))

        accepted = connections(web.port, Roles(web).web)
    assert len(accepted) == 4
    assert sum(accepted.values()) == CONNECTIONS
    assert max(accepted.values()) <= LARGEST_SHARE * CONNECTIONS, accepted


def answered_connection(port: int) -> socket.socket:
    """A connection that a worker has taken: it has answered a request, and stays open."""
    connection = socket.create_connection(("127.0.0.1", port), timeout=START_SECONDS)
    connection.sendall(b"GET /alive HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert connection.recv(4096).startswith(b"HTTP/1.1 200")
    return connection


@pytest.mark.heavy
def test_sanic_command_line_serves_completely(scripted_llm: ScriptedLlm, tmp_path: Path) -> None:
    """`sanic service.app:create_app --factory --workers 2` is a whole server: it adds a runner and a Redis."""
    with Server(tmp_path / "server", command=[*SANIC, "--workers", "2"]) as server:
        roles = Roles(server)
        assert [len(roles.web), len(roles.runners), len(roles.redis)] == [2, 1, 1]
        run_an_agent(server, scripted_llm, tmp_path)

        session_id = server.pid
        assert server.terminate() == 0
        wait_until(lambda: not processes_of(session_id), "no process is left", STOPPED_SECONDS)


def test_sanic_command_line_adds_as_many_runners_as_it_is_told(redis_process: RedisProcess, tmp_path: Path) -> None:
    """With `OH_RUNNERS=0` and a Redis there are web workers only, which say what they miss."""
    environment = {"REDIS_URL": redis_process.url, "OH_REDIS_NAMESPACE": "web-only", "OH_RUNNERS": "0"}
    server = Server(tmp_path, environment, [*SANIC, "--workers", "2"])
    try:
        server.process.start()
        server.process.wait_until(lambda: server.status("/alive") == 200, "it answers", START_SECONDS)
        wait_until(
            lambda: "No runner is up yet" in httpx.get(f"{server.url}/ready", trust_env=False).text, "it says so"
        )
        roles = Roles(server)
        assert [len(roles.web), len(roles.runners_parent), len(roles.redis)] == [2, 0, 0]
    finally:
        server.close()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["web"], "REDIS_URL"),
        (["runner"], "REDIS_URL"),
        (["serve", "--workers", "2"], "apt-get install redis-server"),
        (["serve", "--runners", "2"], "REDIS_URL"),
    ],
    ids=["web", "runner", "many workers", "many runners"],
)
def test_missing_redis_ends_the_start_with_one_line(tmp_path: Path, arguments: list[str], says: str) -> None:
    """Roles that need a Redis and find none say in one line what to install or set."""
    line = last_words(tmp_path, [*FANOUT, *arguments], {"PATH": str(tmp_path)})

    assert line.startswith("fanout: ")
    assert says in line


@pytest.mark.parametrize("workers", ["1", "2"])
def test_taken_port_ends_the_start_with_one_line(tmp_path: Path, workers: str) -> None:
    """A second server never shares a port with the first, although workers of one server share theirs."""
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        line = last_words(
            tmp_path, [*FANOUT, "serve", "--workers", workers, "--host", "127.0.0.1", "--port", str(port)]
        )

    assert line == f"fanout: cannot listen on 127.0.0.1:{port}: Address already in use"


def last_words(directory: Path, command: list[str], environment: dict[str, str] | None = None) -> str:
    """The one line that a command says on standard error when it refuses to start."""
    sandbox = Sandbox(directory, environment)
    ended = subprocess.run(
        command,
        cwd=directory,
        env=sandbox.environment,
        capture_output=True,
        text=True,
        timeout=START_SECONDS,
        check=False,
    )
    sandbox.close()
    assert ended.returncode == 1
    assert ended.stdout == ""
    [line] = ended.stderr.splitlines()
    return line


@pytest.fixture
def deployments(
    redis_process: RedisProcess, scripted_llm: ScriptedLlm, tmp_path: Path
) -> Iterator[dict[str, Conversations]]:
    """Two whole servers on one Redis, empty but for them, by their namespaces; each has its own directory."""
    redis_process.client.flushall()
    servers = {
        name: Server(tmp_path / name, {"REDIS_URL": redis_process.url, "OH_REDIS_NAMESPACE": name})
        for name in ("one", "other")
    }
    with ExitStack() as stack:
        for server in servers.values():
            stack.callback(server.close)
            server.process.start()
        for server in servers.values():
            server.wait_ready()
        clients = {
            name: stack.enter_context(httpx.Client(base_url=server.url, timeout=30, trust_env=False))
            for name, server in servers.items()
        }
        yield {name: Conversations(http, scripted_llm, str(tmp_path)) for name, http in clients.items()}


def test_deployments_with_different_namespaces_do_not_see_each_other(
    deployments: dict[str, Conversations], redis_process: RedisProcess
) -> None:
    """Two servers on one Redis hold conversations of the same id, and each hears of its own only."""
    one, other = deployments["one"], deployments["other"]
    chosen = str(uuid4())
    mine, yours, unseen = one(conversation_id=chosen), other(conversation_id=chosen), one()
    assert Conversation(other.http, unseen.id, other.llm).get().status_code == 404

    with Viewer(mine) as my_viewer, Viewer(yours) as your_viewer:
        mine.run_to("finished", "SAY mine")
        yours.run_to("finished", "SAY yours")
        assert answers(my_viewer) == ["agent: mine"]
        assert answers(your_viewer) == ["agent: yours"]

    assert listed(one) == {chosen, unseen.id}
    assert listed(other) == {chosen}
    assert {str(key).partition(":")[0] for key in redis_process.client.scan_iter()} == {"one", "other"}


def answers(viewer: Viewer) -> list[str]:
    """What the agent has said until the run ended."""
    return [line for line in viewer.until("full_state=finished") if line.startswith("agent: ")]


def listed(conversations: Conversations) -> set[str]:
    """The ids of a deployment's conversations."""
    page = conversations.http.get("/api/conversations/search").raise_for_status().json()
    return {item["id"] for item in page["items"]}
