"""`GET /api/file/archive`: patches that make the work tree again, and archives without secrets."""

from __future__ import annotations

import gzip
import io
import json
import os
import subprocess
import tarfile
import threading
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import httpx
import pytest

from service.blueprints.archive import ArchiveQuery, write_archive
from service.blueprints.http.places import place
from service.errors import BadRequest
from service.git.archive import archive_root, base_of_patch, write_patch, write_tar
from service.git.program import GivenUp, given_up
from service.open_directory import opened
from tests.integration.contract.conversations import Conversations
from tests.integration.contract.repository import Repository
from tests.unprivileged import unprivileged


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path / "repo")


def archive(http: httpx.Client, path: object, **query: Any) -> httpx.Response:
    return http.get("/api/file/archive", params={"path": str(path), **query})


def members(response: httpx.Response) -> dict[str, bytes | None]:
    """Names and contents; None for directories."""
    with tarfile.open(fileobj=io.BytesIO(response.raise_for_status().content)) as tar:
        files = {member.name: tar.extractfile(member) for member in tar.getmembers()}
        return {name: None if file is None else file.read() for name, file in files.items()}


def applied(patch: bytes, base: Repository, commit: str, target: Path) -> dict[str, bytes]:
    """The files of the work tree that a patch makes of a commit; links as what they lead to."""
    subprocess.run(["git", "clone", "-q", str(base.path), str(target)], check=True)
    subprocess.run(["git", "checkout", "-q", commit], cwd=target, check=True)
    if patch:
        subprocess.run(["git", "apply", "--binary", "-"], input=patch, cwd=target, check=True)
    return files_of(target)


def files_of(directory: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(directory)): os.readlink(path).encode() if path.is_symlink() else path.read_bytes()
        for path in directory.rglob("*")
        if ".git" not in path.parts and (path.is_symlink() or path.is_file())
    }


def test_patch_makes_the_work_tree(http: httpx.Client, repository: Repository, tmp_path: Path) -> None:
    """Changed, deleted, new, binary, odd names, modes and links; what is ignored is not in it."""
    for name in ("kept", "changed", "deleted"):
        repository.write(name, f"{name}\n")
    repository.write(".gitignore", "ignored\n")
    base = repository.commit()
    repository.write("changed", "other\n")
    repository.write("new/with space", "new\n").chmod(0o755)
    repository.write("naïve", bytes(range(256)))
    repository.write("ignored", "secret\n")
    (repository.path / "deleted").unlink()
    (repository.path / "link").symlink_to("kept")
    index = (repository.path / ".git" / "index").read_bytes()
    objects = sorted((repository.path / ".git" / "objects").rglob("*"))

    response = archive(http, repository.path, base_ref="HEAD").raise_for_status()

    assert response.headers["content-type"] == "text/x-patch; charset=utf-8"
    assert response.headers["content-disposition"] == 'attachment; filename="repo.patch"'
    told = {name: unquote(response.headers[f"x-archive-{name}"]) for name in ("repo-root", "branch", "head-commit")}
    assert told == {"repo-root": str(repository.path), "branch": "main", "head-commit": base}
    assert (response.headers["x-archive-base-commit"], response.headers["x-archive-base-ref"]) == (base, "HEAD")
    expected = files_of(repository.path)
    del expected["ignored"]
    assert applied(response.content, repository, base, tmp_path / "again") == expected
    # The repository was only read.
    assert (repository.path / ".git" / "index").read_bytes() == index
    assert sorted((repository.path / ".git" / "objects").rglob("*")) == objects


