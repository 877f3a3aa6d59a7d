"""`/api/git` and its copies below a conversation: the contract's rows on repositories of every kind."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest

from service.blueprints.http.threads import _THREADS
from service.git.changes import changes as changes_in
from service.open_directory import opened
from tests.integration.contract.conversations import Conversations, JsonObject
from tests.integration.contract.repository import Repository
from tests.server_process import Server
from tests.unprivileged import unprivileged
from tests.waiting import wait_until

ODD_NAMES = ["with space", "tab\there", 'quote"d', "line\nbreak", "naïve-ünïcode", "-dash", "back\\slash"]


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path / "repo")


def changes(http: httpx.Client, path: object, **query: str) -> dict[str, str]:
    answer = http.get("/api/git/changes", params={"path": str(path), **query}).raise_for_status()
    listed = answer.json()
    assert [each["path"] for each in listed] == sorted(each["path"] for each in listed)
    return {each["path"]: each["status"] for each in listed}


def diff(http: httpx.Client, path: object, **query: str) -> JsonObject:
    found: JsonObject = http.get("/api/git/diff", params={"path": str(path), **query}).raise_for_status().json()
    return found


# Changes


def test_changes_of_a_work_tree(http: httpx.Client, repository: Repository) -> None:
    for name in ("kept", "changed", "deleted", "old-name"):
        repository.write(name, f"{name}\n")
    repository.write(".gitignore", "ignored\n")
    repository.commit()
    repository.write("changed", "other\n")
    (repository.path / "deleted").unlink()
    (repository.path / "old-name").rename(repository.path / "new-name")
    repository.write("ignored")
    repository.write("sub/new")
    assert changes(http, repository.path) == {
        "changed": "UPDATED",
        "deleted": "DELETED",
        "new-name": "ADDED",
        "old-name": "DELETED",
        "sub/new": "ADDED",
    }


@pytest.mark.parametrize("name", ODD_NAMES)
def test_odd_name_is_shown_as_it_is(http: httpx.Client, repository: Repository, name: str) -> None:
    repository.write(name)
    repository.commit()
    assert changes(http, repository.path) == {}
    repository.write(name, "changed\n")
    assert changes(http, repository.path) == {name: "UPDATED"}
    assert diff(http, repository.path / name) == {"modified": "changed", "original": "1"}


def test_change_of_type_is_an_update(http: httpx.Client, repository: Repository) -> None:
    path = repository.write("file")
    repository.commit()
    path.unlink()
    path.symlink_to("elsewhere")
    assert changes(http, repository.path) == {"file": "UPDATED"}


def test_unborn_head_shows_everything_as_added(http: httpx.Client, repository: Repository) -> None:
    repository.write("staged")
    repository.git("add", "staged")
    repository.write("untracked")
    assert changes(http, repository.path) == {"staged": "ADDED", "untracked": "ADDED"}
    assert changes(http, repository.path, ref="HEAD") == {"staged": "ADDED", "untracked": "ADDED"}


def test_sub_directory_shows_its_part(http: httpx.Client, repository: Repository) -> None:
    repository.write("top")
    repository.write("sub/file")
    repository.commit()
    repository.write("top", "2\n")
    repository.write("sub/file", "2\n")
    assert changes(http, repository.path / "sub") == {"file": "UPDATED"}


def test_branch_is_compared_with_where_it_came_from(http: httpx.Client, repository: Repository) -> None:
    """Without a remote with the local main branch, also when everything is committed; detached with HEAD."""
    repository.write("file")
    repository.commit()
    repository.git("checkout", "-q", "-b", "feature")
    repository.write("new")
    repository.commit()
    assert changes(http, repository.path) == {"new": "ADDED"}
    assert changes(http, repository.path, ref="HEAD") == {}
    assert changes(http, repository.path, ref="main") == {"new": "ADDED"}
    repository.git("checkout", "-q", "--detach", "main")
    assert changes(http, repository.path) == {}


def test_published_branch_is_compared_with_its_remote(
    http: httpx.Client, repository: Repository, tmp_path: Path
) -> None:
    repository.write("file")
    repository.commit()
    repository.git("clone", "-q", "--bare", str(repository.path), str(tmp_path / "origin.git"))
    repository.git("remote", "add", "origin", str(tmp_path / "origin.git"))
    repository.git("fetch", "-q", "origin")
    assert changes(http, repository.path) == {}
    repository.write("ahead")
    repository.commit()
    assert changes(http, repository.path) == {"ahead": "ADDED"}


def test_unknown_ref_is_400(http: httpx.Client, repository: Repository) -> None:
    repository.commit()
    path = repository.write("file")
    for ref in ("nosuch", "--output=/tmp/x", "main\0"):
        for route, asked in (("changes", repository.path), ("diff", path)):
            answer = http.get(f"/api/git/{route}", params={"path": str(asked), "ref": ref})
            assert answer.status_code == 400
            assert f"'{ref}^{{commit}}'" in answer.json()["detail"]


def test_nested_repositories_are_listed_with_their_directory(http: httpx.Client, tmp_path: Path) -> None:
    """Below a repository and below none; a broken one hides nothing."""
    for parent in (Repository(tmp_path / "outer").path, tmp_path / "plain"):
        nested = Repository(parent / "nested")
        nested.write("file")
        (parent / "broken").mkdir()
        (parent / "broken" / ".git").write_text("gitdir: /nowhere")
        found = changes(http, parent)
        assert found["nested/file"] == "ADDED"
        assert not [path for path in found if path in ("nested", "nested/")]


def test_directory_that_nobody_may_look_into_hides_nothing(tmp_path: Path) -> None:
    """As a database's is, which belongs to another user."""
    Repository(tmp_path / "nested").write("file")
    (tmp_path / "database").mkdir(mode=0)
    tmp_path.chmod(0o755)
    with opened(tmp_path) as held, unprivileged():
        found = changes_in(held, None)
    assert [each.path for each in found] == ["nested/file"]


