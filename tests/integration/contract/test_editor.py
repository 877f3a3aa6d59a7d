"""Editor and desktop: one of each for all runners of a host, found from any web worker. Stand-ins for the programs."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from service.demo.scripted_llm import ScriptedLlm
from tests.cluster_process import Cluster
from tests.integration.contract.conversations import Conversation, Conversations
from tests.server_process import Server, free_port
from tests.waiting import wait_until

_EDITOR = """#!/usr/bin/env python3
import json, os, subprocess, sys, time
arguments = sys.argv[1:]
child = subprocess.Popen(["sleep", "600"])
with open(os.environ["EDITOR_LOG"], "a") as log:
    log.write(json.dumps({"pid": os.getpid(), "child": child.pid, "arguments": arguments,
                          "secret": os.environ.get("OH_SECRET_KEY")}) + "\\n")
print("Server bound to 0.0.0.0", flush=True)
while True:
    print("x" * 65536, flush=True)  # nobody may let the pipe fill up
    open(os.environ["EDITOR_LOG"] + ".alive", "w").close()
    time.sleep(0.05)
"""


class Stand:
    """What stands for the editor, and what it has told."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.directory.mkdir(exist_ok=True)
        self.log = directory / "editor.log"
        program = directory / "editor" / "bin" / "openvscode-server"
        program.parent.mkdir(parents=True)
        (directory / "editor" / "extensions").mkdir()
        program.write_text(_EDITOR)
        program.chmod(0o755)
        self.port = free_port()
        temporary = directory / "tmp"
        temporary.mkdir()
        self.environment = {
            "OH_ENABLE_VSCODE": "true",
            "OH_VSCODE_PATH": str(directory / "editor"),
            "OH_VSCODE_PORT": str(self.port),
            "OH_VSCODE_BASE_PATH": "rt/vscode",
            "EDITOR_LOG": str(self.log),
            "TMPDIR": str(temporary),
        }

    @property
    def started(self) -> list[dict[str, Any]]:
        """Each start, in order."""
        return [json.loads(line) for line in self.log.read_text().splitlines()] if self.log.exists() else []


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def is_running(http: httpx.Client) -> bool:
    found: bool = http.get("/api/vscode/status").raise_for_status().json()["running"]
    return found


@pytest.fixture
def short_directory() -> Iterator[Path]:
    """A temporary folder for servers, whose sockets' names may have 107 characters."""
    with TemporaryDirectory() as directory:
        yield Path(directory)


@pytest.fixture(scope="module")
def stand() -> Iterator[Stand]:
    with TemporaryDirectory() as directory:
        yield Stand(Path(directory))


