"""`/api/bash` and its copies below a conversation: the contract's rows on a real server."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import UUID, uuid4

import httpx
import pytest

from tests.integration.contract.bash import Bash
from tests.integration.contract.conversations import JsonObject
from tests.server_process import Server
from tests.waiting import wait_until

MIB = 1 << 20


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of the module's own, whose history nobody else writes; its secrets must not reach a command."""
    secrets = {
        "LMNR_PROJECT_API_KEY": "secret-1",
        "OTEL_HEADERS": "secret-2",
        "OH_BASH_OUTPUT_MAX_CHARACTERS": str(8 * MIB),
    }
    with Server(tmp_path_factory.mktemp("server"), secrets) as running:
        yield running


@pytest.fixture
def bash(http: httpx.Client) -> Bash:
    return Bash(http)


def test_execute_answers_with_the_whole_output(bash: Bash) -> None:
    output = bash.execute("echo hi; echo err >&2; exit 3")
    assert output == {
        "id": output["id"],
        "timestamp": output["timestamp"],
        "command_id": output["command_id"],
        "order": 0,
        "exit_code": 3,
        "stdout": "hi\n",
        "stderr": "err\n",
        "kind": "BashOutput",
    }
    assert UUID(output["id"]).hex == output["id"]
    assert output["timestamp"].endswith("Z")


def test_start_answers_before_the_end(bash: Bash, tmp_path: Path) -> None:
    command = bash.start(f"while [ ! -e {tmp_path}/go ]; do sleep 0.05; done; echo gone", timeout=60)
    assert {name: command[name] for name in ("command", "cwd", "timeout", "kind")} == {
        "command": command["command"],
        "cwd": None,
        "timeout": 60,
        "kind": "BashCommand",
    }
    assert bash.outputs(command["id"]) == []
    (tmp_path / "go").touch()
    assert bash.wait_ended(command["id"])["stdout"] == "gone\n"


@pytest.mark.parametrize(
    ("command", "exit_code", "stdout"),
    [
        ("", 0, None),
        ("   ", 0, None),
        ("[[ a = a ]] && echo bash", 0, "bash\n"),
        ("no-such-command-here", 127, None),
        ("kill -9 $$", -9, None),
        ("cat", 0, None),
        ("printf 'a\\xffb'", 0, "a�b"),
        ("printf 'é%.0s' $(seq 40000) | tail -c 80000 | wc -m", 0, "40000\n"),
        ("echo $LMNR_PROJECT_API_KEY$OTEL_HEADERS$OH_SECRET_KEY$AI_AGENT", 0, "openhands\n"),
    ],
    ids=["empty", "blank", "bashism", "unknown", "signal", "stdin", "binary", "multibyte", "environment"],
)
def test_command_ends_with(bash: Bash, command: str, exit_code: int, stdout: str | None) -> None:
    output = bash.execute(command)
    assert (output["exit_code"], output["stdout"]) == (exit_code, stdout)


def test_character_that_two_reads_divide_is_whole(bash: Bash) -> None:
    output = bash.execute("python3 -c \"print('x' + 'é' * 200000)\"")
    assert output["stdout"] == "x" + "é" * 200000 + "\n"


@pytest.mark.parametrize(
    "fields",
    [{"cwd": "/no/such"}, {"command": "echo \0"}, {"command": "echo " + "x" * (128 << 10)}],
    ids=["directory", "NUL", "too long"],
)
def test_what_cannot_be_spawned_is_an_output(bash: Bash, fields: JsonObject) -> None:
    output = bash.post("execute_bash_command", **({"command": "pwd"} | fields))
    assert (output["order"], output["exit_code"], output["stdout"]) == (0, -1, None)
    assert output["stderr"].startswith("Error executing command: ")


def test_what_cannot_be_spawned_is_started(bash: Bash) -> None:
    """Why it ended so soon is told like any other end."""
    started = bash.start("true", cwd="/no/such")
    assert started["kind"] == "BashCommand"
    assert bash.wait_ended(started["id"])["exit_code"] == -1


