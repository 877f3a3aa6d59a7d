"""A web role that begins dormant, and serves once some web worker was given the configuration.

A worker that does not serve yet asks Redis before it refuses a request, so that what `POST /api/init` answered holds at
every worker from then on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from typing import Any, Self

import structlog

from service.blueprints.http.context import WebContext
from service.catalog.init_record import Initialization, InitRecord
from service.catalog.keys import Keys
from service.errors import BadRequest, BrokerUnavailable, Dormant, RequestFailed
from service.redis_source import RedisSource
from service.settings import Settings
from service.settings.late import LateSettings
from service.settings.sealed import SealedOtherwise, seal, unseal
from service.store.disk import disk_problem
from service.tasks import TaskSet

_log = structlog.get_logger(__name__)

_LOOK_SECONDS = 0.25
_KEEP_SECONDS = 1.0
_POLL_SECONDS = 0.05
_MARGIN_SECONDS = 10.0
"""An attempt is forgotten this long after it should have ended, if the worker that made it died."""


class DeferredStart:
    """Use as `async with`, on the loop that serves. `ctx.web` is the context that holds for requests now."""

    def __init__(
        self, ctx: Any, settings: Settings, source: RedisSource, make_context: Callable[[Settings], WebContext]
    ) -> None:
        self._ctx = ctx
        self._given = settings
        self._make_context = make_context
        self._redis = source.commands()
        self._initialization = Initialization(self._redis, Keys(settings.redis_namespace))
        self._record: InitRecord | None = None
        self._problem: str | None = None
        self._lock = asyncio.Lock()
        self._tasks = TaskSet()

    async def __aenter__(self) -> Self:
        self._ctx.web = await self._opened(self._given)
        self._tasks.start(self._follow(), "deferred-start")
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._tasks.stop()
        await self._ctx.web.__aexit__(*exc)
        await self._redis.aclose()

    @property
    def is_ready(self) -> bool:
        """Whether this worker has the configuration."""
        return self._record is not None

    async def require_ready(self) -> None:
        """Raises Dormant, unless the configuration has come, here or at another worker."""
        if not self.is_ready and (state := await self.state()) != "ready":
            raise Dormant(state)

    async def state(self) -> str:
        """`dormant`, `initializing` or `ready`."""
        # A task of its own: a client that hangs up would leave what is being opened half open.
        await asyncio.shield(self._tasks.start(self._look(), "look"))
        with suppress(BrokerUnavailable):
            if not self.is_ready and self._problem is None and await self._initialization.read() is not None:
                return "initializing"
        return "ready" if self.is_ready else "dormant"

    async def failure(self) -> str | None:
        """Why there is still no configuration, if one was tried."""
        if self.is_ready:
            return None
        with suppress(BrokerUnavailable):
            return self._problem or await self._initialization.last_failure()
        return self._problem

    async def initialize(self, late: LateSettings, body: bytes) -> None:
        """Start the deployment with `late`, which `body` is the JSON of. Goes on to the end when the caller hangs up.

        Raises:
            BadRequest: it has been started, or is being started.
            RequestFailed: it cannot be started with this; it is dormant again.
            BrokerUnavailable: Redis does not answer.
        """
        seconds = self._given.request_timeout_seconds
        record = InitRecord.new(seal(body, self._given))
        if self.is_ready or not await self._initialization.propose(record, seconds + _MARGIN_SECONDS):
            raise BadRequest(self._problem or f"server already in state: {await self.state()}")
        failure = await asyncio.shield(self._tasks.start(self._finish(late, record, seconds), "initialization"))
        if failure is not None:
            raise RequestFailed(failure)

    async def _finish(self, late: LateSettings, record: InitRecord, seconds: float) -> str | None:
        """Start with what has been proposed, or be dormant again; returns why."""
        try:
            async with AsyncExitStack() as stack:
                async with asyncio.timeout(seconds):
                    context = await self._prepared(late, record, stack)
                async with self._lock:
                    if not await self._keep(record):
                        raise Unstartable("Another configuration came meanwhile")
                    stack.pop_all()
                    await self._serve_with(record, context)
        except (Unstartable, BrokerUnavailable) as error:
            reason = str(error)
        except TimeoutError:
            reason = f"No runner was ready with it within {seconds:g} s"
        else:
            with suppress(BrokerUnavailable):
                await self._initialization.forget_failure()
            return None
        _log.error("configuration_refused", token=record.token, reason=reason)
        with suppress(BrokerUnavailable):
            await self._initialization.withdraw(record, reason)
        return reason

    async def _keep(self, record: InitRecord) -> bool:
        """As `Initialization.keep`, after which others follow, also where only its answer was lost."""
        try:
            return await self._initialization.keep(record)
        except BrokerUnavailable:
            await asyncio.sleep(_POLL_SECONDS)
            return await self._initialization.keep(record)

    async def _prepared(self, late: LateSettings, record: InitRecord, stack: AsyncExitStack) -> WebContext:
        """A context that could serve, once some runner has started with the settings; `stack` closes it."""
        settings = late.over(self._given)
        problem = await asyncio.to_thread(disk_problem, settings.conversations_path)
        if problem is not None:
            raise Unstartable(problem)
        await self._until_started(record)
        context = await stack.enter_async_context(self._make_context(settings))
        await _until_ready(context)
        return context

    async def _until_started(self, record: InitRecord) -> None:
        while True:
            current = await self._initialization.current(record)
            if current is None:
                raise Unstartable("Redis has lost it meanwhile")
            if current.failure is not None:
                raise Unstartable(current.failure)
            if current.is_started:
                return
            await asyncio.sleep(_POLL_SECONDS)

    async def _look(self) -> None:
        """Do as the record says, if Redis can be asked."""
        with suppress(BrokerUnavailable):
            async with self._lock:
                record = await self._initialization.read()
                if record is None or not record.is_ready:
                    return
                if self._record is not None and self._record.token == record.token:
                    return
                try:
                    late = unseal(record.sealed, self._given)
                except SealedOtherwise as error:
                    if self._problem != str(error):
                        _log.error("configuration_not_usable", reason=str(error))
                    self._problem = str(error)
                    return
                await self._serve_with(record, await self._opened(late.over(self._given)))

    async def _opened(self, settings: Settings) -> WebContext:
        context = self._make_context(settings)
        await context.__aenter__()
        return context

    async def _serve_with(self, record: InitRecord, context: WebContext) -> None:
        former, self._ctx.web = self._ctx.web, context
        self._record, self._problem = record, None
        _log.info("configuration_taken", token=record.token)
        await former.__aexit__(None, None, None)

    async def _follow(self) -> None:
        while True:
            with suppress(BrokerUnavailable):
                if self._record is None or not await self._initialization.keep(self._record):
                    await self._look()
            await asyncio.sleep(_KEEP_SECONDS if self.is_ready else _LOOK_SECONDS)


async def _until_ready(context: WebContext) -> None:
    while True:
        if not context.readiness():
            return
        await asyncio.sleep(_POLL_SECONDS)


class Unstartable(Exception):
    """Nothing can be started with this configuration."""
