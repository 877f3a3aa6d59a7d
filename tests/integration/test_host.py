"""A conversation whose start or end fails in the middle: nothing of it stays with the runner, and the lease is free."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import shutil
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch
from uuid import UUID, uuid4

import httpx
import pytest
from openhands.sdk import LLM, Agent, Message
from openhands.sdk.conversation.impl.local_conversation import LocalConversation
from openhands.sdk.conversation.state import ConversationExecutionStatus
from openhands.sdk.mcp.utils import DefaultMCPToolProvider
from openhands.sdk.utils.cipher import Cipher
from openhands.sdk.workspace import LocalWorkspace
from redis.asyncio import Redis

from service.catalog.catalog import Catalog
from service.catalog.index import IndexEntry
from service.catalog.keys import Keys
from service.errors import BrokerUnavailable, InvalidRequest, OwnerMoving, OwnershipLost, RequestFailed
from service.identity import RunnerId
from service.redis_source import RedisSource
from service.requests.message import Request
from service.runner.agent_loop import PROCESS_AGENT_LOOP
from service.runner.bash.host import BashHost
from service.runner.conversation import command_queue, hosted, reporter
from service.runner.conversation.creation import Plan
from service.runner.conversation.hosted import HostedConversation
from service.runner.conversation.meta import Meta
from service.runner.conversation.opening import Opener
from service.runner.conversation.reporter import Reporter
from service.runner.extensions.extensions import Extensions
from service.runner.operations.children import ChildOperations
from service.runner.operations.conversations import ConversationOperations
from service.runner.operations.table import Operations
from service.runner.ownership import host as host_module
from service.runner.ownership import takeover
from service.runner.ownership.host import Host
from service.runner.servers.credential_bindings import CredentialBindings
from service.runner.webhooks.webhooks import Webhooks
from service.runner.wire.request_models import ForkConversationRequest
from service.runner.workers import Workers
from service.settings import Settings
from service.settings.values import WebhookSpec
from service.store.owner_record import NOBODY, claim, read_owner
from service.store.snapshot import Snapshot, read_snapshot
from tests.integration.complete_index import complete
from tests.integration.contract.repository import Repository
from tests.unit.runner.rig import RecordingPublisher, ScriptedLLM, says
from tests.unit.runner.small_disk import SmallDisk
from tests.waiting import wait_until_async

RUNNER = RunnerId("runner")
CIPHER = Cipher("key of the tests")


@pytest.fixture
async def catalog(source: RedisSource, keys: Keys, stack: AsyncExitStack) -> Catalog:
    redis = source.commands()
    stack.push_async_callback(redis.aclose)
    return Catalog(redis, keys, 10.0)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """With a receiver of webhooks, where nobody listens."""
    return Settings(
        conversations_path=tmp_path / "conversations",
        workspace_path=tmp_path / "workspace",
        bash_events_dir=tmp_path / "bash_events",
        conversation_worktree_root=tmp_path / "trees",
        persistence_dir=tmp_path / "persistence",
        fsync=False,
        webhooks=[WebhookSpec(base_url="http://127.0.0.1:9", num_retries=0)],
    )


@pytest.fixture
def workers() -> Iterator[Workers]:
    workers = Workers()
    yield workers
    workers.close()


@pytest.fixture
async def webhooks(
    settings: Settings, catalog: Catalog, workers: Workers, stack: AsyncExitStack
) -> AsyncIterator[Webhooks]:
    client = await stack.enter_async_context(httpx.AsyncClient(trust_env=False))
    webhooks = Webhooks(settings, catalog.untold, workers, client)
    yield webhooks
    await webhooks.letters.close()


Running = Callable[..., AbstractAsyncContextManager[Host]]
"""Called with a runner's id and changes of its settings."""


@pytest.fixture
def running(settings: Settings, catalog: Catalog, keys: Keys, workers: Workers, webhooks: Webhooks) -> Running:
    """Hosts of runners, all on one disk."""

    @asynccontextmanager
    async def run(runner_id: RunnerId, **changes: Any) -> AsyncIterator[Host]:
        own = settings.model_copy(update=changes)
        agent_loop = PROCESS_AGENT_LOOP.acquire()
        bindings = CredentialBindings(CIPHER, fsync=False)
        opener = Opener(
            own, runner_id, RecordingPublisher(), keys, CIPHER, bindings, lambda _: DefaultMCPToolProvider()
        )
        host = Host(own, runner_id, opener, catalog, agent_loop, workers, webhooks)
        try:
            yield host
            await host.drain()
        finally:
            PROCESS_AGENT_LOOP.release()

    return run