def test_nested_repository_whose_name_is_no_utf_8_is_shown_with_what_can_be(
    http: httpx.Client, repository: Repository
) -> None:
    Repository(repository.path / os.fsdecode(b"odd\xff")).write("file")
    assert changes(http, repository.path) == {"odd\ufffd/file": "ADDED"}


def test_repository_further_down_is_one_that_was_added(http: httpx.Client, repository: Repository) -> None:
    Repository(repository.path / "deep" / "x").write("file")
    assert changes(http, repository.path) == {"deep/x": "ADDED"}


def test_submodule_is_a_nested_repository(http: httpx.Client, repository: Repository, tmp_path: Path) -> None:
    library = Repository(tmp_path / "library")
    library.write("file")
    library.commit()
    repository.git("submodule", "add", "-q", str(library.path), "lib")
    repository.commit()
    (repository.path / "lib" / "file").write_text("changed\n")
    assert changes(http, repository.path) == {"lib/file": "UPDATED"}


def test_what_is_no_repository_has_no_changes(http: httpx.Client, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path, tmp_path / "nowhere", tmp_path / "file"):
        assert changes(http, path) == {}
    assert http.get("/api/git/changes").status_code == 422


def test_repository_makes_the_server_run_nothing(http: httpx.Client, repository: Repository, tmp_path: Path) -> None:
    """Its configuration names programs for all that git asks."""
    repository.write("file")
    repository.write(".gitattributes", "* diff=evil filter=evil\n")
    repository.commit()
    trap = f"touch {tmp_path}/ran; cat"
    for key in ("core.fsmonitor", "diff.external", "diff.evil.command", "diff.evil.textconv"):
        repository.git("config", key, trap)
    for key in ("filter.evil.clean", "filter.evil.process"):
        repository.git("config", key, trap)
    repository.git("config", "filter.evil.required", "true")
    repository.git("update-ref", "refs/remotes/origin/main", "HEAD")
    repository.write("file", "2\n")
    assert changes(http, repository.path)["file"] == "UPDATED"
    archive = http.get("/api/file/archive", params={"path": str(repository.path), "base_ref": "HEAD"})
    assert "+2" in archive.raise_for_status().text
    diff(http, repository.path / "file")
    assert not (tmp_path / "ran").exists()


