"""Steering a command that runs: input, a terminal, signals."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from tests.integration.contract.bash import Bash
from tests.integration.contract.conversations import Conversations
from tests.waiting import wait_until

UNKNOWN = "00000000-0000-4000-8000-000000000000"


@pytest.fixture(params=["machine", "conversation"])
def bash(request: pytest.FixtureRequest, http: httpx.Client, conversation: Conversations) -> Bash:
    """The routes of each scope."""
    return Bash(http) if request.param == "machine" else Bash(http, f"{conversation().path}/bash")


def test_command_reads_what_it_is_sent_in_order(bash: Bash) -> None:
    """Then an end, after which it takes no more."""
    command_id = bash.start("cat; echo over", stdin=True)["id"]
    bash.send(command_id, text="one\n")
    bash.send(command_id, text="zwölf\n", eof=True)
    output = bash.wait_ended(command_id)
    assert (output["stdout"], output["exit_code"]) == ("one\nzwölf\nover\n", 0)
    assert bash.steer(command_id, "input", text="late").status_code == 409


def test_command_without_input_reads_an_end(bash: Bash, tmp_path: Path) -> None:
    """As in the contract; and it is told to whom sends some."""
    assert bash.execute("cat; echo over")["stdout"] == "over\n"
    command_id = bash.start(f"until [ -e {tmp_path}/go ]; do sleep 0.05; done")["id"]
    refused = bash.steer(command_id, "input", text="x")
    assert (refused.status_code, refused.json()["detail"]) == (
        409,
        "The command was started without input, or its input has been closed.",
    )
    assert bash.steer(command_id, "resize", columns=100).status_code == 409
    (tmp_path / "go").touch()
    bash.wait_ended(command_id)


def test_input_that_is_not_read_is_bounded(bash: Bash, tmp_path: Path) -> None:
    """A request is refused whole; what was taken before is still read."""
    half = "x" * (1 << 19)
    command_id = bash.start(f"until [ -e {tmp_path}/go ]; do sleep 0.05; done; wc -c", stdin=True)["id"]
    bash.send(command_id, text=half)
    taken = 1
    while (answer := bash.steer(command_id, "input", text=half)).status_code == 200:
        taken += 1
        assert taken < 4
    assert (answer.status_code, answer.json()["detail"]) == (409, "The command does not read its input.")
    (tmp_path / "go").touch()
    wait_until(lambda: bash.steer(command_id, "input", eof=True).status_code == 200, "the end is taken")
    assert bash.wait_ended(command_id)["stdout"] == f"{taken * len(half)}\n"


def test_reader_that_closes_its_input_is_left_alone(bash: Bash) -> None:
    """Nothing of ours dies of the broken pipe."""
    command_id = bash.start("exec <&-; sleep 0.2; echo alive", stdin=True)["id"]
    bash.steer(command_id, "input", text="x" * (1 << 19))
    output = bash.wait_ended(command_id)
    assert (output["stdout"], output["exit_code"]) == ("alive\n", 0)


def test_terminal_is_one_with_its_size(bash: Bash) -> None:
    """It is the controlling terminal; everything printed is stdout."""
    command = "test -t 0 && test -t 1 && test -t 2 && stty size </dev/tty; echo err >&2; echo $TERM"
    output = bash.execute(command, pty=True, size={"columns": 132, "rows": 50})
    assert (output["stdout"], output["stderr"]) == ("50 132\r\nerr\r\nxterm-256color\r\n", None)


def test_terminal_takes_lines_and_keys(bash: Bash) -> None:
    """What is typed is echoed; Ctrl-C reaches what is in the foreground, and the end is Ctrl-D."""
    command = "trap 'echo caught' INT; read line; echo got $line; cat; echo over"
    command_id = bash.start(command, pty=True)["id"]
    bash.send(command_id, text="hello\n")
    bash.wait_shown(command_id, "got hello")
    bash.send(command_id, text="", eof=True)
    assert bash.wait_ended(command_id)["stdout"] == "hello\r\ngot hello\r\nover\r\n"

    command_id = bash.start("sleep 60", pty=True)["id"]
    bash.send(command_id, text="\x03")
    assert bash.wait_ended(command_id)["exit_code"] == -2


def test_terminal_is_resized(bash: Bash) -> None:
    """The program is told."""
    command = "trap 'stty size; exit' WINCH; echo ready; while :; do sleep 0.05; done"
    command_id = bash.start(command, pty=True)["id"]
    bash.wait_shown(command_id, "ready")
    bash.steer(command_id, "resize", columns=40, rows=10).raise_for_status()
    assert bash.wait_ended(command_id)["stdout"] == "ready\r\n10 40\r\n"


def test_interactive_shell_keeps_its_state(bash: Bash) -> None:
    """A session of several commands, with job control."""
    command_id = bash.start("exec bash --norc -i", pty=True)["id"]
    bash.send(command_id, text="PS1=; cd /; X=7\n")
    bash.send(command_id, text="echo $((X*6)) $PWD; sleep 60\n")
    bash.wait_shown(command_id, "42 /")
    bash.send(command_id, text="\x03")
    bash.send(command_id, text="echo still $((X+1)); exit 3\n")
    output = bash.wait_ended(command_id)
    assert output["exit_code"] == 3
    assert "still 8" in output["stdout"]


def test_signal_reaches_the_group(bash: Bash, tmp_path: Path) -> None:
    """Also one that a command handles."""
    command = f"trap 'echo usr1; exit 5' USR1; touch {tmp_path}/ready; while :; do sleep 0.05; done"
    command_id = bash.start(command)["id"]
    wait_until((tmp_path / "ready").exists, "the command handles the signal")
    bash.steer(command_id, "signal", signal="SIGUSR1").raise_for_status()
    output = bash.wait_ended(command_id)
    assert (output["stdout"], output["exit_code"]) == ("usr1\n", 5)


def test_stop_ends_a_terminals_session(bash: Bash) -> None:
    """An interactive shell ignores SIGTERM; its jobs are hung up with it."""
    command_id = bash.start("exec bash --norc -i", pty=True)["id"]
    bash.send(command_id, text="sleep 6543\n")
    bash.wait_shown(command_id, "sleep 6543")
    bash.post(f"bash_commands/{command_id}/stop")
    assert bash.wait_ended(command_id)["exit_code"] == -9


@pytest.mark.parametrize(
    ("route", "content"),
    [
        pytest.param("input", {"text": 1}, id="text"),
        pytest.param("input", {"text": "x" * ((1 << 20) + 1)}, id="too long"),
        pytest.param("resize", {"columns": 0}, id="no columns"),
        pytest.param("signal", {"signal": "SIGFOO"}, id="no signal"),
        pytest.param("signal", {}, id="none"),
    ],
)
def test_wrong_requests_are_refused(http: httpx.Client, route: str, content: dict[str, object]) -> None:
    """Before anybody is asked."""
    assert Bash(http).steer(UNKNOWN, route, **content).status_code == 422


@pytest.mark.parametrize(("route", "content"), [("input", {}), ("resize", {}), ("signal", {"signal": "SIGINT"})])
def test_unknown_command_is_404(bash: Bash, route: str, content: dict[str, str]) -> None:
    """And one that is no id is 422; one that has ended is 409."""
    assert bash.steer(UNKNOWN, route, **content).status_code == 404
    assert bash.steer("nonsense", route, **content).status_code == 422
    ended = bash.execute("true")["command_id"]
    assert bash.steer(ended, route, **content).status_code == 409
