"""`fanout demo`: what a newcomer sees first."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.server_process import REPOSITORY

STOP_SECONDS = 30.0


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """The demo, started, with its output readable line by line and its files below `tmp_path`."""
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "TMPDIR": str(tmp_path), "COLUMNS": "120"}
    with subprocess.Popen(
        [sys.executable, "-m", "service", "demo"],
        cwd=REPOSITORY,
        env=environment | {"PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": "utf-8"},
        stdout=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        start_new_session=True,
    ) as process:
        yield process
        process.kill()


def test_demo_shows_the_conversation_and_succeeds(demo: subprocess.Popen[str], tmp_path: Path) -> None:
    """The demo shows what the agent did, in order, exits with 0 and leaves no files."""
    shown = demo.communicate(timeout=100)[0]

    places = [
        shown.find(text) for text in ("You", "status: running", "Action: terminal", "5 squared is 25", "finished")
    ]
    assert demo.returncode == 0, shown
    assert sorted(places) == places
    assert -1 not in places
    assert list(tmp_path.glob("fanout-demo-*")) == []


@pytest.mark.heavy
def test_interrupted_demo_cleans_up(demo: subprocess.Popen[str], tmp_path: Path) -> None:
    """Ctrl-C in the middle of the run ends the demo with 130; neither its server nor its files are left."""
    assert demo.stdout is not None
    before = []
    for line in demo.stdout:
        before.append(line)
        if "status: running" in line:
            break
    address = next(line for line in before if "http://127.0.0.1:" in line)
    port = int(address.split("http://127.0.0.1:")[1].split()[0])

    demo.send_signal(signal.SIGINT)

    assert demo.wait(STOP_SECONDS) == 130
    assert list(tmp_path.glob("fanout-demo-*")) == []
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))
