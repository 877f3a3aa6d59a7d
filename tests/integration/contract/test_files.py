"""`/api/file` and its copies below a conversation: the contract's rows, and every way out of a workspace."""

from __future__ import annotations

import io
import json
import os
import socket
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest

from tests.integration.contract.conversations import Conversations
from tests.server_process import Server
from tests.session_processes import resident_bytes
from tests.waiting import wait_until

MIB = 1 << 20


def upload(http: httpx.Client, path: object, content: bytes = b"content", prefix: str = "/api/file") -> httpx.Response:
    return http.post(f"{prefix}/upload", params={"path": str(path)}, files={"file": ("ignored", content)})


def download(http: httpx.Client, path: object, prefix: str = "/api/file", **options: object) -> httpx.Response:
    return http.get(f"{prefix}/download", params={"path": str(path)}, **options)  # type: ignore[arg-type]


def detail(answer: httpx.Response) -> object:
    return answer.json()["detail"]


# Upload


def test_upload_stores_the_file_and_makes_its_parents(http: httpx.Client, tmp_path: Path) -> None:
    target = tmp_path / "a" / "b" / "c.txt"
    assert upload(http, target).json() == {"success": True, "file_size": 7}
    assert target.read_bytes() == b"content"
    assert target.stat().st_mode & 0o777 == 0o644
    assert [path.name for path in target.parent.iterdir()] == ["c.txt"]


def test_upload_replaces_whole_and_keeps_the_mode(http: httpx.Client, tmp_path: Path) -> None:
    target = tmp_path / "script"
    target.write_bytes(b"longer than before")
    target.chmod(0o755)
    inode = target.stat().st_ino
    upload(http, target, b"short").raise_for_status()
    assert target.read_bytes() == b"short"
    assert target.stat().st_mode & 0o777 == 0o755
    assert target.stat().st_ino != inode


def test_upload_through_a_link_replaces_what_it_leads_to(http: httpx.Client, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "target")
    upload(http, tmp_path / "link").raise_for_status()
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "target").read_bytes() == b"content"


def test_last_of_several_files_counts(http: httpx.Client, tmp_path: Path) -> None:
    parts = [
        ("destination_path", (None, b"ignored")),
        ("file", ("one", b"the first, which is longer")),
        ("file", ("two", b"the last")),
        ("other", ("three", b"ignored")),
    ]
    http.post("/api/file/upload", params={"path": str(tmp_path / "x")}, files=parts).raise_for_status()
    assert (tmp_path / "x").read_bytes() == b"the last"


@pytest.mark.parametrize("form", ["/{path}", "{path}", "{quoted}"], ids=["double slash", "merged slash", "encoded"])
def test_older_form_of_upload_and_download(http: httpx.Client, tmp_path: Path, form: str) -> None:
    target = tmp_path / "with space%3F?.txt"
    plain = quote(str(target))
    path = form.format(path=plain, quoted="/" + quote(str(target), safe=""))
    assert http.post(f"/api/file/upload{path}", files={"file": ("x", b"older")}).json()["success"] is True
    assert target.read_bytes() == b"older"
    assert http.get(f"/api/file/download{path}").content == b"older"


