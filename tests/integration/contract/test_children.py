"""Conversations that others have started, and the worktrees that keep them apart."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import httpx
import pytest

from service.demo.scripted_llm import ScriptedLlm
from tests.integration.contract.conversations import PATH, Conversation, Conversations, JsonObject, terminal
from tests.integration.contract.repository import Repository
from tests.server_process import Server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with worktrees of its own."""
    directory = tmp_path_factory.mktemp("server")
    with Server(directory, {"OH_CONVERSATION_WORKTREE_ROOT": str(directory / "trees")}) as running:
        yield running


@pytest.fixture
def repository(project: Path) -> Repository:
    """The workspace, with a commit."""
    made = Repository(project)
    made.write("file", "content\n")
    made.write("sub/file", "content\n")
    made.commit()
    return made


def start(conversation: Conversations, parent: Conversation, **fields: str) -> tuple[JsonObject, Conversation]:
    """A child with a task; what is told of it, and its handle."""
    answer = parent.post("/children", {"task": "SAY the part is done", **fields})
    assert answer.status_code == 201, answer.text
    told: JsonObject = answer.json()
    return told, conversation.adopt(told["conversation_id"])


# Children


def test_child_works_for_its_task(conversation: Conversations, llm: ScriptedLlm) -> None:
    """With its parent's agent, tags and secrets; each tells of the other, as lists do."""
    parent = conversation(tags={"team": "a"}, secrets={"TOKEN": {"kind": "StaticSecret", "value": "v"}})
    told, child = start(conversation, parent, title="Kid", isolation="shared")
    working_dir = conversation.working_dir
    assert told == {
        "conversation_id": child.id,
        "parent_conversation_id": parent.id,
        "status": "idle",
        "title": "Kid",
        "url": None,
        "workspace": working_dir,
        "isolation": "shared",
    }
    child.wait_status("finished")
    assert child.outline == ["user", "agent: the part is done"]
    info = child.info
    assert (info["parent_conversation_id"], info["tags"], info["title"]) == (parent.id, {"team": "a"}, "Kid")
    assert list(info["secret_registry"]["secret_sources"]) == ["TOKEN"]
    _, second = start(conversation, parent, isolation="shared")
    assert parent.info["sub_conversation_ids"] == [child.id, second.id]
    listed = {each["id"]: each for each in parent.http.get(f"{PATH}/search").json()["items"]}
    assert listed[parent.id]["sub_conversation_ids"] == [child.id, second.id]
    assert (parent.events, child.info["sub_conversation_ids"]) == ([], [])


def test_child_is_started_by_a_tool_of_its_parent(conversation: Conversations, tmp_path: Path) -> None:
    """While that tool holds the parent."""
    parent, gate = conversation.with_terminal(), tmp_path / "go"
    parent.send(terminal(f"while [ ! -e {gate} ]; do sleep 0.05; done"), "SAY x", run=True)
    parent.wait_event("the tool runs", lambda event: event["kind"] == "ActionEvent")
    _, child = start(conversation, parent, isolation="shared")
    child.wait_status("finished")
    assert parent.status == "running"
    gate.touch()
    parent.wait_status("finished")


def test_deleted_parent_leaves_orphans_and_deleted_child_is_forgotten(conversation: Conversations) -> None:
    parent = conversation()
    _, child = start(conversation, parent, isolation="shared")
    _, gone = start(conversation, parent, isolation="shared")
    gone.delete().raise_for_status()
    assert parent.info["sub_conversation_ids"] == [child.id]
    parent.delete().raise_for_status()
    assert child.info["parent_conversation_id"] == parent.id
    child.delete().raise_for_status()


def test_create_may_name_a_parent(conversation: Conversations, tmp_path: Path) -> None:
    """One that is there and works in the same folder."""
    parent = conversation()
    child = conversation(parent_conversation_id=parent.id)
    assert parent.info["sub_conversation_ids"] == [child.id]
    unknown, own = str(uuid4()), str(uuid4())
    elsewhere = {"working_dir": str(tmp_path / "elsewhere")}
    for fields, reason in (
        ({"parent_conversation_id": unknown}, f"Parent conversation {unknown} not found"),
        ({"parent_conversation_id": own, "conversation_id": own}, "A conversation cannot be its own parent"),
        (
            {"parent_conversation_id": parent.id, "workspace": elsewhere},
            f"Parent conversation {parent.id} belongs to a different workspace",
        ),
    ):
        refused = conversation.create(**fields)
        assert (refused.status_code, refused.json()["detail"]) == (422, reason)
    assert parent.info["sub_conversation_ids"] == [child.id]


@pytest.mark.parametrize("content", [{}, {"task": ""}, {"task": "x", "isolation": "none"}])
def test_what_is_no_child_is_refused(conversation: Conversations, content: JsonObject) -> None:
    assert conversation().post("/children", content).status_code == 422


# Worktrees