@pytest.fixture(scope="module")
def cluster(stand: Stand, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Two web servers and two runners."""
    with Cluster(tmp_path_factory.mktemp("cluster"), stand.environment) as running:
        yield running


@pytest.fixture
def http(cluster: Cluster) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=cluster.url, timeout=30, trust_env=False) as client:
        wait_until(lambda: is_running(client), "the editor runs")
        yield client


@pytest.fixture
def one(http: httpx.Client, scripted_llm: ScriptedLlm, cluster: Cluster) -> Conversation:
    return Conversations(http, scripted_llm, str(cluster.directory / "project"))()


def test_every_worker_tells_of_the_one_editor(cluster: Cluster, http: httpx.Client, stand: Stand) -> None:
    """With a token of its own, in a URL that a browser can take; the server's secrets are not in its environment."""
    [started] = stand.started
    token = started["arguments"][started["arguments"].index("--connection-token") + 1]
    assert len(token) >= 32
    assert started["secret"] is None
    assert started["arguments"] == [
        *["--host", "0.0.0.0", "--connection-token", token, "--port", str(stand.port)],
        *["--extensions-dir", str(stand.directory / "editor" / "extensions")],
        *["--server-base-path", "/rt/vscode", "--disable-workspace-trust"],
    ]
    urls = {httpx.get(f"{url}/api/vscode/url", trust_env=False).json()["url"] for url in cluster.web_urls}
    assert urls == {f"http://localhost:{stand.port}/rt/vscode/?tkn={token}&folder=workspace"}
    wanted = {"base_url": "https://x.example/p/", "workspace_dir": "/a b&c"}
    url = http.get("/api/vscode/url", params=wanted).json()["url"]
    assert url == f"https://x.example/p/rt/vscode/?tkn={token}&folder=/a%20b%26c"


def test_conversation_has_its_folder(http: httpx.Client, one: Conversation) -> None:
    """And no other than what is in it."""
    folder = one.info["workspace"]["working_dir"]
    url = http.get(f"{one.path}/vscode/url").raise_for_status().json()["url"]
    assert parse_qs(urlsplit(url).query)["folder"] == [folder]
    assert http.get(f"{one.path}/vscode/status").json() == {"running": True, "enabled": True}
    refused = http.get(f"{one.path}/vscode/url", params={"workspace_dir": "/etc"})
    assert (refused.status_code, refused.json()["detail"]) == (
        422,
        "workspace_dir must be inside the conversation workspace",
    )
    assert http.get("/api/conversations/00000000-0000-4000-8000-000000000000/vscode/url").status_code == 404


def test_editor_that_ends_is_started_again(http: httpx.Client, stand: Stand) -> None:
    """With another token; what was left of its group has been ended."""
    before = stand.started[-1]
    os.kill(before["pid"], signal.SIGKILL)
    wait_until(lambda: len(stand.started) > 1 and is_running(http), "the editor runs again")
    assert not is_alive(before["child"])
    assert stand.started[-1]["arguments"][3] != before["arguments"][3]


def test_another_runner_takes_over(cluster: Cluster, http: httpx.Client, stand: Stand) -> None:
    """The one that kept the editor was killed and could not end it."""
    before = stand.started[-1]
    keeper = int(Path(f"/proc/{before['pid']}/stat").read_text().rsplit(")", 1)[1].split()[1])
    os.kill(keeper, signal.SIGKILL)
    wait_until(lambda: stand.started[-1]["pid"] != before["pid"], "the editor is started anew")
    wait_until(lambda: is_running(http), "the editor runs again")
    assert not is_alive(before["pid"])
    assert not is_alive(before["child"])


def test_output_is_drained_and_the_group_ends_with_the_server(short_directory: Path, tmp_path: Path) -> None:
    """A script's children, too. The status is false before."""
    stand = Stand(short_directory / "alone")
    with Server(tmp_path / "server", stand.environment) as server:
        with httpx.Client(base_url=server.url, timeout=30, trust_env=False) as http:
            wait_until(lambda: is_running(http), "the editor runs")
        [started] = stand.started
        alive = Path(f"{stand.log}.alive")
        for _ in range(4):  # each after 64 KiB more of output
            wait_until(alive.exists, "the editor goes on")
            alive.unlink()
        server.terminate()
        assert not is_alive(started["pid"])
        assert not is_alive(started["child"])


def test_missing_editor_does_not_run(short_directory: Path, tmp_path: Path) -> None:
    """The server serves; there is no URL."""
    environment = {"OH_ENABLE_VSCODE": "true", "OH_VSCODE_PATH": "/none", "TMPDIR": str(short_directory)}
    with Server(tmp_path / "server", environment) as server, httpx.Client(base_url=server.url, trust_env=False) as http:
        assert http.get("/api/vscode/status").json() == {"running": False, "enabled": True}
        assert http.get("/api/vscode/url").json() == {"url": None}


def test_what_is_disabled_says_so(server: Server) -> None:
    """As in the contract, with the text where clients look for it."""
    with httpx.Client(base_url=server.url, trust_env=False) as http:
        assert http.get("/api/vscode/status").json() == {
            "running": False,
            "enabled": False,
            "message": "VSCode is disabled in configuration",
        }
        for path, name, setting in (
            ("/api/vscode/url", "VSCode", "enable_vscode"),
            ("/api/desktop/url", "Desktop", "enable_vnc"),
        ):
            answer = http.get(path)
            assert answer.status_code == 503
            text = f"503: {name} is disabled in configuration. Set {setting}=true to enable."
            assert answer.json()["exception"] == text
            assert "retry-after" not in answer.headers


_DESKTOP = {
    "vncpasswd": '#!/bin/sh\nprintf "hidden:"; cat\n',
    "vncserver": '#!/bin/sh\necho "$@" >> "$DESKTOP_LOG"\n',
    "novnc_proxy": '#!/bin/sh\necho proxy "$@" >> "$DESKTOP_LOG"\nexec python3 -m http.server "${2#*:}"\n',
}


def test_desktop_has_a_password(short_directory: Path, tmp_path: Path) -> None:
    """It is in the URL's fragment, and what VNC asks for is in its file; the X server ends with the server."""
    programs, log, port = short_directory / "bin", short_directory / "desktop.log", free_port()
    programs.mkdir()
    for name, script in _DESKTOP.items():
        (programs / name).write_text(script)
        (programs / name).chmod(0o755)
    environment = {
        "OH_ENABLE_VNC": "true",
        "NOVNC_PORT": str(port),
        "OH_VNC_DISPLAY": ":77",
        "DESKTOP_LOG": str(log),
        "PATH": f"{programs}:{os.environ['PATH']}",
        "TMPDIR": str(short_directory),
    }
    with Server(tmp_path / "server", environment) as server:
        with httpx.Client(base_url=server.url, trust_env=False) as http:
            get_url = lambda: http.get("/api/desktop/url", params={"base_url": "http://h/"}).json()["url"]  # noqa: E731
            url = wait_until(get_url, "the desktop runs")
        address, _, password = url.partition("#password=")
        assert address == "http://h/vnc.html?autoconnect=1&resize=remote"
        assert (server.directory / "home" / ".vnc" / "passwd").read_text() == f"hidden:{password}"
        server.terminate()
    lines = log.read_text().splitlines()
    passwords = server.directory / "home" / ".vnc" / "passwd"
    assert lines == [
        "-kill :77",
        f":77 -geometry 1280x800 -depth 24 -localhost yes -SecurityTypes VncAuth -rfbauth {passwords}",
        f"proxy --listen 0.0.0.0:{port} --vnc 127.0.0.1:5977 --web /opt/novnc-web",
        "-kill :77",
    ]