def test_command_runs_where_it_is_told(bash: Bash, tmp_path: Path) -> None:
    assert bash.execute("pwd", cwd=str(tmp_path))["stdout"] == f"{tmp_path}\n"


def test_directory_is_the_servers_unless_told(bash: Bash) -> None:
    """An empty one is none, and another is relative to the server's."""
    own = bash.execute("pwd")["stdout"]
    assert bash.execute("pwd", cwd="")["stdout"] == own
    assert bash.execute("pwd", cwd="..")["stdout"] == f"{Path(own).parent}\n"


def test_fields_nobody_knows_are_ignored(bash: Bash) -> None:
    assert bash.start("true", id="mine", env={"A": "b"})["id"] != "mine"


def test_background_program_outlives_its_command(bash: Bash, tmp_path: Path) -> None:
    """One that lets go of the output does not keep the command waiting, and is left alone."""
    gate, done = tmp_path / "go", tmp_path / "done"
    script = f"while [ ! -e {gate} ]; do sleep 0.05; done; touch {done}"
    output = bash.execute(f"nohup sh -c '{script}' > /dev/null 2>&1 & echo back")
    assert (output["exit_code"], output["stdout"], done.exists()) == (0, "back\n", False)
    gate.touch()
    wait_until(done.exists, "the program has gone on")


def test_command_outlives_its_client(bash: Bash, server: Server, tmp_path: Path) -> None:
    begun, gate = tmp_path / "begun", tmp_path / "go"
    command = f"touch {begun}; while [ ! -e {gate} ]; do sleep 0.05; done; echo unheard"
    content = json.dumps({"command": command}).encode()
    host, port = "127.0.0.1", httpx.URL(server.url).port
    with socket.create_connection((host, port)) as client:
        head = f"POST /api/bash/execute_bash_command HTTP/1.1\r\nhost: {host}\r\ncontent-length: {len(content)}\r\n\r\n"
        client.sendall(head.encode() + content)
        wait_until(begun.exists, "the command runs")
    gate.touch()
    newest = bash.search(kind__eq="BashCommand", sort_order="TIMESTAMP_DESC")["items"]
    [started] = [each for each in newest if each["command"] == command]
    assert bash.wait_ended(started["id"])["stdout"] == "unheard\n"


def test_long_output_is_stored_in_chunks_and_answered_whole(bash: Bash) -> None:
    output = bash.execute("head -c 3500000 /dev/zero | tr '\\0' x; echo; echo end >&2")
    assert len(output["stdout"]) == 3_500_001
    assert output["stderr"] == "end\n"
    stored = bash.outputs(output["command_id"])
    assert [event["order"] for event in stored] == [0, 1, 2, 3]
    assert [event["exit_code"] for event in stored] == [None, None, None, 0]
    assert [len(event["stdout"]) for event in stored[:3]] == [MIB] * 3
    assert [event["stderr"] for event in stored] == [None, None, None, "end\n"]
    newer = bash.search(command_id__eq=output["command_id"], order__gt=1)["items"]
    assert newer == stored[2:]


def test_middle_of_too_much_output_is_left_out(bash: Bash) -> None:
    """The command goes on; what came first and what came last is kept."""
    output = bash.execute("echo first; head -c 30000000 /dev/zero | tr '\\0' x; echo; echo last")
    assert output["stdout"].startswith("first\n")
    assert output["stdout"].endswith("x\nlast\n")
    assert " characters left out]\n" in output["stdout"]
    assert len(output["stdout"]) < 10 * MIB


@pytest.mark.parametrize("timeout", [0, -1, 1])
def test_timeout_ends_the_group(bash: Bash, timeout: int, tmp_path: Path) -> None:
    child = tmp_path / "child"
    output = bash.execute(f"echo kept; sleep 60 & echo $! > {child}; sleep 60", timeout=timeout)
    assert output["exit_code"] == -1
    if timeout > 0:
        assert output["stdout"] == "kept\n"
        wait_until(lambda: is_gone(int(child.read_text())), "the child has ended too")


