"""The conversations this runner owns: claimed on demand, kept by renewing their leases, let go on drain."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import time
from collections import defaultdict
from uuid import UUID, uuid4

import structlog

from service.catalog.catalog import Catalog
from service.catalog.liveness import Pulse, has_stopped, is_dead
from service.errors import (
    BrokerUnavailable,
    ConversationNotFound,
    NoRunner,
    OwnerMoving,
    RequestFailed,
    RunLimitReached,
)
from service.identity import RunnerId
from service.runner.agent_loop import AgentLoop
from service.runner.creation import Plan
from service.runner.hosted import HostedConversation
from service.runner.meta import write_meta
from service.runner.opening import Opened, Opener
from service.runner.run_slots import RunSlots
from service.runner.workers import Workers
from service.settings import Settings
from service.store.layout import ConversationDirectory, ConversationsRoot
from service.store.owner_record import NOBODY, read_owner
from service.tasks import TaskSet

_log = structlog.get_logger(__name__)

_CLEAN_UP_SECONDS = 4.0
"""For terminals and the like to be closed after everything is handed over; the process ends anyway."""


class Host:
    """Methods of the runner's loop; anything about one conversation's existence happens under its lock."""

    def __init__(
        self,
        settings: Settings,
        runner_id: RunnerId,
        opener: Opener,
        catalog: Catalog,
        agent_loop: AgentLoop,
        workers: Workers,
    ) -> None:
        self.root = ConversationsRoot(settings.conversations_path)
        self.slots = RunSlots(settings.max_concurrent_runs, catalog.cluster_runs, settings.max_cluster_runs)
        self.pulse = Pulse(time.monotonic())
        self._settings = settings
        self._runner_id = runner_id
        self._opener = opener
        self._owners = catalog.owners
        self._runners = catalog.runners
        self._index = catalog.index
        self._agent_loop = agent_loop
        self._workers = workers
        self._hosted: dict[UUID, HostedConversation] = {}
        self._claimed: set[UUID] = set()
        """Leases held: of what is hosted, and of what is being opened or let go."""
        self._locks: defaultdict[UUID, asyncio.Lock] = defaultdict(asyncio.Lock)
        """Kept for good: callers have seen that the conversation exists, so there are no more than of those."""
        self._closing = TaskSet()
        self._has_activity = False
        self._is_draining = False

    async def open(self, conversation_id: UUID) -> HostedConversation:
        """The conversation, claimed and opened if it was not yet.

        Raises:
            ConversationNotFound: there is none.
            OwnerMoving: another runner holds its lease.
            RequestFailed: its files cannot be read.
        """
        hosted = self._hosted.get(conversation_id)
        if hosted is not None:
            return hosted
        async with self._locks[conversation_id]:
            hosted = self._hosted.get(conversation_id)
            return hosted if hosted is not None else await self._open(conversation_id)

    async def create(self, plan: Plan) -> tuple[HostedConversation, bool]:
        """The planned conversation and True, or the one that has its id already and False.

        Raises:
            RunLimitReached: this runner is full; nothing was made.
            OwnerMoving: another runner holds the id's lease.
        """
        conversation_id = plan.meta.id
        async with self._locks[conversation_id]:
            existing = self._hosted.get(conversation_id)
            if existing is not None:
                return existing, False
            if self.root.exists(conversation_id):
                return await self._open(conversation_id), False
            if self._is_draining:
                raise NoRunner
            if self.slots.is_full:
                raise RunLimitReached
            await self._claim(conversation_id)
            directory = self.root.directory(conversation_id)
            try:
                opened = await self._workers.call(self._make, directory, plan)
            except BaseException:
                await self._workers.call(shutil.rmtree, directory.path, ignore_errors=True)
                await self._release(conversation_id)
                raise
            return await self._host(opened), True

    async def delete(self, conversation_id: UUID) -> None:
        """Remove the directory; readers are told, a run is cancelled, nobody waits for a tool.

        Raises:
            ConversationNotFound, OwnerMoving, RequestFailed: as `open`.
        """
        hosted = await self.open(conversation_id)
        async with self._locks[conversation_id]:
            if self._hosted.pop(conversation_id, None) is None:
                raise ConversationNotFound(str(conversation_id))
            hosted.tell_deleted()
            await self._workers.call(_remove, hosted.directory)
            with contextlib.suppress(BrokerUnavailable):  # lists leave out what has no snapshot
                await self._index.remove(conversation_id)
            await self._release(conversation_id)
            self._closing.start(hosted.abandon(), f"abandon {conversation_id}")

    async def recover_interrupted(self, candidates: list[UUID]) -> None:
        """Open those whose owner is dead: they were running, or have accepted commands waiting."""
        for conversation_id in set(candidates) - self._claimed:
            with contextlib.suppress(ConversationNotFound, OwnerMoving):
                try:
                    await self.open(conversation_id)
                except RequestFailed as error:
                    _log.error("conversation_not_recovered", conversation_id=str(conversation_id), error=str(error))

    async def renew_leases(self) -> None:
        """Hold what is owned, and the slots of its runs, for another TTL; drop what another runner has taken over."""
        await self.slots.renew()
        for conversation_id in await self._owners.renew(list(self._claimed), self._runner_id):
            await self._lose(conversation_id)

    def note_activity(self) -> None:
        """An agent or a client did something."""
        self._has_activity = True

    def take_activity(self) -> bool:
        """Whether anything happened since the last call."""
        had_activity, self._has_activity = self._has_activity, False
        return had_activity

    async def drain(self) -> None:
        """Take nothing more, and leave everything to other runners within the drain time.

        Leases must be renewed meanwhile, and requests about what is still here are answered.
        """
        self._is_draining = True
        await asyncio.gather(*(self._hand_over(conversation) for conversation in list(self._hosted.values())))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CLEAN_UP_SECONDS):
                await self._closing.wait()

    async def _hand_over(self, hosted: HostedConversation) -> None:
        conversation_id = hosted.conversation_id
        try:
            await hosted.let_go(self._settings.drain_seconds)
        except Exception:  # noqa: BLE001  supervisor: the others must be handed over too
            _log.exception("conversation_not_handed_over", conversation_id=str(conversation_id))
        self._hosted.pop(conversation_id, None)
        await self._release(conversation_id)
        self._closing.start(hosted.abandon(), f"abandon {conversation_id}")

    async def _open(self, conversation_id: UUID) -> HostedConversation:
        if not self.root.exists(conversation_id):
            raise ConversationNotFound(str(conversation_id))
        if self._is_draining:
            raise OwnerMoving(str(conversation_id))
        await self._claim(conversation_id)
        try:
            opened = await self._workers.call(self._opener.open, self.root.directory(conversation_id))
            return await self._host(opened)
        except Exception as error:
            _log.exception("conversation_unreadable", conversation_id=str(conversation_id))
            await self._release(conversation_id)
            raise RequestFailed(f"Conversation {conversation_id} cannot be opened: {error}") from error

    async def _claim(self, conversation_id: UUID) -> None:
        """Take the lease; from another runner only if that is dead for certain.

        Redis may have lost the lease of a living owner, so the record on disk is asked as well.
        """
        record = await self._workers.call(read_owner, self.root.directory(conversation_id))
        if record is not None and record.runner_id not in (NOBODY, self._runner_id):
            await self._require_lost(conversation_id, record.runner_id)
        holder = await self._owners.acquire(conversation_id, self._runner_id)
        if holder != self._runner_id:
            await self._require_dead(conversation_id, holder)
            _log.warning("lease_taken_over", conversation_id=str(conversation_id), dead_runner_id=holder)
            holder = await self._owners.acquire(conversation_id, self._runner_id, dead=holder)
        if holder != self._runner_id:
            raise OwnerMoving(str(conversation_id))
        self._claimed.add(conversation_id)

    async def _require_lost(self, conversation_id: UUID, runner_id: RunnerId) -> None:
        """Raises OwnerMoving unless the runner is dead, or no longer renews its lease."""
        now = time.monotonic()
        is_free = await self._owners.find(conversation_id) is None
        ttl_seconds = self._settings.lease_ttl_seconds
        if not (is_free and await has_stopped(runner_id, self._runners, self.pulse, now, ttl_seconds)):
            await self._require_dead(conversation_id, runner_id)

    async def _require_dead(self, conversation_id: UUID, runner_id: RunnerId) -> None:
        if not await is_dead(runner_id, self._runners, self.pulse, time.monotonic()):
            raise OwnerMoving(str(conversation_id))

    async def _release(self, conversation_id: UUID) -> None:
        self._claimed.discard(conversation_id)
        with contextlib.suppress(BrokerUnavailable):  # it runs out by itself
            await self._owners.release(conversation_id, self._runner_id)

    async def _lose(self, conversation_id: UUID) -> None:
        """Another runner owns it: stop at once, write nothing."""
        self._claimed.discard(conversation_id)
        async with self._locks[conversation_id]:
            hosted = self._hosted.pop(conversation_id, None)
            if hosted is not None:
                _log.warning("lease_lost", conversation_id=str(conversation_id))
                self._closing.start(hosted.abandon(), f"abandon {conversation_id}")

    def _make(self, directory: ConversationDirectory, plan: Plan) -> Opened:
        directory.path.mkdir(mode=0o700, parents=True)
        write_meta(directory, plan.meta, fsync=self._settings.fsync)
        return self._opener.create(directory, plan.meta, plan.agent, plan.secrets)

    async def _host(self, opened: Opened) -> HostedConversation:
        hosted = HostedConversation(
            opened,
            self._index,
            self._agent_loop,
            self._workers,
            self.slots,
            self.note_activity,
            cipher=self._opener.cipher,
            fsync=self._settings.fsync,
            resume_runs=self._settings.resume_runs,
        )
        await hosted.start()
        self._hosted[hosted.conversation_id] = hosted
        return hosted


def _remove(directory: ConversationDirectory) -> None:
    """One rename makes the conversation cease to exist; the files follow."""
    doomed = directory.path.with_name(f".deleted-{directory.path.name}-{uuid4().hex[:8]}")
    directory.path.rename(doomed)
    shutil.rmtree(doomed, ignore_errors=True)
