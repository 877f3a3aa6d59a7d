"""A runner's whole life; where its start is deferred, it serves with a configuration for as long as that holds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import NoReturn

import structlog

from service.catalog.init_record import Initialization, InitRecord
from service.catalog.keys import Keys
from service.errors import BrokerUnavailable
from service.redis_source import RedisSource
from service.runner.environment import environment_variables
from service.runner.process import running_runner
from service.settings import Settings
from service.settings.sealed import unseal

_log = structlog.get_logger(__name__)

_LOOK_SECONDS = 0.1
_KEEP_SECONDS = 1.0


async def run_runner(settings: Settings, source: RedisSource) -> None:
    """Take requests until cancelled; drains then."""
    if settings.deferred_init:
        await _run_when_configured(settings, source)
    async with running_runner(settings, source):
        await asyncio.Event().wait()


async def _run_when_configured(settings: Settings, source: RedisSource) -> NoReturn:
    redis = source.commands()
    initialization = Initialization(redis, Keys(settings.redis_namespace))
    try:
        while True:
            record = await _next(initialization)
            try:
                async with _serving(settings, source, record):
                    await _while_it_holds(initialization, record)
            except Exception as error:
                _log.exception("runner_failed", token=record.token)
                await initialization.failed(record, str(error))
                if not await _is_withdrawn(initialization, record):
                    raise
    finally:
        await redis.aclose()


@asynccontextmanager
async def _serving(settings: Settings, source: RedisSource, record: InitRecord) -> AsyncIterator[None]:
    late = unseal(record.sealed, settings)
    with environment_variables(late.env):
        async with running_runner(late.over(settings), source):
            yield


async def _next(initialization: Initialization) -> InitRecord:
    while True:
        with suppress(BrokerUnavailable):
            record = await initialization.read()
            if record is not None:
                return record
        await asyncio.sleep(_LOOK_SECONDS)


async def _while_it_holds(initialization: Initialization, record: InitRecord) -> None:
    """Until it is withdrawn before it got ready, or another one has come."""
    is_told = is_ready = False
    while True:
        with suppress(BrokerUnavailable):
            if not is_told:
                await initialization.started(record)
                is_told = True
            if is_ready:
                if not await initialization.keep(record):
                    return
            else:
                current = await initialization.current(record)
                if current is None:
                    return
                is_ready = current.is_ready
        await asyncio.sleep(_KEEP_SECONDS if is_ready else _LOOK_SECONDS)


async def _is_withdrawn(initialization: Initialization, record: InitRecord) -> bool:
    """Wait for what becomes of it; False: it got ready with other runners."""
    while True:
        with suppress(BrokerUnavailable):
            current = await initialization.current(record)
            if current is None:
                return True
            if current.is_ready:
                return False
        await asyncio.sleep(_LOOK_SECONDS)