def test_patch_begins_where_the_branch_was_published(http: httpx.Client, repository: Repository) -> None:
    """Without any such place it makes everything, and without any change it is empty."""
    repository.write("one")
    published = repository.commit()
    everything = archive(http, repository.path)
    assert b"b/one" in everything.content
    assert "x-archive-base-commit" not in everything.headers
    assert archive(http, repository.path, base_ref="HEAD").content == b""

    repository.git("remote", "add", "origin", "https://user:token@example.org/o/r.git")
    repository.git("update-ref", "refs/remotes/origin/main", published)
    repository.write("two", "2\n")
    repository.commit()
    response = archive(http, repository.path)
    assert response.headers["x-archive-base-commit"] == published
    assert response.headers["x-archive-base-ref"] == "auto"
    assert unquote(response.headers["x-archive-repo-remote"]) == "https://***@example.org/o/r.git"
    assert b"b/two" in response.content
    assert b"b/one" not in response.content

    repository.git("checkout", "-q", "--detach")
    detached = archive(http, repository.path)
    assert detached.headers["x-archive-branch"] == "DETACHED"
    assert detached.content == b""


def test_patch_of_a_subdirectory_is_of_that_subtree(http: httpx.Client, repository: Repository) -> None:
    """Its paths are the repository's, where `git apply` wants them."""
    repository.write("sub/in", "in\n")
    repository.write("out", "out\n")
    content = archive(http, repository.path / "sub").raise_for_status().text
    assert "+++ b/sub/in" in content
    assert "out" not in content


def test_repository_inside_without_a_commit_is_left_out(http: httpx.Client, repository: Repository) -> None:
    """Git could only name its commit; one that has one is named."""
    repository.write("kept")
    repository.commit()
    repository.write("new")
    committed, empty = Repository(repository.path / "committed"), Repository(repository.path / "below" / "em[p]ty")
    committed.write("own")
    commit = committed.commit()
    empty.write("own")
    patch = archive(http, repository.path, base_ref="HEAD").raise_for_status().text
    assert "b/new" in patch
    assert f"+Subproject commit {commit}" in patch
    assert "own" not in patch
    assert "em[p]ty" not in patch


def test_only_repository_below_is_archived(http: httpx.Client, tmp_path: Path) -> None:
    """Up to three levels; of two neither, and hidden ones are not looked for."""
    Repository(tmp_path / "top" / "a" / "repo").write("file")
    Repository(tmp_path / "top" / ".hidden").write("file")
    found = archive(http, tmp_path / "top").raise_for_status()
    assert unquote(found.headers["x-archive-repo-root"]) == str(tmp_path / "top" / "a" / "repo")
    assert "repo/file" in members(archive(http, tmp_path / "top", format="tar.gz"))
    Repository(tmp_path / "top" / "b")
    refused = archive(http, tmp_path / "top")
    assert (refused.status_code, refused.json()["detail"]) == (400, f"Not a git repository: {tmp_path}/top")
    assert "top/a/repo/file" in members(archive(http, tmp_path / "top", format="tar.gz"))


def test_repository_is_found_beside_what_nobody_may_look_into(tmp_path: Path) -> None:
    """At the place of a repository, and on the way to one."""
    Repository(tmp_path / "top" / "a" / "repo").write("file")
    for name in ("top/a/closed", "top/closed"):
        (tmp_path / name).mkdir(mode=0)
    (tmp_path / "top").chmod(0o755)
    with opened(tmp_path / "top") as held, unprivileged():
        assert archive_root(held) == Path("a/repo")


def test_tar_holds_files_and_directories(http: httpx.Client, repository: Repository) -> None:
    """Ignored files, too; no links, and a manifest says what it is."""
    repository.write(".gitignore", "ignored\n")
    for name in ("file", "ignored", "sub/file", "node_modules/x", "sub/x.pyc", "dist"):
        repository.write(name, "12\n")
    (repository.path / "empty").mkdir()
    (repository.path / "link").symlink_to("/etc/passwd")
    os.mkfifo(repository.path / "pipe")

    response = archive(http, repository.path, format="tar.gz")

    assert response.headers["content-type"] == "application/gzip"
    assert response.headers["content-disposition"] == 'attachment; filename="repo.tar.gz"'
    found = members(response)
    manifest = json.loads(found.pop("repo/archive_manifest.json") or b"")
    names = {
        "repo",
        "repo/.gitignore",
        "repo/file",
        "repo/ignored",
        "repo/sub",
        "repo/sub/file",
        "repo/empty",
        "repo/dist",
    }
    assert set(found) == names
    assert found["repo/file"] == b"12\n"
    assert found["repo/empty"] is None
    assert (manifest["format"], manifest["source"], manifest["file_count"]) == ("tar.gz", "repo", 5)
    assert manifest["total_bytes"] == 4 * 3 + len("ignored\n")
    assert "node_modules/" in manifest["excludes"]


