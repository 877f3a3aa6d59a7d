"""Whether a web worker can serve, and why not."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from service.blueprints.http import context
from service.blueprints.http.context import WebContext
from service.catalog.runners import RunnerRecord
from service.identity import RunnerId
from service.redis_source import RedisSource
from service.settings import Settings
from tests.shortages import no_more_descriptors
from tests.waiting import wait_until_async


async def test_readiness_is_found_again_after_its_check_failed(settings: Settings, source: RedisSource) -> None:
    """Meanwhile the worker is not ready, and says so."""
    settings = settings.model_copy(update={"redis_namespace": source.namespace})
    failing = True

    def runner_failure() -> None:
        if failing:
            raise ValueError("nobody has thought of this")

    async with WebContext(settings, source, runner_failure) as web:
        await wait_until_async(lambda: web.readiness() == ["The readiness check fails"], "the check has failed")
        failing = False
        await wait_until_async(lambda: web.readiness() == ["No runner is up yet"], "the check is made again")


async def test_worker_without_descriptors_is_not_ready(settings: Settings, source: RedisSource) -> None:
    """It takes no connection and opens no file."""
    settings = settings.model_copy(update={"redis_namespace": source.namespace})
    lacking = "The process has no descriptors left"
    async with WebContext(settings, source, lambda: None) as web:
        await wait_until_async(lambda: web.readiness() == ["No runner is up yet"], "the check has been made")
        with no_more_descriptors():
            await wait_until_async(lambda: lacking in web.readiness(), "the lack is seen")
        await wait_until_async(lambda: lacking not in web.readiness(), "its end is seen")


async def test_runner_without_descriptors_serves_nothing_new(settings: Settings, source: RedisSource) -> None:
    settings = settings.model_copy(update={"redis_namespace": source.namespace})
    async with WebContext(settings, source, lambda: None) as web:

        async def is_seen() -> bool:
            await web.catalog.runners.beat(RunnerRecord(RunnerId("one"), 0, {}, is_able=False))
            return web.readiness() == ["No runner has descriptors left"]

        await wait_until_async(is_seen, "the lack is seen")


async def test_check_that_does_not_end_is_not_readiness(
    settings: Settings, source: RedisSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when the disk does not answer."""
    monkeypatch.setattr(context, "_VALID_SECONDS", 1.5)
    settings = settings.model_copy(update={"redis_namespace": source.namespace})
    threads = ThreadPoolExecutor(1)
    asyncio.get_running_loop().set_default_executor(threads)
    answer = threading.Event()
    async with WebContext(settings, source, lambda: None) as web:
        await wait_until_async(lambda: web.readiness() == ["No runner is up yet"], "the check has been made")
        threads.submit(answer.wait)
        await wait_until_async(lambda: web.readiness() == ["The readiness check does not end"], "it waits for a thread")
        answer.set()
        await wait_until_async(lambda: web.readiness() == ["No runner is up yet"], "the check is made again")