@pytest.fixture
async def host(running: Running) -> AsyncIterator[Host]:
    with (
        patch.object(hosted, "_LAST_WEBHOOKS_SECONDS", 0.01),
        patch.object(hosted, "_LAST_COMMANDS_SECONDS", 20.0),  # the machine may be slow
    ):
        async with running(RUNNER) as host:
            yield host


def planned(host: Host, *answers: Message, initial_message: bytes | None = None, **fields: Any) -> Plan:
    """A new conversation, under an id of its own; `fields` are of its record."""
    workspace = LocalWorkspace(working_dir=str(host.root.path.parent / "project"))
    meta = Meta(id=uuid4(), workspace=workspace, **fields)
    return Plan(meta, Agent(llm=ScriptedLLM.of(*answers), tools=[]), {}, initial_message)


def body(text: str, *, run: bool = False) -> bytes:
    """A message as it is posted."""
    return json.dumps({"content": [{"type": "text", "text": text}], "run": run}).encode()


def tasks_of(conversation_id: UUID) -> set[str]:
    """What goes on for it in the background."""
    return {task.get_name() for task in asyncio.all_tasks() if str(conversation_id) in task.get_name()}


async def assert_let_go(host: Host, catalog: Catalog, conversation_id: UUID) -> None:
    assert await catalog.owners.find(conversation_id) is None
    await wait_until_async(lambda: not tasks_of(conversation_id), "nothing goes on for it")
    await host.renew_leases()
    assert await catalog.owners.find(conversation_id) is None


def without_snapshots(host: Host) -> SmallDisk:
    """The last file of a start does not fit."""
    return SmallDisk(host.root.path, lambda name: "snapshot" in name)


async def test_create_that_cannot_be_shown_leaves_nothing_behind(host: Host, catalog: Catalog) -> None:
    """Its repetition makes the conversation."""
    plan = planned(host)
    with without_snapshots(host), pytest.raises(OSError, match="No space"):
        await host.create(plan)
    await assert_let_go(host, catalog, plan.meta.id)
    assert host.hosted == 0
    assert not host.root.directory(plan.meta.id).path.exists()
    _, is_new = await host.create(plan)
    assert is_new


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    """The folder that conversations are to work in, with a commit."""
    made = Repository(tmp_path / "project")
    made.commit()
    return made


def worktree_of(one: HostedConversation) -> Repository:
    return Repository(Path(one.reporter.meta.workspace.working_dir))


async def test_create_that_fails_leaves_nothing_of_its_worktree(host: Host, repository: Repository) -> None:
    """Its repetition makes both."""
    plan = planned(host, worktree=True)
    with without_snapshots(host), pytest.raises(OSError, match="No space"):
        await host.create(plan)
    assert repository.branches == {"main"}
    assert len(repository.worktrees) == 1
    made, _ = await host.create(plan)
    assert repository.branches == {"main", f"openhands/{plan.meta.id}"}
    assert worktree_of(made).head == repository.head


async def test_create_goes_on_with_the_branch_of_a_deleted_conversation(host: Host, repository: Repository) -> None:
    """Whatever has become of the folder; a branch without work begins anew."""
    plan = planned(host, worktree=True)
    made, _ = await host.create(plan)
    tree = worktree_of(made)
    await host.delete(plan.meta.id)
    moved = repository.commit()
    made, _ = await host.create(plan)
    assert tree.head == moved
    work = tree.commit()
    shutil.rmtree(made.directory.path)  # a runner that is killed may leave it like this
    await host.close_all()
    made, _ = await host.create(plan)
    assert tree.head == work
    await host.delete(plan.meta.id)
    shutil.rmtree(tree.path.parent, ignore_errors=True)
    with without_snapshots(host), pytest.raises(OSError, match="No space"):
        await host.create(plan)
    await host.create(plan)
    assert tree.head == work