@pytest.fixture
def trap(tmp_path: Path) -> Iterator[str]:
    """A program that a repository names, and that must not have been run in the end."""
    program, ran = tmp_path / "trap", tmp_path / "ran"
    program.write_text(f"#!/bin/sh\necho ran >> {ran}\ncat\n")
    program.chmod(0o755)
    yield str(program)
    assert not ran.exists()


def ask_everything(http: httpx.Client, repository: Repository) -> None:
    """All that git is asked for; some of it may be refused."""
    top, file = {"path": str(repository.path)}, {"path": f"{repository.path}/file"}
    head = repository.git("rev-parse", "HEAD").strip()
    for route, query in (
        ("git/changes", top),
        ("git/changes", top | {"ref": "HEAD"}),
        ("git/commits", top),
        (f"git/commits/{head}/changes", top),
        ("git/diff", file),
        ("git/diff", file | {"commit": head}),
        ("file/archive", top | {"base_ref": "HEAD"}),
    ):
        http.get(f"/api/{route}", params=query)


def test_signatures_are_not_looked_at(http: httpx.Client, repository: Repository, tmp_path: Path, trap: str) -> None:
    signing = tmp_path / "signing"
    signing.write_text(
        "#!/bin/sh\ncat >/dev/null\necho '[GNUPG:] SIG_CREATED ' >&2\necho '-----BEGIN PGP SIGNATURE-----'\n"
    )
    signing.chmod(0o755)
    repository.write("file")
    repository.git("add", "file")
    repository.git("-c", f"gpg.program={signing}", "commit", "-q", "-S", "-m", "signed")
    repository.git("config", "log.showSignature", "true")
    repository.git("config", "gpg.program", trap)
    ask_everything(http, repository)
    [commit] = commits(http, repository.path)["commits"]
    assert commit["subject"] == "signed"


def test_submodule_makes_the_server_run_nothing(
    http: httpx.Client, repository: Repository, tmp_path: Path, trap: str
) -> None:
    """Its own configuration counts where git looks at its files; where its commit is another is told all the same."""
    library = Repository(tmp_path / "library")
    library.write("file")
    library.write(".gitattributes", "* filter=evil diff=evil\n")
    library.commit()
    repository.write("file")
    repository.git("submodule", "add", "-q", str(library.path), "deep/lib")
    base = repository.commit()
    submodule = Repository(repository.path / "deep" / "lib")
    submodule.write("file", "2\n")
    moved = submodule.commit()
    for key in ("filter.evil.clean", "diff.external", "diff.evil.textconv", "core.fsmonitor"):
        submodule.git("config", key, trap)
    for key, value in (("diff.submodule", "diff"), ("diff.ignoreSubmodules", "none"), ("submodule.recurse", "true")):
        repository.git("config", key, value)
    (submodule.path / "file").write_text("3\n")
    repository.git("update-ref", "refs/remotes/origin/main", "HEAD")
    ask_everything(http, repository)
    assert changes(http, repository.path) == {"deep/lib": "UPDATED"}
    archive = http.get("/api/file/archive", params={"path": f"{repository.path}/deep", "base_ref": base})
    assert f"+Subproject commit {moved}" in archive.raise_for_status().text