def test_upload_refuses(http: httpx.Client, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path, status, reason in (
        ("relative", 400, "Path must be absolute"),
        ("", 400, "Path must be absolute"),
        (tmp_path, 400, "Path is a directory"),
        ("/", 400, "Path is a directory"),
        (tmp_path / "file" / "below", 400, "A parent of the path is not a directory"),
        (f"{tmp_path}/a\0b", 400, "Path must not contain a NUL character"),
        (f"{tmp_path}/{'x' * 300}", 400, "Path is too long"),
    ):
        answer = upload(http, path)
        assert (answer.status_code, detail(answer)) == (status, reason), path


def test_what_cannot_be_stored_is_told_with_its_own_path(http: httpx.Client) -> None:
    """In /proc nobody can make anything, root neither."""
    made = http.post("/api/file/create_directory", params={"path": "/proc/zz"})
    reason = "[Errno 2] No such file or directory: '/proc/zz'"
    assert (made.status_code, detail(made)) == (500, f"Failed to create directory: {reason}")
    stored = upload(http, "/proc/zz")
    assert (stored.status_code, detail(stored)) == (500, f"Failed to upload file: {reason}")


def test_upload_without_a_file_part_is_422(http: httpx.Client, tmp_path: Path) -> None:
    query = {"path": str(tmp_path / "x")}
    answers = [
        http.post("/api/file/upload", params=query),
        http.post("/api/file/upload", params=query, json={}),
        http.post("/api/file/upload", params=query, files={"other": ("x", b"")}),
        http.post("/api/file/upload", params=query, files=[("file", (None, b"a plain field"))]),
        http.post("/api/file/upload", files={"file": ("x", b"")}),
    ]
    assert [answer.status_code for answer in answers] == [422] * 5
    assert [answer.json()["detail"][0]["loc"] for answer in answers] == [["body", "file"]] * 4 + [["query", "path"]]
    assert list(tmp_path.iterdir()) == []


PART = b'--B\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\n'
FORM = {"content-type": "multipart/form-data; boundary=B"}


@pytest.mark.parametrize(
    "body",
    [PART, PART + b"HALF", PART + b"HALF\r\n--B", PART + b"HALF\r\n--B-", PART + b"1\r\n" + PART + b"HALF", PART[:-2]],
    ids=["nothing", "content", "delimiter", "closing delimiter", "second file", "headers"],
)
def test_upload_that_is_cut_off_leaves_the_old_file(http: httpx.Client, tmp_path: Path, body: bytes) -> None:
    """Though all that its head had announced has come."""
    target = tmp_path / "kept"
    target.write_bytes(b"old")
    for url in (f"/api/file/upload?path={target}", f"/api/file/upload/{target}"):
        answer = http.post(url, content=body, headers=FORM)
        assert (answer.status_code, detail(answer)[0]["loc"]) == (422, ["body", "file"])  # type: ignore[index]
        assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"kept": b"old"}


@pytest.mark.parametrize("rest", [b"--B--", b"--B\r\n", b"--B\r\nContent-Disposition: form-d"])
def test_delimiter_after_the_file_shows_that_it_is_whole(http: httpx.Client, tmp_path: Path, rest: bytes) -> None:
    answer = http.post(f"/api/file/upload?path={tmp_path}/x", content=PART + b"whole\r\n" + rest, headers=FORM)
    assert answer.raise_for_status().json()["file_size"] == 5
    assert (tmp_path / "x").read_bytes() == b"whole"


@contextmanager
def upload_begun(server: Server, target: Path) -> Iterator[None]:
    """The connection of a client that hangs up in the middle of its upload."""
    head = (
        f"POST /api/file/upload?path={target} HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n"
        "Content-Type: multipart/form-data; boundary=B\r\n\r\n"
        '--B\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\n'
    )
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.sendall(head.encode() + b"new" * 1000)
        yield


def test_aborted_upload_leaves_the_old_file(http: httpx.Client, server: Server, tmp_path: Path) -> None:
    """And nothing beside it."""
    target = tmp_path / "kept"
    target.write_bytes(b"old")
    with upload_begun(server, target):
        wait_until(lambda: len(list(tmp_path.iterdir())) == 2, "the upload has begun")
    wait_until(lambda: [path.name for path in tmp_path.iterdir()] == ["kept"], "nothing is left of it")
    assert target.read_bytes() == b"old"


def test_upload_aborted_while_its_file_is_made_leaves_nothing(
    http: httpx.Client, server: Server, tmp_path: Path
) -> None:
    """A thousand directories above it take long enough to hang up in the middle."""
    directory = Path(f"{tmp_path}{'/d' * 1000}")
    with upload_begun(server, directory / "x"):
        wait_until((tmp_path / "d").exists, "the upload has begun")
    wait_until(directory.exists, "the directories are made")
    opened = Path(f"/proc/{server.pid}/fd")
    wait_until(
        lambda: not any(os.path.realpath(link).startswith(str(tmp_path)) for link in opened.iterdir()),
        "the server is done with it",
    )
    assert list(directory.iterdir()) == []


def test_large_file_stays_out_of_memory(http: httpx.Client, server: Server, tmp_path: Path) -> None:
    size_mib = 128
    target, source = tmp_path / "target", tmp_path / "source"
    with source.open("wb") as file:
        file.truncate(size_mib * MIB)
    upload(http, tmp_path / "warm", b"x" * MIB)
    before = most = resident_bytes(server.pid)
    with ThreadPoolExecutor(1) as pool, source.open("rb") as file:
        query = {"path": str(target)}
        answer = pool.submit(http.post, "/api/file/upload", params=query, files={"file": ("x", file)}, timeout=120)
        while not answer.done():
            most = max(most, resident_bytes(server.pid))
        assert answer.result().json()["file_size"] == size_mib * MIB
    received = 0
    with http.stream("GET", "/api/file/download", params={"path": str(target)}) as streamed:
        for chunk in streamed.iter_raw():
            received += len(chunk)
            most = max(most, resident_bytes(server.pid))
    assert received == size_mib * MIB
    assert most - before < 32 * MIB


