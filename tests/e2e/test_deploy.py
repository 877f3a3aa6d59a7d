"""What is in `deploy/` and the Procfile, started as it says, and used as a newcomer would."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import httpx
import pytest

from service.demo.scripted_llm import ScriptedLlm
from service.settings import Settings
from tests.child_process import ChildProcess
from tests.compose_processes import ENTRYPOINT, ComposeProcesses, read_compose
from tests.server_process import REPOSITORY, START_SECONDS, Sandbox, free_port
from tests.waiting import wait_until

KEY = "key-of-the-tests"
VARIABLES = {"FANOUT_API_KEY": KEY, "FANOUT_SECRET_KEY": "secret-of-the-tests", "FANOUT_REDIS_PASSWORD": "of-redis"}


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComposeProcesses]:
    """The whole stack of compose.yaml, healthy."""
    with ComposeProcesses(tmp_path_factory.mktemp("compose"), VARIABLES) as stack:
        yield stack


def hold_a_conversation(url: str, headers: dict[str, str], llm: ScriptedLlm, folder: Path) -> None:
    """The README's: an agent runs a command, and says what it was told to."""
    conversation = f"/api/conversations/{uuid4()}"
    body = {
        "conversation_id": conversation.rsplit("/", 1)[1],
        "agent": {"kind": "Agent", "llm": llm.settings, "tools": [{"name": "terminal", "params": {}}]},
        "workspace": {"working_dir": str(folder)},
    }
    words = 'CALL terminal {"command": "echo it works"}\nSAY that was it'
    message = {"role": "user", "content": [{"type": "text", "text": words}], "run": True}
    with httpx.Client(base_url=url, headers=headers, timeout=60, trust_env=False) as client:
        client.post("/api/conversations", json=body).raise_for_status()
        client.post(f"{conversation}/events", json=message).raise_for_status()
        wait_until(
            lambda: client.get(conversation).raise_for_status().json()["execution_status"] == "finished",
            "the agent has finished",
            60,
        )
        events = client.get(f"{conversation}/events/search?limit=100").raise_for_status().text
    assert "it works" in events
    assert "that was it" in events


def test_compose_stack_serves(stack: ComposeProcesses, scripted_llm: ScriptedLlm, tmp_path: Path) -> None:
    """Through the balancer, with the key; each service is healthy by its own check."""
    hold_a_conversation(stack.url, {"x-session-api-key": KEY}, scripted_llm, tmp_path)
    assert all(map(stack.is_healthy, stack.children))


def test_agents_of_the_compose_stack_find_it(stack: ComposeProcesses) -> None:
    """The address that the SDK's tools read is the balancer's."""
    answer = httpx.post(
        f"{stack.url}/api/bash/execute_bash_command",
        json={"command": "echo $OH_INTERNAL_SERVER_URL"},
        headers={"x-session-api-key": KEY},
        trust_env=False,
    )
    assert answer.json()["stdout"].strip() == stack.url


def test_compose_stack_keeps_strangers_out(stack: ComposeProcesses) -> None:
    """No key, no service; and the numbers of its insides are not for the outside."""
    assert httpx.get(f"{stack.url}/api/conversations/count", trust_env=False).status_code == 401
    assert httpx.get(f"{stack.url}/metrics", trust_env=False).status_code == 404


def test_compose_stops_as_it_says(stack: ComposeProcesses) -> None:
    """Every service of ours ends by itself, in less than compose waits for."""
    services = read_compose(VARIABLES)["services"]
    for name, child in list(stack.children.items())[::-1]:
        grace = services[name.rstrip("-0123456789") if name not in services else name].get("stop_grace_period", "10s")
        assert child.terminate(float(grace.rstrip("s"))) in (0, 128 + signal.SIGTERM, -signal.SIGTERM), name


def test_compose_waits_longer_than_the_drain() -> None:
    """Docker's SIGKILL must not come before a runner has handed over."""
    for name, service in read_compose({})["services"].items():
        if service["image"] == "fanout":
            drain_seconds = float(service["environment"]["OH_DRAIN_SECONDS"])
            assert float(service["stop_grace_period"].rstrip("s")) >= drain_seconds + 10, name
            names = {f"OH_{field.upper()}" for field in Settings.model_fields} | {"LOG_JSON", "REDIS_URL"}
            assert {each.removesuffix("_0") for each in service["environment"]} <= names


def entrypoint(directory: Path, environment: dict[str, str], *arguments: str) -> ChildProcess:
    """The image's entry point with these arguments, as `docker run IMAGE` gives them."""
    path = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    return ChildProcess("image", [str(ENTRYPOINT), *arguments], directory, environment | path)


@pytest.mark.heavy
def test_image_can_replace_the_published_one(tmp_path: Path, scripted_llm: ScriptedLlm) -> None:
    """The SDK's DockerWorkspace passes `--host 0.0.0.0 --port <n>` and the key, and waits for /health."""
    (tmp_path / "key").write_text(f"{KEY}\n")
    sandbox = Sandbox(tmp_path / "server", {"OH_SESSION_API_KEYS_0_FILE": str(tmp_path / "key")})
    port = free_port()
    image = entrypoint(sandbox.directory, sandbox.environment, "--host", "0.0.0.0", "--port", str(port))
    image.start()
    try:
        url = f"http://127.0.0.1:{port}"
        image.wait_until(lambda: answers(f"{url}/health"), "it is healthy", START_SECONDS)
        image.wait_until(lambda: answers(f"{url}/ready"), "it is ready", START_SECONDS)
        hold_a_conversation(url, {"x-session-api-key": KEY}, scripted_llm, tmp_path)
    finally:
        image.close()
        sandbox.close()


@pytest.mark.heavy
def test_procfile_serves(tmp_path: Path, scripted_llm: ScriptedLlm) -> None:
    """`honcho start` in a clone is a deployment of web servers, runners and Redis."""
    port = free_port()
    numbers = {"WEB_PORT": str(port), "REDIS_PORT": str(free_port()), "RUNNERS": "1"}
    sandbox = Sandbox(tmp_path / "processes", numbers)
    honcho = ["sh", "-c", f"cd {REPOSITORY} && exec {sys.executable} -m honcho start"]
    processes = ChildProcess("honcho", honcho, sandbox.directory, sandbox.environment)
    processes.start()
    try:
        url = f"http://127.0.0.1:{port}"
        processes.wait_until(lambda: answers(f"{url}/ready"), "it is ready", START_SECONDS)
        hold_a_conversation(url, {}, scripted_llm, tmp_path)
        began = time.monotonic()
        processes.terminate()
        assert time.monotonic() - began < 30
    finally:
        processes.close()
        sandbox.close()


def answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5, trust_env=False).is_success
    except httpx.TransportError:
        return False


def test_entrypoint_is_plain_sh() -> None:
    """The image's shell is dash."""
    subprocess.run(["sh", "-n", str(ENTRYPOINT)], check=True)