@pytest.mark.parametrize(
    "remote",
    [
        {"url": "ext::{trap} %S"},
        {"url": "ssh://host/path"},
        {"url": "{path}", "uploadpack": "{trap}"},
        {"url": "path", "vcs": "none"},
    ],
    ids=["a program", "ssh", "upload-pack", "an alias"],
)
def test_what_is_missing_is_not_fetched(
    http: httpx.Client, repository: Repository, trap: str, remote: dict[str, str]
) -> None:
    path = repository.write("file")
    repository.commit()
    name = repository.git("rev-parse", "HEAD:file").strip()
    (repository.path / ".git" / "objects" / name[:2] / name[2:]).unlink()
    path.write_text("2\n")
    for key, value in (
        ("core.repositoryFormatVersion", "1"),
        ("extensions.partialClone", "evil"),
        ("remote.evil.promisor", "true"),
        ("protocol.allow", "always"),
        ("core.sshCommand", trap),
        ("alias.remote-none", f"!{trap}"),
        *((f"remote.evil.{key}", value) for key, value in remote.items()),
    ):
        repository.git("config", key, value.format(trap=trap, path=repository.path))
    ask_everything(http, repository)
    answer = http.get("/api/git/diff", params={"path": str(path)})
    assert answer.status_code == 400
    assert "Git command failed: git cat-file" in answer.json()["detail"]


# Diff


def test_diff_of_a_changed_file(http: httpx.Client, repository: Repository) -> None:
    path = repository.write("file", "1\r\n")
    sub = repository.write("sub/file", "sub")
    repository.commit()
    path.write_text("1\nmod\n")
    sub.unlink()
    repository.write("new", "n\n")
    assert diff(http, path) == {"modified": "1\nmod", "original": "1"}
    assert diff(http, sub) == {"modified": "", "original": "sub"}
    assert diff(http, repository.path / "new") == {"modified": "n", "original": ""}


def test_diff_of_a_commit_is_verbatim(http: httpx.Client, repository: Repository) -> None:
    repository.write("file", " lead\n")
    root = repository.commit()
    repository.write("file", "trail  \n\n")
    second = repository.commit()
    path = repository.path / "file"
    assert diff(http, path, commit=root) == {"modified": " lead\n", "original": ""}
    assert diff(http, path, commit=second[:7]) == {"modified": "trail  \n\n", "original": " lead\n"}
    assert diff(http, repository.path / "absent", commit=second) == {"modified": "", "original": ""}


def test_diff_where_the_work_tree_is_elsewhere_is_400(
    http: httpx.Client, repository: Repository, tmp_path: Path
) -> None:
    path = repository.write("file")
    repository.commit()
    (tmp_path / "elsewhere").mkdir()
    repository.git("config", "core.worktree", str(tmp_path / "elsewhere"))
    answer = http.get("/api/git/diff", params={"path": str(path)})
    told = f"Path is outside of its repository's work tree: {path}"
    assert (answer.status_code, answer.json()["detail"]) == (400, told)


def test_diff_of_what_is_a_directory_on_one_side(http: httpx.Client, repository: Repository) -> None:
    keep, directory = repository.write("keep", "k\n"), repository.write("d/below").parent
    repository.commit()
    keep.unlink()
    repository.write("keep/k", "2\n")
    shutil.rmtree(directory)
    directory.write_text("d\n")
    assert changes(http, repository.path) == {"d": "ADDED", "d/below": "DELETED", "keep": "DELETED", "keep/k": "ADDED"}
    assert diff(http, keep) == {"modified": "", "original": "k"}
    assert diff(http, directory) == {"modified": "d", "original": ""}
    assert diff(http, directory / "below") == {"modified": "", "original": "1"}


def test_diff_of_a_link_that_leads_to_no_file_has_its_text(http: httpx.Client, repository: Repository) -> None:
    for name in ("one/file", "two/file", "file"):
        repository.write(name)
    link = repository.path / "link"
    link.symlink_to("one")
    repository.commit()
    for path, target in ((link, "two"), (repository.path / "file", "nowhere")):
        path.unlink()
        path.symlink_to(target)
    assert changes(http, repository.path) == {"file": "UPDATED", "link": "UPDATED"}
    assert diff(http, link) == {"modified": "two", "original": "one"}
    assert diff(http, repository.path / "file") == {"modified": "nowhere", "original": "1"}
    second = repository.commit()
    assert diff(http, link, commit=second) == {"modified": "two", "original": "one"}
    link.unlink()
    link.symlink_to("two/file")
    assert diff(http, link) == {"modified": "1", "original": "1"}