async def test_repository_that_has_its_files_elsewhere_gets_no_worktree(
    host: Host, repository: Repository, tmp_path: Path
) -> None:
    """Be it in another repository: the folder that the conversation is to work in is not there."""
    elsewhere = Repository(tmp_path / "elsewhere")
    elsewhere.commit()
    repository.git("config", "core.worktree", str(elsewhere.path))
    made, _ = await host.create(planned(host, worktree=True))
    assert made.reporter.meta.workspace.working_dir == str(repository.path)
    assert len(elsewhere.worktrees) == 1


async def test_create_does_not_take_away_the_worktree_another_works_in(host: Host, repository: Repository) -> None:
    """A fork of a conversation that was deleted, whose id is asked for again."""
    plan = planned(host, worktree=True)
    source, _ = await host.create(plan)
    fork = await host.fork(source, uuid4(), ForkConversationRequest())
    await host.delete(plan.meta.id)
    with pytest.raises(InvalidRequest, match="Another conversation works in"):
        await host.create(plan)
    assert worktree_of(fork).head == repository.head


async def test_create_takes_the_place_of_one_that_was_killed(host: Host) -> None:
    """Before the conversation was there."""
    plan = planned(host)
    directory = host.root.directory(plan.meta.id)
    directory.path.mkdir(parents=True)
    directory.meta.write_text("{}")
    _, is_new = await host.create(plan)
    assert is_new


async def test_fork_that_cannot_be_shown_leaves_nothing_behind(host: Host, catalog: Catalog) -> None:
    """Its source goes on."""
    source, _ = await host.create(planned(host))
    fork_id = uuid4()
    with without_snapshots(host), pytest.raises(OSError, match="No space"):
        await host.fork(source, fork_id, ForkConversationRequest())
    await assert_let_go(host, catalog, fork_id)
    assert host.hosted == 1
    assert not host.root.directory(fork_id).path.exists()
    await host.fork(source, fork_id, ForkConversationRequest())


async def test_conversation_that_cannot_be_shown_is_let_go(host: Host, catalog: Catalog) -> None:
    """And opened by the next request that finds room."""
    one, _ = await host.create(planned(host))
    await host.close_all()
    with without_snapshots(host), pytest.raises(RequestFailed, match="No space"):
        await host.open(one.conversation_id)
    await assert_let_go(host, catalog, one.conversation_id)
    assert host.hosted == 0
    await host.open(one.conversation_id)


class SlowDisk(SmallDisk):
    """While this is entered, no file is made below `path` before `go_on` is set."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, self._refuses_at_last)
        self.is_asked, self.go_on = threading.Event(), threading.Event()

    def _refuses_at_last(self, name: str) -> bool:
        self.is_asked.set()
        return not self.go_on.wait(20.0)


async def test_conversation_that_cannot_be_opened_is_taken_over_later(host: Host, catalog: Catalog) -> None:
    """Not each time it is found without an owner."""
    broken, _ = await host.create(planned(host))
    other, _ = await host.create(planned(host))
    await host.close_all()
    broken.directory.base_state.write_text("{}")
    with patch.object(takeover, "_AT_ONCE", 1), patch.object(takeover, "_AGAIN_SECONDS", 20.0):
        taking = takeover.Takeover(host, RUNNER, catalog)
        for _ in range(2):
            await taking.begin([broken.conversation_id])
            await taking.begin([other.conversation_id])  # behind it
            await wait_until_async(lambda: host.hosted == 1, "the other is opened")
            await host.close_all()
    record = read_owner(broken.directory)
    assert record is not None
    assert record.lease_epoch == 2
    await taking.stop()


async def test_cancelled_opening_lets_go(host: Host, catalog: Catalog) -> None:
    """After the thread that opens: what it claims and constructs is nobody's."""
    one, _ = await host.create(planned(host))
    await host.close_all()
    with SlowDisk(host.root.path) as disk:
        opening = asyncio.create_task(host.open(one.conversation_id))
        await wait_until_async(disk.is_asked.is_set, "a thread opens it")
        opening.cancel()
        disk.go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await opening
    await assert_let_go(host, catalog, one.conversation_id)
    assert host.hosted == 0
    await host.open(one.conversation_id)


