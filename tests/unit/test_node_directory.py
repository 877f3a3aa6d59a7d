"""A node's temporary directory: nobody else's, and gone with it."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from unittest.mock import patch

from service.node_directory import make_node_directory, remove_node_directory
from service.private_redis import socket_in
from tests.server_process import REPOSITORY

_LIVING = (
    "import sys; from service.node_directory import make_node_directory; "
    "print(make_node_directory(), flush=True); sys.stdin.read()"
)


def living(temporary: Path) -> tuple[subprocess.Popen[str], Path]:
    """The main process of a node, and its directory."""
    process = subprocess.Popen(
        [sys.executable, "-c", _LIVING],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(REPOSITORY), "TMPDIR": str(temporary)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


def test_next_start_removes_what_a_killed_one_has_left() -> None:
    """And nothing of who still lives."""
    with ExitStack() as stack:
        temporary = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        killed, left = living(temporary)
        other, kept = living(temporary)
        for each in (killed, other):
            stack.enter_context(each)
            stack.callback(each.kill)
        assert left.exists()
        killed.kill()
        killed.wait()
        third, _ = living(temporary)
        stack.enter_context(third)
        stack.callback(third.kill)
        assert (left.exists(), kept.exists()) == (False, True)


def test_nodes_do_not_share_a_redis_that_is_their_own(tmp_path: Path) -> None:
    """Also where they keep their conversations side by side; and a socket's path is short enough to be listened on."""
    with patch.object(tempfile, "tempdir", str(tmp_path / ("x" * 100))):
        directories = [make_node_directory() for _ in range(2)]
    try:
        sockets = [socket_in(directory) for directory in directories]
        assert sockets[0] != sockets[1]
        assert all(len(os.fsencode(socket)) < 100 for socket in sockets)
        assert all(directory.stat().st_mode & 0o777 == 0o700 for directory in directories)
    finally:
        for directory in directories:
            remove_node_directory(directory)