def is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


@pytest.mark.parametrize("child", ["sleep 60", "setsid sleep 60"], ids=["in the group", "a daemon"])
def test_child_that_holds_the_pipe_keeps_nobody_waiting(bash: Bash, child: str) -> None:
    """The shell has gone; the time-out ends what is in its group, and the command in any case."""
    output = bash.execute(f"{child} & echo gone", timeout=1)
    assert (output["exit_code"], output["stdout"]) == (-1, "gone\n")


@pytest.mark.parametrize(
    ("command", "exit_code", "stdout"),
    [
        ("sleep 60", -15, None),
        ("trap 'echo bye; exit 4' TERM; touch {ready}; while :; do sleep 0.05; done", 4, "bye\n"),
        ("trap '' TERM; touch {ready}; while :; do sleep 0.05; done", -9, None),
    ],
    ids=["plain", "trap", "stubborn"],
)
def test_stop(bash: Bash, tmp_path: Path, command: str, exit_code: int, stdout: str | None) -> None:
    ready = tmp_path / "ready"
    started = bash.start(command.format(ready=ready))
    if "ready" in command:
        wait_until(ready.exists, "the trap is set")
    assert bash.post(f"bash_commands/{started['id']}/stop") == {"success": True}
    [output] = bash.outputs(started["id"])
    assert (output["exit_code"], output["stdout"]) == (exit_code, stdout)
    assert bash.post(f"bash_commands/{UUID(started['id'])}/stop") == {"success": True}


def test_stop_of_what_is_unknown(bash: Bash) -> None:
    assert bash.answer("POST", f"bash_commands/{'0' * 32}/stop").status_code == 404
    assert bash.answer("POST", "bash_commands/nope/stop").status_code == 422


@pytest.mark.parametrize(
    "content", [{}, {"command": 3}, {"command": "x", "timeout": 1.5}, {"command": "x", "timeout": None}]
)
def test_start_refuses(bash: Bash, content: JsonObject) -> None:
    assert bash.answer("POST", "start_bash_command", json=content).status_code == 422


@pytest.mark.parametrize("timeout", [2.0, "7"])
def test_timeout_is_taken_as_number_or_text(bash: Bash, timeout: float | str) -> None:
    assert bash.start("true", timeout=timeout)["timeout"] == int(float(timeout))


def test_pages_hold_every_event_once_in_order(bash: Bash) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: bash.execute(f"echo {number}"), range(12)))
    for order in ("TIMESTAMP", "TIMESTAMP_DESC"):
        seen: list[JsonObject] = []
        page_id = ""
        while True:
            page = bash.search(limit=5, sort_order=order, page_id=page_id)
            seen += page["items"]
            page_id = page["next_page_id"]
            if page_id is None:
                break
        times = [event["timestamp"] for event in seen]
        assert times == sorted(times, reverse=order == "TIMESTAMP_DESC")
        assert len({event["id"] for event in seen}) == len(seen) >= 24


def test_search_filters(bash: Bash) -> None:
    output = bash.execute("echo filtered")
    command_id = output["command_id"]
    assert bash.search(command_id__eq=UUID(command_id), kind__eq="BashOutput")["items"] == [output]
    assert bash.search(command_id__eq=command_id, kind__eq="BashCommand")["items"] == []
    assert bash.search(timestamp__gte=output["timestamp"])["items"][0] == output
    assert output not in bash.search(timestamp__lt=output["timestamp"], sort_order="TIMESTAMP_DESC")["items"]
    assert {event["kind"] for event in bash.search(kind__eq="BashCommand")["items"]} == {"BashCommand"}
    later = bash.search(order__gt=0)["items"]
    assert [event for event in later if event["kind"] == "BashOutput" and event["order"] == 0] == []
    assert "BashCommand" in [event["kind"] for event in later]