# Download


def test_download_is_an_attachment_with_validators(http: httpx.Client, tmp_path: Path) -> None:
    (tmp_path / "c.txt").write_bytes(b"hello world")
    answer = download(http, tmp_path / "c.txt")
    assert answer.content == b"hello world"
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["content-disposition"] == 'attachment; filename="c.txt"'
    assert answer.headers["accept-ranges"] == "bytes"
    again = download(http, tmp_path / "c.txt", headers={"if-none-match": answer.headers["etag"]})
    assert again.status_code == 304
    (tmp_path / "up sp.txt").touch()
    named = download(http, tmp_path / "up sp.txt").headers["content-disposition"]
    assert named == "attachment; filename*=utf-8''up%20sp.txt"


def test_download_through_a_link_has_the_name_of_the_link(http: httpx.Client, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"hello")
    (tmp_path / "ln").symlink_to("a.txt")
    answer = download(http, tmp_path / "ln")
    assert (answer.content, answer.headers["content-disposition"]) == (b"hello", 'attachment; filename="ln"')


@pytest.mark.parametrize(
    ("wanted", "status", "content"),
    [
        ("bytes=2-4", 206, b"llo"),
        ("bytes=-3", 206, b"rld"),
        ("bytes=0-", 206, b"hello world"),
        ("bytes=99-", 416, b""),
    ],
)
def test_download_of_a_range(http: httpx.Client, tmp_path: Path, wanted: str, status: int, content: bytes) -> None:
    (tmp_path / "c.txt").write_bytes(b"hello world")
    answer = download(http, tmp_path / "c.txt", headers={"range": wanted})
    assert (answer.status_code, answer.content) == (status, content)


def test_download_refuses(http: httpx.Client, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path, status, reason in (
        ("relative", 400, "Path must be absolute"),
        (tmp_path / "nowhere", 404, "File not found"),
        (tmp_path, 400, "Path is not a file"),
        (tmp_path / "pipe", 400, "Path is not a file"),
    ):
        answer = download(http, path)
        assert (answer.status_code, detail(answer)) == (status, reason), path
    assert http.get("/api/file/download").status_code == 422


# Trajectory


def test_trajectory_holds_the_conversation_without_secrets(http: httpx.Client, conversation: Conversations) -> None:
    one = conversation()
    one.post("/secrets", {"secrets": {"TOKEN": "very-secret-value"}}).raise_for_status()
    one.run_to("finished", "SAY hello")
    answer = http.get(f"/api/file/download-trajectory/{one.id}").raise_for_status()
    name = one.id.replace("-", "")
    assert answer.headers["content-disposition"] == f'attachment; filename="{name}.zip"'
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        assert {f"{name}/base_state.json", f"{name}/meta.json"} <= set(archive.namelist())
        assert archive.namelist() == sorted(archive.namelist())
        events = [json.loads(archive.read(each)) for each in archive.namelist() if "/events/event-" in each]
        # The last ones may have come after the archive.
        assert [event["id"] for event in events] == [event["id"] for event in one.events][: len(events)]
        assert "MessageEvent" in [event["kind"] for event in events]
        everything = b"".join(map(archive.read, archive.namelist()))
    assert b"very-secret-value" not in everything
    assert b"gAAAAA" not in everything


def test_trajectories_may_be_downloaded_in_parallel(http: httpx.Client, conversation: Conversations) -> None:
    one = conversation()
    one.run_to("finished", "SAY hello")
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: http.get(f"/api/file/download-trajectory/{one.id}"), range(16)))
    assert {answer.status_code for answer in answers} == {200}
    for answer in answers:
        assert zipfile.ZipFile(io.BytesIO(answer.content)).testzip() is None


def test_trajectory_refuses(http: httpx.Client, conversation: Conversations) -> None:
    one, other = conversation(), conversation()
    unknown = conversation.unknown().id
    assert detail(http.get(f"/api/file/download-trajectory/{unknown}")) == "Conversation not found"
    assert http.get("/api/file/download-trajectory/nope").status_code == 422
    scoped = f"{one.path}/file/download-trajectory"
    assert http.get(f"{scoped}/{one.id}").status_code == 200
    foreign, malformed = http.get(f"{scoped}/{other.id}"), http.get(f"{scoped}/nope")
    assert (foreign.status_code, detail(foreign)) == (422, "Trajectory must belong to the selected conversation")
    assert (malformed.status_code, detail(malformed)) == (422, "Invalid trajectory conversation id")