def test_users_manifest_is_left_alone(http: httpx.Client, repository: Repository) -> None:
    repository.write("archive_manifest.json", "mine")
    assert members(archive(http, repository.path, format="tar.gz"))["repo/archive_manifest.json"] == b"mine"


@pytest.mark.parametrize(
    ("exclude", "left_out"),
    [
        ("a", {"a", "sub/a", "sub/dir/a"}),
        ("*.txt", {"b.txt"}),
        ("sub/a", {"sub/a"}),
        ("/sub/*/a", {"sub/dir/a"}),
        ("dir/", {"sub/dir/a", "sub/dir/c"}),
        ("a/", set()),
    ],
)
def test_patterns_leave_out(http: httpx.Client, repository: Repository, exclude: str, left_out: set[str]) -> None:
    """The same from both formats."""
    names = {"a", "b.txt", "sub/a", "sub/dir/a", "sub/dir/c"}
    for name in names:
        repository.write(name, f"{name}\n")
    tar = members(archive(http, repository.path, format="tar.gz", exclude=exclude))
    assert {name for name in names if f"repo/{name}" not in tar} == left_out
    patch = archive(http, repository.path, exclude=exclude).text
    assert {name for name in names if f"+++ b/{name}\n" not in patch} == left_out


def test_credentials_of_git_are_never_in_it(http: httpx.Client, repository: Repository) -> None:
    """Even when everything is wanted, of nested repositories, too."""
    nested = Repository(repository.path / "nested")
    for each in (nested, repository):
        each.write("file")
        each.commit()
        each.git("remote", "add", "origin", "https://user:s3cr3t@example.org/o/r.git")
        (each.path / ".git" / "FETCH_HEAD").write_text("s3cr3t")
        (each.path / ".git" / "logs" / "HEAD").write_text("s3cr3t")
    repository.write(".git-credentials", "s3cr3t")
    found = members(archive(http, repository.path, format="tar.gz", use_default_excludes=False))
    assert "repo/.git/HEAD" in found
    assert "repo/nested/.git/HEAD" in found
    assert [name for name, content in found.items() if b"s3cr3t" in (content or b"")] == []


@pytest.mark.parametrize(
    ("path", "query", "status", "detail"),
    [
        ("relative", {}, 400, "Path must be absolute"),
        ("{tmp}/none", {}, 404, "Directory not found"),
        ("{tmp}/file", {}, 400, "Path is not a directory"),
        ("{tmp}", {}, 400, "Not a git repository: {tmp}"),
        ("{tmp}/repo", {"base_ref": "nosuch"}, 400, "base_ref 'nosuch' could not be resolved"),
        ("{tmp}/repo", {"base_ref": "\0"}, 400, "base_ref '\0' could not be resolved"),
        ("{tmp}/repo", {"base_ref": "--output=x"}, 400, "base_ref must not start with '-'"),
    ],
)
def test_refusals(http: httpx.Client, tmp_path: Path, path: str, query: Any, status: int, detail: str) -> None:
    (tmp_path / "file").touch()
    if query:
        Repository(tmp_path / "repo")
    answer = archive(http, path.format(tmp=tmp_path), **query)
    assert (answer.status_code, answer.json()["detail"]) == (status, detail.format(tmp=tmp_path))


def test_wrong_queries(http: httpx.Client) -> None:
    assert http.get("/api/file/archive").status_code == 422
    assert archive(http, "/tmp", format="zip").status_code == 422


