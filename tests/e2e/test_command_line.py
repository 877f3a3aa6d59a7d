"""`fanout doctor` and `fanout conversations`, as an operator uses them."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from service.cli import cli
from tests.e2e.remote_client import RemoteClient, run, send, terminal
from tests.redis_process import RedisProcess
from tests.server_process import FANOUT, Server, free_port

HERE = {"OH_HOST": "127.0.0.1"}


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the developer's is looked at."""
    monkeypatch.chdir(tmp_path)


def fanout(*arguments: str, **environment: str) -> Result:
    return CliRunner().invoke(cli, list(arguments), env={"COLUMNS": "200", **environment})


def test_conversation_is_listed_shown_and_followed(client: RemoteClient, server: Server) -> None:
    """What the server has is told, the events as they are stored and in their order."""
    conversation = client.start()
    send(conversation, terminal("echo from the terminal"), "SAY all done [here]")
    run(conversation)
    of_server = {"FANOUT_URL": server.url}

    listed = fanout("conversations", "list", **of_server)
    shown = fanout("conversations", "show", str(conversation.id), **of_server)
    followed = fanout("conversations", "tail", str(conversation.id), "--all", "--until-ended", **of_server)
    as_json = fanout("conversations", "tail", str(conversation.id), "--all", "--until-ended", "--json", **of_server)

    assert str(conversation.id) in listed.output
    assert "finished" in listed.output
    assert re.search(r"last answer\s+all done \[here\]", shown.output)
    assert followed.output.index("echo from the terminal") < followed.output.index("all done [here]")
    kinds = [json.loads(line)["kind"] for line in as_json.stdout.splitlines()]
    assert [kind for kind in kinds if kind.startswith(("Action", "Observation"))] == ["ActionEvent", "ObservationEvent"]


def test_what_is_wrong_is_one_line(server: Server) -> None:
    """No traceback for an id that is not there, or a server that is not."""
    unknown = fanout("conversations", "tail", "6b1f0d5e-3c0f-4b52-9f54-0d5a2a4f7c11", FANOUT_URL=server.url)
    nobody = fanout("conversations", "list", FANOUT_URL=f"http://127.0.0.1:{free_port()}")

    assert "404" in str(unknown.exception)
    assert "no answer" in str(nobody.exception)
    assert unknown.exit_code == nobody.exit_code == 1


@pytest.mark.parametrize(("key", "is_said"), [("", True), ("a-key", False)])
def test_serving_everybody_without_a_key_is_said_in_the_log(server: Server, key: str, is_said: bool) -> None:
    """Before it listens; here its port is another server's."""
    environment = os.environ | {"OH_HOST": "0.0.0.0", "OH_PORT": str(server.port), "OH_SESSION_API_KEYS_0": key}
    ended = subprocess.run([*FANOUT, "serve"], env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert ("set OH_SESSION_API_KEYS_0" in ended.stderr) == is_said


def test_doctor_finds_nothing_here() -> None:
    """Where all is well the exit status says so, and nothing is left behind."""
    result = fanout("doctor", **HERE)

    assert result.exit_code == 0, result.output
    assert "problem" not in result.output
    assert not list(Path.cwd().rglob(".fanout-doctor-*"))


def test_doctor_finds_an_open_server_and_a_redis_that_is_not_there() -> None:
    """Both are problems, and both are explained."""
    result = fanout("doctor", OH_HOST="0.0.0.0", REDIS_URL=f"redis://127.0.0.1:{free_port()}")

    assert result.exit_code == 1
    assert "set OH_SESSION_API_KEYS_0" in result.output
    assert "does not answer" in result.output


def test_doctor_finds_a_redis_that_forgets(tmp_path: Path) -> None:
    """A lease must not be evicted, and a subscriber not be cut off early."""
    with RedisProcess(tmp_path / "redis") as redis:
        redis.client.config_set("maxmemory", "100mb")
        redis.client.config_set("maxmemory-policy", "allkeys-lru")
        result = fanout("doctor", REDIS_URL=redis.url, **HERE)

    assert result.exit_code == 1
    assert "noeviction" in result.output
    assert "client-output-buffer-limit" in result.output
    assert "none is up" in result.output
