"""What the web role's handlers work with, made once per app and loop; `request.app.ctx.web`."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any, Self
from uuid import UUID

import structlog
from sanic import Request

from service.blueprints.http.threads import Threads
from service.blueprints.streams.presence import Presence
from service.catalog.catalog import Catalog
from service.catalog.keys import Keys
from service.errors import BrokerUnavailable, ConversationNotFound, FanoutError
from service.metrics import metrics, sample
from service.pubsub.broker import Channel
from service.pubsub.brokers import make_broker
from service.pubsub.hub import Hub, Subscriber
from service.redis_source import RedisSource
from service.requests.requester import Requester
from service.settings import Settings
from service.store.disk import can_open, disk_problem
from service.store.event_log import EventLogs
from service.store.layout import ConversationDirectory, ConversationsRoot
from service.store.owner_record import StreamEpochs
from service.store.running_commands import RunningCommands
from service.store.snapshot import SnapshotReader
from service.tasks import TaskSet, repeat

_log = structlog.get_logger(__name__)

_WATCH_SECONDS = 0.5
_VALID_SECONDS = 10.0
"""For how long a check of readiness counts; the next one may wait for a disk that does not answer."""
_DESCRIBE_TRIES = 2


class WebContext:
    """Use as `async with`, on the loop that serves."""

    def __init__(self, settings: Settings, source: RedisSource, runner_failure: Callable[[], Exception | None]) -> None:
        keys = Keys(settings.redis_namespace)
        self.settings = settings
        self.keys = keys
        self.started_at = time.monotonic()
        self.root = ConversationsRoot(settings.conversations_path)
        self.logs = EventLogs(self.root, settings.event_cache_bytes)
        self.snapshots = SnapshotReader()
        self.stream_epochs = StreamEpochs()
        self.running_commands = RunningCommands(settings.bash_events_dir)
        self.threads = Threads()
        self._redis = source.commands()
        self.catalog = Catalog(self._redis, keys, settings.lease_ttl_seconds, source.touched)
        control = Channel(keys.control)
        self._event_broker = make_broker(source, control)
        self._reply_broker = make_broker(source, control)
        self.hub = Hub(self._event_broker)
        self.requester = Requester(
            self._reply_broker,
            self.catalog,
            timeout_seconds=settings.request_timeout_seconds,
            moving_seconds=settings.lease_ttl_seconds,
        )
        self.presence = Presence(self.catalog.watchers, self._event_broker, keys)
        self._runner_failure = runner_failure
        self.is_stopping = False
        self._reasons = ["Server is still initializing"]
        self._looked_at = self.started_at
        self._tasks = TaskSet()
        self._watcher: asyncio.Task[None] | None = None
        self._schemas: Mapping[str, Any] | None = None

    async def __aenter__(self) -> Self:
        await self.hub.__aenter__()
        await self.requester.__aenter__()
        self._watcher = self._tasks.start(repeat(self._look, "readiness", _WATCH_SECONDS), "readiness")
        self._tasks.start(self.presence.run(), "presence")
        self._tasks.start(sample("web", self._set_gauges), "metrics")
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.threads.close()
        await self._tasks.stop()
        await self.presence.announce()
        await self.requester.__aexit__(*exc)
        await self.hub.__aexit__(*exc)
        await self._event_broker.close()
        await self._reply_broker.close()
        await self._redis.aclose()

    def readiness(self) -> list[str]:
        """Why requests cannot be served now; empty when they can."""
        if self.is_stopping:
            return ["The server is stopping"]
        if self._watcher is None or self._watcher.done():
            return ["The readiness check has stopped"]
        if time.monotonic() - self._looked_at > _VALID_SECONDS:
            return ["The readiness check does not end"]
        return self._reasons

    async def idle_seconds(self) -> float:
        """Since the last activity anywhere in the deployment, or since this worker started."""
        try:
            last_at = await self.catalog.activity.last_at()
        except BrokerUnavailable:
            last_at = None
        since_start = time.monotonic() - self.started_at
        return since_start if last_at is None else min(since_start, max(0.0, time.time() - last_at))

    async def note_activity(self) -> None:
        """A client did something that counts against the machine's idle time."""
        with suppress(BrokerUnavailable):
            await self.catalog.activity.note()

    async def sdk_schemas(self) -> Mapping[str, Any]:
        """JSON schemas of the SDK's models, from a runner, once; empty while none can be asked."""
        if self._schemas is None:
            try:
                if not await self.catalog.runners.able():
                    return {}
                answer = await self.requester.ask("sdk.schemas")
            except FanoutError as error:
                _log.info("sdk_schemas_unavailable", error=str(error))
                return {}
            self._schemas = json.loads(answer.body)
        return self._schemas

    @asynccontextmanager
    async def watch(self, conversation_id: UUID, watcher: str | None) -> AsyncIterator[Subscriber]:
        """What is published of a conversation, for a client that counts as one who watches it."""
        channel = Channel(self.keys.events(conversation_id))
        async with self.hub.subscribe(channel, self.settings.socket_backlog_bytes) as subscriber:
            with self.presence.watching(conversation_id, watcher):
                yield subscriber

    def require(self, conversation_id: UUID) -> None:
        """Raises ConversationNotFound unless there is such a conversation, wherever it is running."""
        if not self.root.exists(conversation_id):
            raise ConversationNotFound(str(conversation_id))

    async def info(self, conversation_id: UUID, with_skills: bool = False) -> bytes:
        """What `GET` of it answers, but for its children; for a directory from elsewhere a runner describes it first.

        Raises:
            ConversationNotFound: there is no such conversation.
            FanoutError: a runner was needed and could not help.
        """
        return await self._described(conversation_id, lambda directory: self.snapshots.info(directory, with_skills))

    async def full_state(self, conversation_id: UUID) -> bytes:
        """The event that begins every events socket. Raises as `info` does."""
        return await self._described(conversation_id, self.snapshots.full_state)

    async def _described(self, conversation_id: UUID, read: Callable[[ConversationDirectory], bytes | None]) -> bytes:
        directory = self.root.directory(conversation_id)
        for _ in range(_DESCRIBE_TRIES):
            found = read(directory)
            if found is not None:
                return found
            self.require(conversation_id)
            await self.requester.ask("conversation.describe", conversation_id)
        raise ConversationNotFound(str(conversation_id))

    def _set_gauges(self) -> None:
        is_ready = not self.readiness()
        metrics().web_workers.labels("ready").set(is_ready)
        metrics().web_workers.labels("not_ready").set(not is_ready)
        metrics().backlog_bytes.set(self.hub.backlog_bytes)

    async def _look(self) -> None:
        try:
            self._reasons = await self._find_reasons()
        except Exception:
            self._reasons = ["The readiness check fails"]
            raise
        finally:
            self._looked_at = time.monotonic()

    async def _find_reasons(self) -> list[str]:
        failure = self._runner_failure()
        if failure is not None:
            return [f"The embedded runner has failed: {failure}"]
        reasons = []
        problem = await asyncio.to_thread(disk_problem, self.root.path)
        if problem is not None:
            reasons.append(problem)
        if not can_open():
            reasons.append("The process has no descriptors left")
        if not self.hub.is_listening:
            reasons.append("The event listener has stopped")
        if not self.requester.is_listening:
            reasons.append("The reply listener has stopped")
        try:
            runners = await self.catalog.runners.alive()
            if not runners:
                reasons.append("No runner is up yet")
            elif not any(runner.is_able for runner in runners):
                reasons.append("No runner has descriptors left")
            elif not await self.catalog.index.is_complete():
                reasons.append("The index of conversations is being built")
        except BrokerUnavailable:
            reasons.append("The message broker does not answer")
        return reasons


def web_of(request: Request) -> WebContext:
    """The context of the app that serves this request."""
    context: WebContext = request.app.ctx.web
    return context