def test_conversation_archives_its_workspace_only(
    http: httpx.Client, conversation: Conversations, tmp_path: Path
) -> None:
    one = conversation()
    folder = Path(one.info["workspace"]["working_dir"])
    (folder / "inside").write_text("1")
    inside = http.get(f"{one.path}/file/archive", params={"path": str(folder), "format": "tar.gz"})
    assert f"{folder.name}/inside" in members(inside)
    assert http.get(f"{one.path}/file/archive", params={"path": str(tmp_path)}).status_code == 422


# What changes meanwhile


def test_file_that_shrinks_is_filled_up(tmp_path: Path) -> None:
    """With zeros, as GNU tar does; what comes after it is whole."""
    source = tmp_path / "source"
    source.mkdir()
    (source / "a").write_bytes(os.urandom(4 << 20))
    (source / "b").write_text("after")

    class Shrinking(io.BytesIO):
        """A file to write to; once it has a part of `a`, nothing more of that is left."""

        def write(self, data: Any, /) -> int:
            if self.tell() > 1 << 20:
                os.truncate(source / "a", 0)
            return super().write(data)

    written = Shrinking()
    write_tar(source, "source", (), written)
    written.seek(0)
    with tarfile.open(fileobj=written) as tar:
        a, b = (tar.extractfile(f"source/{name}") for name in "ab")
        assert a is not None
        content = a.read()
        assert (len(content), content[-1]) == (4 << 20, 0)
        assert b is not None
        assert b.read() == b"after"


def test_archive_that_nobody_waits_for_is_given_up(tmp_path: Path) -> None:
    """The bad state by hand: the client leaves in the middle of a file."""
    (tmp_path / "file").write_bytes(os.urandom(4 << 20))
    event = threading.Event()

    class Left(io.BytesIO):
        def write(self, data: Any, /) -> int:
            if self.tell() > 1 << 20:
                event.set()
            return super().write(data)

    token = given_up.set(event)
    try:
        with pytest.raises(GivenUp):
            write_tar(tmp_path, "top", (), Left())
    finally:
        given_up.reset(token)


@pytest.mark.parametrize("remote", ["https://[broken/r.git", "https://a:b@[broken", "git@example.org:o/r.git", "x y"])
def test_remote_may_be_anything(http: httpx.Client, repository: Repository, remote: str) -> None:
    repository.git("remote", "add", "origin", remote)
    response = archive(http, repository.path).raise_for_status()
    assert unquote(response.headers["x-archive-repo-remote"]) == remote.replace("a:b@", "***@")


@pytest.mark.parametrize("wanted_format", ["tar.gz", "git-delta"])
def test_directory_that_becomes_a_link_is_not_followed(tmp_path: Path, wanted_format: str) -> None:
    """The bad state by hand: after the check, and after the directory was opened."""
    inside, outside = tmp_path / "workspace", tmp_path / "outside"
    for directory, text in ((inside / "sub", "mine"), (outside, "secret")):
        Repository(directory).write("file", text)
    found = place(f"{inside}/sub", "path", str(inside))
    wanted = ArchiveQuery(path=str(found.path), format=wanted_format)
    with found.held() as (held, _):
        (inside / "sub").rename(inside / "moved")
        (inside / "sub").symlink_to(outside)
        opened = io.BytesIO()
        if wanted_format == "tar.gz":
            write_tar(held, "sub", (), opened)
            content = gzip.decompress(opened.getvalue())
        else:
            with (tmp_path / "patch").open("w+b") as file:
                write_patch(held, base_of_patch(held, None), (), file)
            content = (tmp_path / "patch").read_bytes()
    assert b"mine" in content
    assert b"secret" not in content
    with pytest.raises(BadRequest), (tmp_path / "archive").open("w+b") as file:
        write_archive(found, wanted, file)
    assert (tmp_path / "archive").read_bytes() == b""
