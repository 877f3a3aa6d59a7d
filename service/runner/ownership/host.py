"""The conversations this runner owns: claimed on demand, kept by renewing their leases, let go on drain."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from uuid import UUID

import structlog

from service.catalog.catalog import Catalog
from service.catalog.liveness import Pulse
from service.errors import (
    BrokerUnavailable,
    Conflict,
    ConversationNotFound,
    NoRunner,
    OwnerMoving,
    OwnershipLost,
    RequestFailed,
    RunLimitReached,
)
from service.identity import RunnerId
from service.metrics import metrics
from service.runner.agent_loop import AgentLoop
from service.runner.conversation.creation import Plan
from service.runner.conversation.hosted import HostedConversation
from service.runner.conversation.making import Maker
from service.runner.conversation.meta import Meta, read_meta
from service.runner.conversation.opening import Opened, Opener
from service.runner.conversation.run_slots import RunSlots
from service.runner.conversation.titles import TitleLlms
from service.runner.ownership.claims import Claims
from service.runner.ownership.keyed_locks import KeyedLocks
from service.runner.webhooks.webhooks import Webhooks
from service.runner.wire.request_models import ForkConversationRequest
from service.runner.workers import Workers
from service.settings import Settings
from service.store.layout import ConversationDirectory, ConversationsRoot
from service.store.snapshot import Snapshot
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
        webhooks: Webhooks,
    ) -> None:
        self.root = ConversationsRoot(settings.conversations_path)
        self.slots = RunSlots(settings.max_concurrent_runs, catalog.cluster_runs, settings.max_cluster_runs)
        self.pulse = Pulse(time.monotonic())
        self._settings = settings
        self._opener = opener
        self._maker = Maker(settings, opener)
        self._claims = Claims(settings, runner_id, catalog, workers, self.pulse)
        self._index = catalog.index
        self._agent_loop = agent_loop
        self._workers = workers
        self._webhooks = webhooks
        self._title_llms = TitleLlms(settings.persistence_root, opener.cipher)
        self._untold = catalog.untold
        self._goals = catalog.goals
        self._hosted: dict[UUID, HostedConversation] = {}
        self._locks = KeyedLocks[UUID]()
        self._handing_over = TaskSet()
        self._closing = TaskSet()
        self._has_activity = False
        self._is_draining = False

    @property
    def hosted(self) -> int:
        """How many conversations are in memory here."""
        return len(self._hosted)

    @property
    def claimed(self) -> AbstractSet[UUID]:
        """What this runner holds the lease of: it is hosted here, being opened or being let go."""
        return self._claims.held

    @property
    def waiting_webhook_events(self) -> int:
        """Of the conversations in memory here."""
        return sum(hosted.webhooks.waiting for hosted in self._hosted.values())

    async def open(self, conversation_id: UUID) -> HostedConversation:
        """The conversation, claimed and opened if it was not yet.

        Raises:
            ConversationNotFound: there is none.
            OwnerMoving: another runner holds its lease.
            RequestFailed: its files cannot be read.
        """
        hosted = self._hosted.get(conversation_id)
        if hosted is not None:
            hosted.note_use()
            return hosted
        async with self._locks.hold(conversation_id):
            hosted = self._hosted.get(conversation_id)
            return hosted if hosted is not None else await self._open(conversation_id)

    async def create(self, plan: Plan) -> tuple[HostedConversation, bool]:
        """The planned conversation and True, or the one that has its id already and False.

        What it begins with must be submitted without an await in between: then it has its place before a stop of this
        runner lets go of the conversation.

        Raises:
            RunLimitReached: this runner is full; nothing was made.
            OwnerMoving: another runner holds the id's lease.
        """
        conversation_id = plan.meta.id
        async with self._locks.hold(conversation_id):
            existing = self._hosted.get(conversation_id)
            if existing is not None:
                return existing, False
            if self.root.exists(conversation_id):
                return await self._open(conversation_id), False
            if self._is_draining:
                raise NoRunner
            if self.slots.is_full:
                raise RunLimitReached
            async with self._claims.claiming(conversation_id):
                return await self._make(plan), True

    async def fork(
        self, source: HostedConversation, conversation_id: UUID, request: ForkConversationRequest
    ) -> HostedConversation:
        """A new conversation with the events of `source`, which may be running.

        Raises:
            Conflict: there is one of that id.
            NotFound: the event to fork from does not exist.
            OwnerMoving: another runner holds the id's lease.
        """
        async with self._locks.hold(conversation_id):
            if self.root.exists(conversation_id):
                raise Conflict(f"Conversation with id {conversation_id} already exists")
            if self._is_draining:
                raise OwnerMoving(str(source.conversation_id))
            async with self._claims.claiming(conversation_id):
                opened = await self._opened(
                    self._maker.fork, source.conversation, source.reporter.meta, conversation_id, request
                )
                try:
                    return await self._host(opened)
                except BaseException:
                    await self._workers.call(self._maker.remove, opened.directory, opened.meta)
                    raise

    async def delete(self, conversation_id: UUID) -> Snapshot | None:
        """Remove the directory; readers are told, a run is cancelled, nobody waits for a tool.

        Returns what readers saw last, if they saw anything.

        Raises:
            ConversationNotFound, OwnerMoving: as `open`.
            RequestFailed: not even its records can be read.
        """
        with contextlib.suppress(RequestFailed):  # on a full disk nothing can be opened, and nothing else makes room
            await self.open(conversation_id)
        async with self._locks.hold(conversation_id):
            hosted = self._hosted.pop(conversation_id, None)
            if hosted is None:
                return await self._delete_unopened(conversation_id)
            hosted.tell_deleted()
            try:
                for letter in await hosted.webhooks.take_rest():
                    self._webhooks.letters.put(letter)
                return await self._delete(hosted.directory, hosted.reporter.meta)
            finally:
                self._closing.start(hosted.abandon(), f"abandon {conversation_id}")
                self.slots.give_back(conversation_id, "goal")
                self.slots.give_back(conversation_id, "run")  # its tool may go on for a while, and nobody waits for it
                await self._claims.release(conversation_id)

    async def renew_leases(self) -> None:
        """Hold what is owned, and the slots of its runs, for another TTL; drop what another runner has taken over."""
        await self.slots.renew()
        for conversation_id in await self._claims.renew():
            # Beside this: one that is just being opened or let go must not keep the others' leases waiting.
            self._closing.start(self._lose(conversation_id), f"lose {conversation_id}")
        for hosted in self._hosted.values():
            hosted.reporter.index_if_untold()

    def index_again(self) -> None:
        """Redis may have lost what it was told of the conversations here."""
        for hosted in self._hosted.values():
            hosted.reporter.index_again()

    async def evict_idle(self, idle_seconds: float, is_busy: Callable[[UUID], bool]) -> None:
        """Let go of what nobody has used for so long and nothing is left to do for; the next request opens it again."""
        used_before = time.monotonic() - idle_seconds
        for hosted in list(self._hosted.values()):
            if hosted.is_idle_since(used_before) and not is_busy(hosted.conversation_id):
                await self._close(hosted, used_before)

    async def close_all(self) -> None:
        """Pause what runs and let go of every conversation; the next request opens it again."""
        await asyncio.gather(*(self._close(hosted) for hosted in list(self._hosted.values())))

    async def _close(self, hosted: HostedConversation, used_before: float | None = None) -> None:
        """`used_before`: only if it is still idle since then (monotonic time)."""
        conversation_id = hosted.conversation_id
        async with self._locks.hold(conversation_id):
            may_close = used_before is None or hosted.is_idle_since(used_before)
            if self._hosted.get(conversation_id) is hosted and may_close:
                del self._hosted[conversation_id]  # from here on requests wait for the lock, and then open it again
                await self._hand_over(hosted, pauses=True)
                _log.info("conversation_evicted", conversation_id=str(conversation_id))

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
        for hosted in list(self._hosted.values()):
            self._hand_over_soon(hosted)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._settings.drain_seconds):
                await self._locks.wait_free()  # what is being made or opened, which is handed over as soon as it is
        await self._handing_over.wait()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CLEAN_UP_SECONDS):
                await self._closing.wait()

    def _hand_over_soon(self, hosted: HostedConversation) -> None:
        self._handing_over.start(self._hand_over(hosted, pauses=False), f"hand over {hosted.conversation_id}")

    async def _hand_over(self, hosted: HostedConversation, *, pauses: bool) -> None:
        conversation_id = hosted.conversation_id
        try:
            if pauses:
                await hosted.pause_work()
            await hosted.let_go(self._settings.drain_seconds)
        except Exception:  # noqa: BLE001  supervisor: the others must be handed over too
            _log.exception("conversation_not_handed_over", conversation_id=str(conversation_id))
        self._hosted.pop(conversation_id, None)
        await self._claims.release(conversation_id)
        self._closing.start(hosted.abandon(), f"abandon {conversation_id}")

    async def _open(self, conversation_id: UUID) -> HostedConversation:
        if not self.root.exists(conversation_id):
            raise ConversationNotFound(str(conversation_id))
        if self._is_draining:
            raise OwnerMoving(str(conversation_id))
        async with self._claims.claiming(conversation_id):
            try:
                opened = await self._opened(self._opener.open, self.root.directory(conversation_id))
                return await self._host(opened)
            except OwnershipLost:
                raise OwnerMoving(str(conversation_id)) from None
            except Exception as error:
                _log.exception("conversation_unreadable", conversation_id=str(conversation_id))
                raise RequestFailed(f"Conversation {conversation_id} cannot be opened: {error}") from error

    async def _make(self, plan: Plan) -> HostedConversation:
        directory = self.root.directory(plan.meta.id)
        try:
            opened = await self._opened(self._maker.make, directory, plan)
            return await self._host(opened)
        except BaseException:
            await self._workers.call(self._maker.unmake, directory, plan.meta)
            raise

    async def _delete_unopened(self, conversation_id: UUID) -> Snapshot | None:
        """Readers find out by themselves. No claim is recorded: a former owner has nothing left to write to."""
        directory = self.root.directory(conversation_id)
        if not self.root.exists(conversation_id):
            raise ConversationNotFound(str(conversation_id))
        async with self._claims.claiming(conversation_id):
            try:
                meta = await self._workers.call(read_meta, directory)
            except (OSError, ValueError) as error:
                raise RequestFailed(f"Conversation {conversation_id} cannot be deleted: {error}") from error
            last = await self._delete(directory, meta)
        await self._claims.release(conversation_id)
        return last

    async def _delete(self, directory: ConversationDirectory, meta: Meta) -> Snapshot | None:
        last = await self._workers.call(self._maker.remove, directory, meta)
        with contextlib.suppress(BrokerUnavailable):  # lists leave out what has no snapshot
            await self._index.remove(meta.id)
            await self._untold.remove(meta.id)
            await self._goals.remove(meta.id)
        return last

    async def _opened[**P](self, function: Callable[P, Opened], *args: P.args, **kwargs: P.kwargs) -> Opened:
        """As `Workers.call`. Who is cancelled waits for the thread all the same, and what it has opened is closed."""
        opening = asyncio.ensure_future(self._workers.call(function, *args, **kwargs))
        try:
            return await asyncio.shield(opening)
        except asyncio.CancelledError:
            await asyncio.wait([opening])
            if opening.exception() is None:
                opened = opening.result()
                opened.store.close()
                await self._workers.call_that_waits(opened.conversation.close)
            raise

    async def _lose(self, conversation_id: UUID) -> None:
        """Another runner owns it: stop at once, write nothing."""
        async with self._locks.hold(conversation_id):
            hosted = self._hosted.pop(conversation_id, None)
            if hosted is not None:
                metrics().leases.labels("lost").inc()
                _log.warning("lease_lost", conversation_id=str(conversation_id))
                self.slots.leave(conversation_id)
                self._closing.start(hosted.abandon(), f"abandon {conversation_id}")

    async def _host(self, opened: Opened) -> HostedConversation:
        hosted = HostedConversation(
            opened,
            self._index,
            self._agent_loop,
            self._workers,
            self.slots,
            self.note_activity,
            self._webhooks.of(opened),
            self._goals,
            self._title_llms,
            cipher=self._opener.cipher,
            fsync=self._settings.fsync,
            resume_runs=self._settings.resume_runs,
        )
        try:
            await hosted.start()
        except BaseException:
            await hosted.abandon()
            raise
        self._hosted[hosted.conversation_id] = hosted
        if self._is_draining:
            self._hand_over_soon(hosted)
        return hosted