def test_diff_of_a_commit_does_not_mind_what_became_of_the_file(http: httpx.Client, repository: Repository) -> None:
    path = repository.write("x")
    repository.commit()
    repository.write("x", "2\n")
    second = repository.commit()
    path.unlink()
    repository.write("x/y")
    third, fourth = repository.commit(), repository.commit()
    assert diff(http, path, commit=second) == {"modified": "2\n", "original": "1\n"}
    assert diff(http, path, commit=third) == {"modified": "", "original": "2\n"}
    for query in ({"commit": fourth}, {}):
        answer = http.get("/api/git/diff", params={"path": str(path), **query})
        assert (answer.status_code, answer.json()["detail"]) == (400, f"Path is not a file: {path}")


def test_diff_outside_and_of_what_is_no_text(http: httpx.Client, repository: Repository, tmp_path: Path) -> None:
    (tmp_path / "outside").touch()
    assert diff(http, tmp_path / "outside") == {"modified": None, "original": None}
    assert diff(http, repository.write("binary", b"\xff\xfe\x00")) == {"modified": "", "original": ""}


def test_diff_refuses(http: httpx.Client, repository: Repository) -> None:
    repository.write("file")
    repository.commit()
    large = repository.write("large", "x" * ((1 << 20) + 1))
    file = str(repository.path / "file")
    for query, status, reason in (
        ({"path": str(repository.path / "nowhere")}, 400, "File does not exist: "),
        ({"path": str(large)}, 400, "File too large for git diff: 1048577 bytes (max: 1048576 bytes)"),
        ({"path": str(repository.path)}, 400, "Path is not a file"),
        ({"path": file, "ref": "main", "commit": "abcd"}, 400, "'ref' and 'commit' are mutually exclusive"),
        ({"path": file, "commit": "abcd1234"}, 400, "Git command failed: "),
        ({"path": file, "commit": "HEAD"}, 422, ""),
        ({"path": file, "commit": "abc"}, 422, ""),
        ({}, 422, ""),
    ):
        answer = http.get("/api/git/diff", params=query)
        assert answer.status_code == status, query
        assert reason in str(answer.json()["detail"])


# Commits


def test_commits_newest_first(http: httpx.Client, repository: Repository) -> None:
    assert commits(http, repository.path) == {"commits": [], "has_more": False}
    shas = [repository.commit(subject) for subject in ("one", "two", "three")]
    page = commits(http, repository.path, limit="2")
    assert [(each["sha"], each["subject"], each["author"]) for each in page["commits"]] == [
        (shas[2], "three", "n"),
        (shas[1], "two", "n"),
    ]
    assert page["has_more"] is True
    assert page["commits"][0]["sha"].startswith(page["commits"][0]["short_sha"])
    assert commits(http, repository.path)["has_more"] is False
    for limit in ("0", "201"):
        answer = http.get("/api/git/commits", params={"path": str(repository.path), "limit": limit})
        assert answer.status_code == 422


def test_commit_may_say_anything(http: httpx.Client, repository: Repository) -> None:
    subjects = ["", "unit\x1fseparator", "naïve"]
    for subject in subjects:
        repository.git("commit", "-q", "--allow-empty", "--allow-empty-message", "-m", subject)
    repository.git("config", "i18n.logOutputEncoding", "UTF-16")
    page = commits(http, repository.path)
    assert [each["subject"] for each in page["commits"]] == subjects[::-1]


def test_commits_of_a_bare_repository(http: httpx.Client, repository: Repository, tmp_path: Path) -> None:
    sha = repository.commit()
    bare = tmp_path / "bare.git"
    repository.git("clone", "-q", "--bare", str(repository.path), str(bare))
    assert [each["sha"] for each in commits(http, bare)["commits"]] == [sha]
    assert commits(http, tmp_path) == commits(http, tmp_path / "nowhere") == {"commits": [], "has_more": False}


def commits(http: httpx.Client, path: Path, **query: str) -> JsonObject:
    answer = http.get("/api/git/commits", params={"path": str(path), **query})
    found: JsonObject = answer.raise_for_status().json()
    return found


