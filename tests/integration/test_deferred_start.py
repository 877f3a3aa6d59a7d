"""A deferred start whose steps are disturbed: by Redis going away, and by a client that hangs up."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from unittest.mock import patch

import pytest

from service.blueprints.deferred_start import DeferredStart
from service.blueprints.http.context import WebContext
from service.catalog.init_record import Initialization, InitRecord
from service.catalog.keys import Keys
from service.errors import BrokerUnavailable, RequestFailed
from service.settings import Settings
from service.settings.late import LateSettings
from tests.redis_under_test import EmbeddedRedis
from tests.waiting import wait_until_async

NAMESPACE = "under-test"


class Context(WebContext):
    """One that is ready, and has something happen while it is opened, asked whether it is ready, and closed."""

    during: dict[str, Callable[[], object]]
    opening: asyncio.Event
    is_closed = False

    async def __aenter__(self) -> Context:
        await super().__aenter__()
        await self.opening.wait()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await super().__aexit__(*exc)
        self.is_closed = True
        self.during.get("close", bool)()

    def readiness(self) -> list[str]:
        self.during.get("ask", bool)()
        return []


class Deployment:
    """One web worker that is dormant, and what a runner would say."""

    def __init__(self, settings: Settings) -> None:
        self.redis = EmbeddedRedis(NAMESPACE)
        settings = settings.model_copy(update={"redis_namespace": NAMESPACE, "deferred_init": True})
        self.ctx = SimpleNamespace()
        self.contexts: list[Context] = []
        """The first is that of the dormant server."""
        self.during: dict[str, Callable[[], object]] = {}
        self.opening = asyncio.Event()
        self.opening.set()
        self.start = DeferredStart(self.ctx, settings, self.redis.source, self._make_context)
        self._records = Initialization(self.redis.source.commands(), Keys(NAMESPACE))

    def _make_context(self, settings: Settings) -> Context:
        context = Context(settings, self.redis.source, lambda: None)
        context.during, context.opening = self.during, self.opening
        self.contexts.append(context)
        return context

    async def initialize(self) -> None:
        """As `POST /api/init` with `{}`; a runner starts with it."""
        initializing = asyncio.create_task(self.start.initialize(LateSettings(), b"{}"))
        record = await wait_until_async(self._records.read, "it has been proposed")
        assert record is not None
        await self._records.started(record)
        await initializing

    async def is_initialized_elsewhere(self) -> None:
        """Another worker serves already."""
        record = InitRecord.new(b"{}")
        await self._records.propose(record, 60.0)
        await self._records.keep(record)


@pytest.fixture
def deployment(settings: Settings) -> Deployment:
    return Deployment(settings)


async def test_what_was_opened_is_closed_when_it_cannot_be_told(deployment: Deployment) -> None:
    """The server is dormant again."""
    async with deployment.start as start:
        deployment.during["ask"] = deployment.redis.take_down
        with pytest.raises(RequestFailed):
            await deployment.initialize()
        assert not start.is_ready
        assert [context.is_closed for context in deployment.contexts] == [False, True]


async def test_who_serves_says_so_though_an_answer_was_lost(deployment: Deployment) -> None:
    """Redis has taken it, so the other workers and the runners follow."""
    async with deployment.start as start:
        keep, is_lost = start._initialization.keep, asyncio.Event()

        async def keep_and_lose(record: InitRecord) -> bool:
            is_kept = await keep(record)
            if not is_lost.is_set():
                is_lost.set()
                raise BrokerUnavailable
            return is_kept

        with patch.object(start._initialization, "keep", keep_and_lose):
            await deployment.initialize()
        assert is_lost.is_set()
        assert start.is_ready


async def test_who_serves_says_so_without_redis(deployment: Deployment) -> None:
    """What is left of an earlier failure is of no account."""
    async with deployment.start as start:
        deployment.during["close"] = deployment.redis.take_down
        await deployment.initialize()
        assert start.is_ready
        assert deployment.ctx.web is deployment.contexts[1]


async def test_client_that_hangs_up_leaves_nothing_half_open(deployment: Deployment) -> None:
    """What its request began is brought to its end."""
    async with deployment.start as start:
        for _ in range(50):  # for the worker to have looked by itself; its next look is a while off
            await asyncio.sleep(0)
        deployment.opening.clear()
        await deployment.is_initialized_elsewhere()
        asking = asyncio.create_task(start.require_ready())
        await wait_until_async(lambda: len(deployment.contexts) == 2, "the request has begun to open it")
        asking.cancel()
        await asyncio.wait([asking])
        deployment.opening.set()
        await wait_until_async(lambda: start.is_ready, "the worker serves")
        assert len(deployment.contexts) == 2