def test_page_after_a_page_is_never_empty(bash: Bash) -> None:
    """What `order__gt` leaves out is not counted."""
    chunks = bash.execute("head -c 1200000 /dev/zero | tr '\\0' x")["command_id"]
    bash.execute("true")
    query = {"kind__eq": "BashOutput", "order__gt": 0, "limit": 1}
    pages = [bash.search(**query)]
    while (page_id := pages[-1]["next_page_id"]) is not None:
        pages.append(bash.search(**query, page_id=page_id))
    orders = [[event["order"] > 0 for event in page["items"]] for page in pages]
    assert orders == [[True]] * len(pages)
    assert chunks in [page["items"][0]["command_id"] for page in pages]


@pytest.mark.parametrize(
    "query", [{"limit": 0}, {"limit": 101}, {"kind__eq": "BashError"}, {"command_id__eq": "nope"}, {"sort_order": "x"}]
)
def test_search_refuses(bash: Bash, query: JsonObject) -> None:
    assert bash.answer("GET", "bash_events/search", params=query).status_code == 422


def test_unknown_page_is_400(bash: Bash) -> None:
    assert bash.answer("GET", "bash_events/search", params={"page_id": "nope"}).status_code == 400


def test_single_event_and_batch(bash: Bash) -> None:
    output = bash.execute("echo one")
    assert bash.answer("GET", f"bash_events/{output['id']}").json() == output
    for unknown in ("nope", "*", str(UUID(output["id"]))):
        assert bash.answer("GET", f"bash_events/{unknown}").status_code == 404
    assert bash.answer("GET", "bash_events/", json=[output["id"], "nope"]).json() == [output, None]
    assert bash.answer("GET", "bash_events/", params={"event_ids": output["id"]}).json() == [output]
    assert bash.answer("GET", "bash_events/").status_code == 422


def test_clear_counts_and_a_running_command_goes_on(bash: Bash, tmp_path: Path) -> None:
    gate = tmp_path / "go"
    command = bash.start(f"while [ ! -e {gate} ]; do sleep 0.05; done; echo after")
    assert bash.answer("DELETE", "bash_events").json()["cleared_count"] > 0
    assert bash.answer("DELETE", "bash_events").json() == {"cleared_count": 0}
    gate.touch()
    assert bash.wait_ended(command["id"])["stdout"] == "after\n"
    assert bash.answer("DELETE", "bash_events/").status_code == 405


def test_history_of_the_published_server_is_read(bash: Bash, server: Server) -> None:
    """One file an event, with seconds or microseconds in its name."""
    directory = server.directory / "bash_events"
    command_id, output_id = "a" * 32, "b" * 32
    command = {"timestamp": "2020-01-02T03:04:05.000000Z", "command": "old", "cwd": None, "timeout": 300}
    output = {"timestamp": "2020-01-02T03:04:05.000001Z", "order": 0, "exit_code": 0, "stdout": "x", "stderr": None}
    (directory / f"20200102030405_BashCommand_{command_id}").write_text(
        json.dumps({"id": command_id, "kind": "BashCommand"} | command, indent=2)
    )
    (directory / f"20200102030405000001_BashOutput_{command_id}_{output_id}").write_text(
        json.dumps({"kind": "BashOutput", "id": output_id, "command_id": command_id} | output, indent=2)
    )
    (directory / "junk").write_text("{")
    assert [event["id"] for event in bash.search(timestamp__lt="2021-01-01")["items"]] == [command_id, output_id]
    assert bash.outputs(command_id)[0]["stdout"] == "x"
    assert bash.answer("GET", f"bash_events/{command_id}").json()["command"] == "old"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("20190102030405_BashCommand_{}", '{"id": "'),
        ("20190102030405_BashCommand_{}", "null"),
        ("20190102030405_BashOutput_{0}_{0}", '{"id": "x", "kind": "BashOutput"}'),
        ("20190102030405_BashOutput_{0}_{0}", None),
        ("20199902030405_BashCommand_{}", '{"id": "x", "kind": "BashCommand", "timestamp": "2020-01-02T03:04:05Z"}'),
    ],
    ids=["torn", "no object", "not whole", "a directory", "no time"],
)
def test_file_that_is_no_event_is_skipped(bash: Bash, server: Server, name: str, content: str | None) -> None:
    """Under a name of the published server's."""
    event_id = uuid4().hex
    path = server.directory / "bash_events" / name.format(event_id)
    path.parent.mkdir(exist_ok=True)
    if content is None:
        path.mkdir()
    else:
        path.write_text(content)
    try:
        assert bash.search(timestamp__lt="2020-01-01")["items"] == []
        assert bash.outputs(event_id) == []
        assert bash.answer("GET", f"bash_events/{event_id}").status_code == 404
        assert bash.answer("GET", "bash_events/", json=[event_id, "0" * 32]).json() == [None, None]
        assert bash.answer("POST", f"bash_commands/{event_id}/stop").status_code == 404
    finally:
        path.rmdir() if content is None else path.unlink()