async def test_renewal_does_not_wait_for_a_conversation_that_is_let_go(host: Host, catalog: Catalog) -> None:
    """Another runner has taken it, and the disk is slow: the leases of the others would run out meanwhile."""
    one, _ = await host.create(planned(host))
    other, _ = await host.create(planned(host))
    with SlowDisk(one.directory.path) as disk:
        closing = asyncio.create_task(host.close_all())
        await wait_until_async(disk.is_asked.is_set, "it is being let go")
        await catalog.owners.acquire(one.conversation_id, RunnerId("other"), dead=RUNNER)
        async with asyncio.timeout(10.0):
            await host.renew_leases()
        assert one.conversation_id not in host.claimed
        disk.go_on.set()
        await closing
    assert await catalog.owners.find(one.conversation_id) == RunnerId("other")
    assert await catalog.owners.find(other.conversation_id) is None


async def test_status_that_redis_did_not_take_is_in_lists_once_it_answers(host: Host, catalog: Catalog) -> None:
    """Redis was away with what it knows, so nobody makes the index anew."""
    await complete(catalog)
    one, _ = await host.create(planned(host))
    with patch.object(catalog.index, "put", side_effect=BrokerUnavailable) as put:
        with one.conversation.state as state:
            state.execution_status = ConversationExecutionStatus.PAUSED
        await wait_until_async(lambda: put.called, "the status was not taken")
    assert await catalog.index.count("idle") == 1
    await host.renew_leases()

    async def is_listed() -> bool:
        return await catalog.index.count("paused") == 1

    await wait_until_async(is_listed, "the status is in lists")
    assert await catalog.index.count("idle") == 0


async def test_change_that_meets_a_full_disk_is_shown_when_there_is_room(host: Host) -> None:
    """Without another change."""
    one, _ = await host.create(planned(host))
    with without_snapshots(host) as disk:
        with one.conversation.state as state:
            state.tags = {"changed": "yes"}
        one.reporter.note_change()
        await disk.wait_refused(2)
        with patch.object(reporter, "_SNAPSHOT_DELAY_SECONDS", 0.0):
            for _ in range(20):
                one.reporter.note_change()
                await asyncio.sleep(0)
        tried = [task for task in asyncio.all_tasks() if task.get_name() == f"snapshot {one.conversation_id}"]
        assert len(tried) == 1
        disk.is_full = False
        await wait_until_async(lambda: "changed" in tags_shown(one), "the change is shown")


def tags_shown(one: HostedConversation) -> dict[str, str]:
    """What readers see."""
    snapshot = read_snapshot(one.directory)
    assert snapshot is not None
    tags: dict[str, str] = json.loads(snapshot.full_state)["value"]["tags"]
    return tags