# Directories


def test_create_directory(http: httpx.Client, tmp_path: Path) -> None:
    for _ in range(2):
        assert http.post("/api/file/create_directory", params={"path": f"{tmp_path}/a/b"}).json() == {"success": True}
    assert (tmp_path / "a" / "b").is_dir()
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        answer = http.post("/api/file/create_directory", params={"path": str(path)})
        assert (answer.status_code, detail(answer)) == (400, "Path exists and is not a directory")
    assert http.post("/api/file/create_directory", params={"path": "x"}).status_code == 400
    assert http.post("/api/file/create_directory").status_code == 422


def test_home(http: httpx.Client, server: Server) -> None:
    directory = server.directory / "home"
    for name in ("b", "A", ".hidden"):
        (directory / name).mkdir(exist_ok=True)
    (directory / "link").symlink_to(directory / "b")
    found = http.get("/api/file/home").json()
    assert found["home"] == str(directory)
    labels = [each["label"] for each in found["favorites"]]
    assert [label for label in labels if label in ("A", "b", ".hidden", "link")] == ["A", "b"]
    assert found["locations"] == [{"label": "/", "path": "/"}]
    hidden = http.get("/api/file/home", params={"include_hidden": "true"}).json()["favorites"]
    assert {"label": ".hidden", "path": f"{directory}/.hidden"} in hidden


def test_home_that_does_not_exist_has_no_favorites(http: httpx.Client, server: Server) -> None:
    directory = server.directory / "home"
    away = directory.rename(server.directory / "away")
    try:
        found = http.get("/api/file/home")
    finally:
        away.rename(directory)
    assert found.json() == {"home": str(directory), "favorites": [], "locations": [{"label": "/", "path": "/"}]}


def test_search_subdirs(http: httpx.Client, tmp_path: Path) -> None:
    for name in ("b", "A", "c", ".hidden"):
        (tmp_path / name).mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "b")
    query: dict[str, str | int] = {"path": str(tmp_path), "limit": 2}
    page = http.get("/api/file/search_subdirs", params=query).json()
    assert page == {
        "items": [{"name": "A", "path": f"{tmp_path}/A"}, {"name": "b", "path": f"{tmp_path}/b"}],
        "next_page_id": "c",
    }
    rest = http.get("/api/file/search_subdirs", params=query | {"page_id": "c"}).json()
    assert rest == {"items": [{"name": "c", "path": f"{tmp_path}/c"}], "next_page_id": None}
    for path, status in (("x", 400), (tmp_path / "file", 400), (tmp_path / "nowhere", 404)):
        assert http.get("/api/file/search_subdirs", params={"path": str(path)}).status_code == status
    assert http.get("/api/file/search_subdirs", params=query | {"limit": 101}).status_code == 422
    assert http.get("/api/file/search_subdirs", params=query | {"page_id": "nope"}).status_code == 400


def test_search_subdirs_of_a_link_answers_paths_below_the_link(http: httpx.Client, tmp_path: Path) -> None:
    (tmp_path / "real" / "sub").mkdir(parents=True)
    (tmp_path / "link").symlink_to("real")
    page = http.get("/api/file/search_subdirs", params={"path": f"{tmp_path}/link"}).json()
    assert page["items"] == [{"name": "sub", "path": f"{tmp_path}/link/sub"}]


def test_directory_whose_name_is_no_utf_8_is_left_out(http: httpx.Client, tmp_path: Path) -> None:
    os.mkdir(os.fsencode(tmp_path) + b"/\xff")
    (tmp_path / "naïve").mkdir()
    page = http.get("/api/file/search_subdirs", params={"path": str(tmp_path), "limit": 1}).raise_for_status().json()
    assert page == {"items": [{"name": "naïve", "path": f"{tmp_path}/naïve"}], "next_page_id": None}


# Below a conversation


def test_conversations_files_are_reached(http: httpx.Client, conversation: Conversations, project: Path) -> None:
    (project / "file").write_text("inside")
    prefix = f"{conversation().path}/file"
    assert download(http, project / "file", prefix).text == "inside"
    assert upload(http, project / "new" / "file", prefix=prefix).json()["success"] is True
    assert (project / "new" / "file").read_bytes() == b"content"
    made = http.post(f"{prefix}/create_directory", params={"path": f"{project}/made"})
    assert made.json() == {"success": True}
    assert http.get(f"{prefix}/home").status_code == 404
    unknown = download(http, project / "file", "/api/conversations/" + "0" * 32 + "/file")
    assert unknown.status_code == 404