def test_child_has_a_worktree_of_its_own(conversation: Conversations, repository: Repository, server: Server) -> None:
    """On a branch that is kept when the conversation, and what it has not committed, is deleted."""
    parent = conversation()
    told, child = start(conversation, parent)
    path = server.directory / "trees" / child.id / repository.path.name
    assert (told["isolation"], told["workspace"]) == ("worktree", str(path))
    assert (path / "file").read_text() == "content\n"
    assert child.info["workspace"]["working_dir"] == str(path)
    child.wait_status("finished")
    prompt = child.events[0]
    assert f"openhands/{child.id}" in str(prompt)
    assert f"openhands/{child.id}" in repository.branches
    (path / "file").write_text("changed\n")
    assert (repository.path / "file").read_text() == "content\n"
    child.delete().raise_for_status()
    assert not path.parent.exists()
    assert f"openhands/{child.id}" in repository.branches


@pytest.mark.parametrize("has_repository", [True, False])
def test_without_a_commit_a_child_shares(conversation: Conversations, project: Path, *, has_repository: bool) -> None:
    if has_repository:
        Repository(project)
    told, _ = start(conversation, conversation())
    assert (told["isolation"], told["workspace"]) == ("shared", str(project))


def test_create_makes_a_worktree(conversation: Conversations, repository: Repository, server: Server) -> None:
    """For the folder that was named, from where it is told to; a second time it is the same."""
    first = repository.git("rev-parse", "HEAD").strip()
    repository.git("tag", "v1")
    repository.write("later", "later\n")
    repository.commit()
    chosen = str(uuid4())
    fields = {
        "conversation_id": chosen,
        "workspace": {"working_dir": str(repository.path / "sub")},
        "worktree": True,
        "worktree_options": {"base": "ref", "ref": "v1", "branch_prefix": "mine/"},
    }
    one = conversation(**fields)
    path = server.directory / "trees" / chosen / repository.path.name
    assert one.info["workspace"]["working_dir"] == str(path / "sub")
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=path, capture_output=True, text=True, check=True).stdout
    assert head.strip() == first
    assert f"mine/{chosen}" in repository.branches
    again = conversation.create(**fields)
    assert (again.status_code, again.json()["workspace"]["working_dir"]) == (200, str(path / "sub"))


def test_repository_makes_the_server_run_nothing(
    conversation: Conversations, repository: Repository, server: Server, tmp_path: Path
) -> None:
    """Its files come into the worktree as they are stored, whatever filters its configuration names."""
    repository.write(".gitattributes", "* filter=evil\n")
    repository.commit()
    for key in ("filter.evil.smudge", "filter.evil.process", "core.fsmonitor"):
        repository.git("config", key, f"touch {tmp_path}/ran; cat")
    repository.git("config", "filter.evil.required", "true")
    one = conversation(worktree=True)
    assert (Path(one.info["workspace"]["working_dir"]) / "file").read_text() == "content\n"
    assert not (tmp_path / "ran").exists()


def test_unknown_ref_makes_nothing(conversation: Conversations, repository: Repository, server: Server) -> None:
    chosen = str(uuid4())
    options = {"base": "ref", "ref": "nosuch"}
    refused = conversation.create(conversation_id=chosen, worktree=True, worktree_options=options)
    assert (refused.status_code, refused.json()["detail"]) == (422, "The worktree's ref 'nosuch' is unknown")
    assert not (server.directory / "trees" / chosen).exists()
    assert conversation.handle(chosen).get().status_code == 404


def test_worktree_stays_while_another_conversation_works_in_it(
    conversation: Conversations, repository: Repository, server: Server
) -> None:
    one = conversation(worktree=True)
    fork = conversation.adopt(one.post("/fork").json()["id"])
    path = server.directory / "trees" / one.id
    one.delete().raise_for_status()
    assert path.exists()
    assert fork.info["workspace"]["working_dir"].startswith(str(path))


# Observability


def test_headers_fill_in_what_the_body_leaves_out(
    http: httpx.Client, conversation: Conversations, server: Server
) -> None:
    """Metadata is merged, and the body's counts."""
    headers = {
        "X-OpenHands-Observability-Span-Name": "of-the-header",
        "X-OpenHands-Observability-Tags": "a, b",
        "X-OpenHands-Observability-Metadata": '{"k": "header", "only": "header"}',
    }
    body = conversation.request(observability_span_name="of-the-body", observability_metadata={"k": "body"})
    created = http.post(PATH, json=body, headers=headers)
    assert created.status_code == 201, created.text
    one = conversation.adopt(created.json()["id"])
    kept = json.loads((server.conversations_path / one.id.replace("-", "") / "meta.json").read_text())
    assert kept["observability_span_name"] == "of-the-body"
    assert kept["observability_tags"] == ["a", "b"]
    assert kept["observability_metadata"] == {"k": "body", "only": "header"}
    refused = http.post(PATH, json=body, headers={"X-OpenHands-Observability-Metadata": "[1]"})
    assert (refused.status_code, refused.json()["detail"]) == (
        422,
        "X-OpenHands-Observability-Metadata must be a JSON object",
    )