@contextmanager
def read_only() -> Iterator[None]:
    """Nothing can be renamed."""

    def refuse(*paths: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    with patch.object(os, "rename", refuse):
        yield


async def test_conversation_that_cannot_be_deleted_is_let_go(host: Host, catalog: Catalog) -> None:
    """It is still there, for the next request."""
    one, _ = await host.create(planned(host))
    with read_only(), pytest.raises(OSError, match="Read-only"):
        await host.delete(one.conversation_id)
    await assert_let_go(host, catalog, one.conversation_id)
    await host.delete(one.conversation_id)
    assert not host.root.exists(one.conversation_id)


@pytest.mark.parametrize("is_open", [True, False])
async def test_delete_makes_room_on_a_full_disk(host: Host, catalog: Catalog, *, is_open: bool) -> None:
    """And removes what cannot be opened."""
    one, _ = await host.create(planned(host))
    if not is_open:
        await host.close_all()
    with SmallDisk(host.root.path):
        last = await host.delete(one.conversation_id)
    assert last is not None
    assert last.header.status == "idle"
    assert not host.root.exists(one.conversation_id)
    await assert_let_go(host, catalog, one.conversation_id)


@contextmanager
def leaving(host: Host) -> Iterator[None]:
    """What is made is let go at once."""
    create = host.create

    async def create_and_let_go(plan: Plan) -> tuple[HostedConversation, bool]:
        one, is_new = await create(plan)
        await one.let_go(1.0)
        return one, is_new

    with patch.object(host, "create", create_and_let_go), patch.object(hosted, "_LAST_COMMANDS_SECONDS", 0.0):
        yield


async def test_child_that_is_let_go_before_it_has_its_task_is_not_made_twice(
    host: Host, workers: Workers, webhooks: Webhooks
) -> None:
    """Which a client would have done that is told that nothing happened."""
    parent, _ = await host.create(planned(host))
    operations = Operations(ChildOperations(host, workers, webhooks).table)
    body = b'{"task": "x", "isolation": "shared"}'
    request = Request("1", "conversation.start_child", parent.conversation_id, "", {}, body)
    with leaving(host), pytest.raises(RequestFailed, match="was made"):
        await operations.handle(request)


@pytest.mark.parametrize(
    ("arguments", "reason"), [({}, RequestFailed), ({"idempotency_key": "k"}, OwnerMoving)], ids=["once", "with a key"]
)
async def test_conversation_that_is_let_go_before_its_first_message_is_told_of(
    settings: Settings,
    host: Host,
    workers: Workers,
    webhooks: Webhooks,
    keys: Keys,
    arguments: dict[str, str],
    reason: type[Exception],
) -> None:
    """It is there; a repetition would find it by its key, and else make another."""
    bash = BashHost(settings, RUNNER, RecordingPublisher(), keys, workers)
    extensions = Extensions(settings.workspace_path)
    table = ConversationOperations(settings, host, bash, workers, webhooks, CIPHER, extensions).table
    body = {
        "agent": Agent(llm=LLM(model="m"), tools=[]).model_dump(mode="json"),
        "workspace": {"working_dir": str(settings.workspace_path)},
        "initial_message": {"role": "user", "content": [{"type": "text", "text": "hello"}]},
    }
    request = Request("1", "conversation.create", None, "", arguments, json.dumps(body).encode())
    with leaving(host), pytest.raises(reason):
        await Operations(table).handle(request)
    assert len(host.root.ids()) == 1
    extensions.close()


async def test_conversation_that_cannot_be_paused_is_let_go(host: Host, catalog: Catalog) -> None:
    """Else its run would go on beside the next owner's."""
    one, _ = await host.create(planned(host, says("done")))
    with runs_starting_slowly() as go_on:
        await one.start_goal("an objective", 3)
        with SmallDisk(one.directory.path), patch.object(host_module._log, "exception") as told:
            await host.close_all()
        assert told.called
        go_on.set()
    await assert_let_go(host, catalog, one.conversation_id)
    assert await host.open(one.conversation_id) is not one


# Handing over


@contextmanager
def runs_starting_slowly() -> Iterator[threading.Event]:
    """No run gets its agent ready before this is set."""
    go_on, ready = threading.Event(), LocalConversation._ensure_agent_ready

    def wait(conversation: LocalConversation) -> None:
        if not threading.current_thread().name.startswith("sdk"):  # where commands are applied
            go_on.wait(20.0)
        ready(conversation)

    with patch.object(LocalConversation, "_ensure_agent_ready", wait):
        yield go_on
        go_on.set()


async def wait_let_go(one: HostedConversation) -> None:
    def is_let_go() -> bool:
        record = read_owner(one.directory)
        return record is not None and record.runner_id == NOBODY

    await wait_until_async(is_let_go, "its owner has let go")


async def assert_next_owner_runs(
    one: HostedConversation, catalog: Catalog, running: Running, *, left_as: str = "running"
) -> None:
    assert status_on_disk(one) == left_as
    assert one.conversation_id in await catalog.index.running()
    async with running(RunnerId("next")) as other:
        with runs_starting_slowly():  # its LLM does not answer
            again = await other.open(one.conversation_id)
            assert again.reporter.status is ConversationExecutionStatus.RUNNING
            assert status_on_disk(one) == "running"
        await again.pause_work()


def status_on_disk(one: HostedConversation) -> str:
    status: str = json.loads(one.directory.base_state.read_bytes())["execution_status"]
    return status


async def left_before_its_run(host: Host) -> HostedConversation:
    """A conversation whose run was accepted; its owner let go before it began."""
    one, _ = await host.create(planned(host, says("done")))
    with runs_starting_slowly() as go_on:
        await one.run()
        draining = asyncio.create_task(host.drain())
        await wait_let_go(one)
        go_on.set()
        await draining
    return one


async def test_run_that_was_accepted_and_has_not_started_is_the_next_owners(
    host: Host, catalog: Catalog, running: Running
) -> None:
    """Its client was told `running`, while the agent was still getting ready."""
    one = await left_before_its_run(host)
    await assert_next_owner_runs(one, catalog, running)


async def test_run_whose_agent_gets_ready_for_longer_than_the_drain_is_the_next_owners(
    catalog: Catalog, running: Running
) -> None:
    """Getting ready holds the SDK's lock, so that its status cannot show the run."""
    is_held, go_on = threading.Event(), threading.Event()

    def get_ready(conversation: LocalConversation) -> None:
        with conversation.state:
            is_held.set()
            go_on.wait(20.0)

    async with running(RUNNER, drain_seconds=0.1) as host:
        one, _ = await host.create(planned(host, says("done")))
        with patch.object(LocalConversation, "_ensure_agent_ready", get_ready):
            await one.run()
            await wait_until_async(is_held.is_set, "the agent gets ready")
            draining = asyncio.create_task(host.drain())
            await wait_let_go(one)
            go_on.set()
            await draining
    await assert_next_owner_runs(one, catalog, running, left_as="idle")


async def test_message_that_comes_while_a_run_ends_is_the_next_owners(
    host: Host, catalog: Catalog, running: Running
) -> None:
    """It was accepted, and the run that is still wrapping up would have been repeated for it."""
    is_ending, go_on = asyncio.Event(), asyncio.Event()
    run_ended = Reporter.run_ended

    async def end_slowly(reporter: Reporter) -> Snapshot:
        is_ending.set()
        await go_on.wait()
        return await run_ended(reporter)

    one, _ = await host.create(planned(host, says("done")))
    with patch.object(Reporter, "run_ended", end_slowly):
        await one.submit("message", body("first", run=True), starts_run=True)
        await is_ending.wait()
        await one.submit("message", body("second", run=True), starts_run=True)
        draining = asyncio.create_task(host.drain())
        await wait_let_go(one)
        go_on.set()
        await draining
    await assert_next_owner_runs(one, catalog, running)


async def test_slot_of_a_run_goes_with_it_to_the_next_owner(running: Running, catalog: Catalog) -> None:
    """What is left of the run here ends only when that has begun: else the deployment would have one run too many."""
    async with running(RUNNER, max_cluster_runs=1) as host:
        one = await left_before_its_run(host)
        assert not tasks_of(one.conversation_id)
        assert not await catalog.cluster_runs.take(uuid4(), 1)
        assert await catalog.cluster_runs.take(one.conversation_id, 1)


async def test_run_that_comes_with_the_last_message_is_the_next_owners(
    host: Host, catalog: Catalog, running: Running
) -> None:
    """The conversation was idle when its owner began to let go, and the message was being appended."""
    one, _ = await host.create(planned(host, says("done")))
    await one.submit("message", body("first"))
    with runs_starting_slowly() as go_on, SlowDisk(one.directory.path) as disk:
        told = asyncio.create_task(one.submit("message", body("second", run=True), starts_run=True))
        await wait_until_async(disk.is_asked.is_set, "the message is being appended")
        draining = asyncio.create_task(host.drain())
        await asyncio.wait([draining], timeout=0.0)
        disk.go_on.set()
        await told
        await wait_let_go(one)
        go_on.set()
        await draining
    await assert_next_owner_runs(one, catalog, running)


async def test_conversation_that_is_being_made_on_a_stop_is_the_next_owners(
    host: Host, catalog: Catalog, running: Running
) -> None:
    """With its first message, and the run that comes with it."""
    plan = planned(host, says("done"), initial_message=body("first", run=True))

    async def make() -> HostedConversation:
        one, is_new = await host.create(plan)
        await one.begin("message", body("first", run=True), starts_run=True, key=None, is_new=is_new)
        return one

    with runs_starting_slowly() as go_on, SlowDisk(host.root.path) as disk:
        making = asyncio.create_task(make())
        await wait_until_async(disk.is_asked.is_set, "it is being made")
        draining = asyncio.create_task(host.drain())
        await asyncio.wait([draining], timeout=0.0)
        disk.go_on.set()
        one = await making
        await wait_let_go(one)
        go_on.set()
        await draining
    await assert_let_go(host, catalog, one.conversation_id)
    await assert_next_owner_runs(one, catalog, running)


async def test_first_message_that_a_stop_does_not_wait_for_is_the_next_owners(
    host: Host, catalog: Catalog, running: Running
) -> None:
    """The agent's tools take long to start. Nobody need ask for the conversation again."""
    has_tools, ready = threading.Event(), LocalConversation._ensure_agent_ready

    def ready_late(conversation: LocalConversation) -> None:
        has_tools.wait(20.0)
        ready(conversation)

    with (
        patch.object(LocalConversation, "_ensure_agent_ready", ready_late),
        patch.object(hosted, "_LAST_COMMANDS_SECONDS", 0.0),
        patch.object(command_queue, "_IN_HAND_SECONDS", 0.1),
    ):
        one, is_new = await host.create(planned(host, says("done")))
        draining = asyncio.create_task(host.drain())
        await one.begin("message", body("first", run=True), starts_run=True, key=None, is_new=is_new)
        await wait_let_go(one)
        has_tools.set()
        await draining
    await assert_let_go(host, catalog, one.conversation_id)
    async with running(RunnerId("next")) as other:
        taking = takeover.Takeover(other, RunnerId("next"), catalog)
        await taking.begin(await catalog.index.running())
        await wait_until_async(lambda: other.hosted == 1, "it is taken over")
        again = await other.open(one.conversation_id)
        failed = ConversationExecutionStatus.ERROR
        await wait_until_async(lambda: again.reporter.status is failed, "it had its run, which the LLM does not answer")
        assert not await again.meets_run(None), "it is over"
        await taking.stop()
    assert one.conversation_id not in await catalog.index.running()


async def test_message_that_a_stop_keeps_from_its_run_has_it_with_the_next_owner(
    catalog: Catalog, running: Running
) -> None:
    """Nothing was in its way, so it is not in the inbox; then Redis did not say whether it may have a run."""
    asked = asyncio.Event()

    async def does_not_answer(*_: object) -> bool:
        asked.set()
        return await asyncio.Event().wait()

    async with running(RUNNER, max_cluster_runs=1) as host:
        one, _ = await host.create(planned(host, says("done")))
        await one.submit("message", body("first"))
        with (
            patch.object(catalog.cluster_runs, "take", does_not_answer),
            patch.object(hosted, "_LAST_COMMANDS_SECONDS", 0.0),
            patch.object(command_queue, "_IN_HAND_SECONDS", 0.1),
        ):
            told = asyncio.create_task(one.submit("message", body("second", run=True), starts_run=True))
            await asked.wait()
            await host.drain()
            await told
    assert one.conversation_id in await catalog.index.running()
    async with running(RunnerId("next")) as other:
        with runs_starting_slowly():  # its LLM does not answer
            again = await other.open(one.conversation_id)
            assert again.reporter.status is ConversationExecutionStatus.RUNNING
        await again.pause_work()


async def test_run_that_comes_while_an_idle_conversation_is_let_go_is_for_the_next_owner(host: Host) -> None:
    """Here it would begin and leave no trace."""
    one, _ = await host.create(planned(host, says("done")))
    with SlowDisk(one.directory.path) as disk:
        draining = asyncio.create_task(host.drain())
        await wait_until_async(disk.is_asked.is_set, "it is being let go")
        with pytest.raises(OwnershipLost):
            await one.run()
        disk.go_on.set()
        await draining
    assert status_on_disk(one) == "idle"


async def test_title_that_comes_while_a_run_is_handed_over_is_for_the_next_owner(host: Host) -> None:
    """Here it would be answered and not be stored."""
    one, _ = await host.create(planned(host, says("done")))
    with runs_starting_slowly() as go_on:
        await one.run()
        draining = asyncio.create_task(host.drain())
        await wait_let_go(one)
        with pytest.raises(OwnershipLost):
            await one.reporter.change_meta(title="too late")
        assert one.reporter.meta.title is None
        go_on.set()
        await draining


async def test_status_that_redis_takes_and_loses_at_once_is_told_again(
    host: Host, catalog: Catalog, redis: Redis
) -> None:
    """The loss is noticed before the answer that Redis has taken it."""
    one, _ = await host.create(planned(host))
    put, is_lost = catalog.index.put, asyncio.Event()

    async def put_and_lose(entries: list[IndexEntry]) -> None:
        await put(entries)
        if not is_lost.is_set():
            is_lost.set()
            await redis.flushall()
            one.reporter.index_again()

    with patch.object(catalog.index, "put", put_and_lose):
        with one.conversation.state as state:
            state.execution_status = ConversationExecutionStatus.PAUSED
        await wait_until_async(lambda: is_lost.is_set() and is_quiet(one.reporter), "it is told again")
    await complete(catalog)
    assert await catalog.index.count("paused") == 1


def is_quiet(reporter: Reporter) -> bool:
    """Whether nothing is due to be told or is being told."""
    return reporter._refresh_timer is None and not reporter._tasks._tasks


async def test_deposed_owner_changes_nothing_that_readers_see(host: Host, catalog: Catalog) -> None:
    """It stood still, and has not looked yet whether it still has its lease."""
    one, _ = await host.create(planned(host))
    shown = one.directory.snapshot.read_bytes(), one.directory.meta.read_bytes()
    claim(one.directory, RunnerId("next"), fsync=False)
    with patch.object(catalog.index, "touch") as touch, patch.object(catalog.index, "put") as put:
        one.reporter.note_change()
        one.reporter.index_again()
        await wait_until_async(lambda: is_quiet(one.reporter), "what was due is done")
    assert not touch.called
    assert not put.called
    for change in (one.reporter.refresh(), one.reporter.change_meta(title="of the former owner")):
        with pytest.raises(OwnershipLost):
            await change
    assert (one.directory.snapshot.read_bytes(), one.directory.meta.read_bytes()) == shown


@pytest.fixture
async def cut_off(running: Running) -> HostedConversation:
    """A conversation with a run whose owner let go before it started."""
    async with running(RunnerId("former")) as host:
        return await left_before_its_run(host)


@pytest.fixture
async def full(running: Running) -> AsyncIterator[Host]:
    """Of a runner that may have one run, and has it; that ends when it is interrupted."""
    async with running(RUNNER, max_concurrent_runs=1) as host:
        other, _ = await host.create(planned(host, says("done")))
        with runs_starting_slowly():
            await other.run()
            yield host


async def test_run_that_was_cut_off_goes_on_once_there_is_a_slot(cut_off: HostedConversation, full: Host) -> None:
    """Nobody would ask for it again; readers see it running meanwhile."""
    [other] = full._hosted.values()
    one = await full.open(cut_off.conversation_id)
    assert one.reporter.status is ConversationExecutionStatus.RUNNING
    await other.interrupt()
    await wait_until_async(lambda: one.conversation_id in full.slots._taken, "it has the slot")
    assert one.reporter.status is ConversationExecutionStatus.RUNNING


async def test_slot_of_a_deleted_conversation_is_free(full: Host) -> None:
    """At once: the client that has deleted it may start another."""
    [running] = full._hosted
    await full.slots.take(running, "goal")
    assert full.slots.is_full
    await full.delete(running)
    assert full.slots.taken == 0


@pytest.mark.parametrize("how", ["interrupt", "pause"])
async def test_run_that_waits_for_a_slot_can_be_stopped(cut_off: HostedConversation, full: Host, how: str) -> None:
    """It does not begin afterwards."""
    one = await full.open(cut_off.conversation_id)
    await (one.interrupt() if how == "interrupt" else one.submit("pause", b"{}"))
    await wait_until_async(lambda: not one._driver.is_active, "it has ended")
    assert one.reporter.status is ConversationExecutionStatus.PAUSED
    assert status_on_disk(one) == "paused"


async def test_run_that_waits_for_a_slot_is_left_to_the_next_owner(
    cut_off: HostedConversation, full: Host, catalog: Catalog, running: Running
) -> None:
    """As one that has its slot."""
    one = await full.open(cut_off.conversation_id)
    await full.drain()
    await assert_next_owner_runs(one, catalog, running)


# Stopping a run


@pytest.mark.parametrize("messages", [0, 2])
async def test_pause_of_a_run_that_has_not_started_keeps_it_from_starting(host: Host, messages: int) -> None:
    """The agent is getting ready, which may take long. Nor is what was asked for before done after it."""
    plan = planned(host, says("done"))
    one, _ = await host.create(plan)
    with runs_starting_slowly() as go_on:
        for _ in range(messages):
            await one.submit("message", body("hello", run=True), starts_run=True)
        if not messages:
            await one.run()
        await one.submit("pause", b"{}")
        go_on.set()
        await wait_until_async(lambda: not one._driver.is_active, "the run has ended")
    assert one.reporter.status is ConversationExecutionStatus.PAUSED
    assert status_on_disk(one) == "paused"
    assert isinstance(plan.agent.llm, ScriptedLLM)
    assert plan.agent.llm.asked == []