# Output as it comes


def streamed(http: httpx.Client, command_id: str, after: str | None = None) -> Iterator[tuple[str, JsonObject]]:
    """The id and the data of each server-sent event, to the end of the stream."""
    headers = {} if after is None else {"Last-Event-ID": after}
    with http.stream("GET", f"/api/bash/bash_commands/{command_id}/stream", headers=headers) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        event_id = ""
        for line in answer.iter_lines():
            name, _, value = line.partition(": ")
            if name == "id":
                event_id = value
            elif name == "data":
                yield event_id, json.loads(value)


def test_stream_shows_output_before_the_end(http: httpx.Client, bash: Bash, tmp_path: Path) -> None:
    gate = tmp_path / "go"
    command = bash.start(f"printf 'é1'; echo err >&2; while [ ! -e {gate} ]; do sleep 0.05; done; echo 2")
    texts = {"stdout": "", "stderr": ""}
    for _, event in streamed(http, command["id"]):
        if event["kind"] == "BashEnd":
            assert event["exit_code"] == 0
            break
        assert event["offset_bytes"] == len(texts[event["stream"]].encode())
        texts[event["stream"]] += event["text"]
        if texts["stdout"] and texts["stderr"]:
            assert bash.outputs(command["id"]) == [] or gate.exists()
            gate.touch()
    assert texts == {"stdout": "é12\n", "stderr": "err\n"}


def test_stream_of_a_quiet_command_begins_at_once(http: httpx.Client, bash: Bash, tmp_path: Path) -> None:
    gate = tmp_path / "go"
    command = bash.start(f"while [ ! -e {gate} ]; do sleep 0.05; done")
    with http.stream("GET", f"/api/bash/bash_commands/{command['id']}/stream", timeout=5) as answer:
        assert answer.status_code == 200
        gate.touch()
        assert '"kind": "BashEnd"' in answer.read().decode()


def test_stream_resumes_where_it_was(http: httpx.Client, bash: Bash) -> None:
    """Also long after the end, from the stored output."""
    command_id = bash.execute("head -c 2000000 /dev/zero | tr '\\0' x; echo err >&2")["command_id"]
    events = list(streamed(http, command_id))
    text = "".join(event["text"] for _, event in events if event.get("stream") == "stdout")
    assert text == "x" * 2_000_000
    again = list(streamed(http, command_id, "1999990.0"))
    assert [event.get("text") for _, event in again] == ["x" * 10, "err\n", None]
    assert [event["exit_code"] for _, event in streamed(http, command_id, events[-1][0])] == [0]


def test_stream_refuses(bash: Bash) -> None:
    assert bash.answer("GET", f"bash_commands/{'0' * 32}/stream").status_code == 404
    assert bash.answer("GET", "bash_commands/nope/stream").status_code == 422
    command_id = bash.execute("echo tail")["command_id"]
    for position in ("nope", "-1.0", "-5.-7", "1.", f"{'9' * 26}.0", f"0.{2**63 - 1}"):
        answer = bash.answer("GET", f"bash_commands/{command_id}/stream", headers={"Last-Event-ID": position})
        assert answer.status_code == 422