def test_changes_of_a_commit(http: httpx.Client, repository: Repository) -> None:
    repository.write("kept")
    repository.write("sub/file")
    root = repository.commit()
    repository.write("sub/file", "2\n")
    repository.write("new")
    second = repository.commit()
    repository.git("checkout", "-q", "-b", "side", root)
    repository.write("side")
    repository.commit()
    repository.git("checkout", "-q", "main")
    repository.git("merge", "-q", "--no-ff", "-m", "merge", "side")
    merge = repository.git("rev-parse", "HEAD").strip()

    def of(sha: str, path: Path = repository.path) -> dict[str, str]:
        answer = http.get(f"/api/git/commits/{sha}/changes", params={"path": str(path)}).raise_for_status()
        return {each["path"]: each["status"] for each in answer.json()}

    assert of(root) == {"kept": "ADDED", "sub/file": "ADDED"}
    assert of(second[:8], repository.path / "sub") == {"new": "ADDED", "sub/file": "UPDATED"}
    assert of(merge) == {"side": "ADDED"}
    query = {"path": str(repository.path)}
    assert http.get("/api/git/commits/HEAD/changes", params=query).status_code == 422
    assert http.get("/api/git/commits/abcd1234/changes", params=query).status_code == 400


# Many at once


def test_repositories_that_do_not_answer_keep_nothing_from_the_disk(
    http: httpx.Client, server: Server, repository: Repository, tmp_path: Path
) -> None:
    """And their programs end with those who wait for them."""
    sha = repository.commit()
    (tmp_path / "file").write_text("content")
    other = tmp_path / "other"
    shutil.copytree(repository.path, other)
    (repository.path / ".git" / "config").unlink()
    os.mkfifo(repository.path / ".git" / "config")
    asked = f"GET /api/git/commits?path={repository.path} HTTP/1.1\r\nHost: x\r\n\r\n"
    with ExitStack() as connections:
        for _ in range(_THREADS * 4):
            client = connections.enter_context(socket.create_connection(("127.0.0.1", server.port)))
            client.sendall(asked.encode())
        wait_until(lambda: len(programs_in(repository.path)) == _THREADS, "all threads wait for git")
        assert http.get("/api/file/download", params={"path": f"{tmp_path}/file"}).text == "content"
    wait_until(lambda: not programs_in(repository.path), "git has ended")
    assert [each["sha"] for each in commits(http, other)["commits"]] == [sha]
    assert "never retrieved" not in server.log


def programs_in(directory: Path) -> list[str]:
    """The ids of the processes that are at work there."""
    return [link.parent.name for link in Path("/proc").glob("[0-9]*/cwd") if os.path.realpath(link) == str(directory)]


# The older forms, and those below a conversation


def test_older_forms(http: httpx.Client, tmp_path: Path) -> None:
    repository = Repository(tmp_path / "with space")
    repository.write("file")
    path = quote(str(repository.path))
    for form in (f"/{path}", path):
        assert http.get(f"/api/git/changes{form}").json() == [{"status": "ADDED", "path": "file"}]
        assert http.get(f"/api/git/diff{form}/file").json() == {"modified": "1", "original": ""}


def test_conversations_repository(http: httpx.Client, conversation: Conversations, tmp_path: Path) -> None:
    one = conversation()
    inside = Path(conversation.working_dir)
    (inside / "file").write_text("1\n")
    (inside / "way-out").symlink_to(tmp_path)
    listed = one.get("/git/changes", params={"path": str(inside)}).json()
    assert {"status": "ADDED", "path": "file"} in listed
    assert one.get("/git/diff", params={"path": f"{inside}/file"}).json()["modified"] == "1"
    assert one.get("/git/commits", params={"path": str(inside)}).json() == {"commits": [], "has_more": False}
    for route in ("changes", "diff", "commits", "commits/abcd/changes"):
        for path in ("/", "relative", f"{inside}/..", f"{inside}/way-out", f"{inside}/a\0"):
            assert one.get(f"/git/{route}", params={"path": path}).status_code == 422, (route, path)
