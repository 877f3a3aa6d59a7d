"""One runner: everything it holds, in the order it is made and let go."""

from __future__ import annotations

import asyncio
import os
import socket
import time
import uuid
from collections.abc import AsyncIterator, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from importlib.metadata import version
from typing import Any

import structlog
from openhands.sdk.tool.registry import list_usable_tools
from openhands.tools.preset.default import register_default_tools

from service.catalog.catalog import Catalog
from service.catalog.index import IndexEntry
from service.catalog.keys import Keys
from service.catalog.liveness import Pulse, new_runner_id
from service.catalog.rebuild import IndexBuild, in_batches
from service.catalog.runners import HEARTBEAT_SECONDS, RunnerRecord
from service.errors import BrokerUnavailable
from service.identity import RunnerId
from service.pubsub.broker import Channel
from service.pubsub.redis_broker import RedisBroker
from service.redis_source import RedisSource
from service.requests.responder import Responder
from service.runner.agent_loop import PROCESS_AGENT_LOOP
from service.runner.bash_host import BashHost
from service.runner.host import Host
from service.runner.opening import Opener, make_cipher
from service.runner.operations import Operations
from service.runner.publisher import Publisher
from service.runner.workers import Workers
from service.settings import Settings
from service.store.inbox import waiting_files
from service.store.layout import ConversationsRoot
from service.store.scan import Found, scan
from service.tasks import TaskSet

_log = structlog.get_logger(__name__)

_LEASE_RENEWALS_PER_TTL = 3
_TAKEOVER_SECONDS = 0.5
"""How often a runner looks for conversations that lost theirs."""


@asynccontextmanager
async def running_runner(settings: Settings, source: RedisSource) -> AsyncIterator[RunnerId]:
    """A runner that takes requests for the length of the block, and lets go of what it owns at its end."""
    runner_id = new_runner_id()
    keys = Keys(settings.redis_namespace)
    async with AsyncExitStack() as stack:
        redis = source.commands()
        stack.push_async_callback(redis.aclose)
        workers = Workers()
        stack.callback(workers.close)
        facts = await workers.call(_facts, settings)
        agent_loop = PROCESS_AGENT_LOOP.acquire()
        stack.callback(PROCESS_AGENT_LOOP.release)

        broker = RedisBroker(source.commands(), source.listener(), Channel(keys.control))
        stack.push_async_callback(broker.close)
        publisher = Publisher(broker)
        _background(stack, publisher.run(), "publisher")
        stack.push_async_callback(publisher.flush)

        catalog = Catalog(redis, keys, settings.lease_ttl_seconds)
        cipher = await workers.call(make_cipher, settings)
        opener = Opener(settings, runner_id, publisher, keys, cipher)
        host = Host(settings, runner_id, opener, catalog, agent_loop, workers)

        interrupted = await _build_index(catalog.index_build, host.root, workers)
        bash = BashHost(settings, runner_id, publisher, keys, workers)
        operations = Operations(settings, host, bash, workers, cipher)
        await stack.enter_async_context(Responder(broker, Channel(keys.inbox(runner_id)), operations.handle))
        _background(stack, _renew(host, settings.lease_ttl_seconds), "lease-renewal")
        # Before the above ends, and after what follows: it takes no more, and is heard of through its inbox.
        stack.push_async_callback(host.drain)
        stack.push_async_callback(bash.close)
        _background(stack, _end_orphaned_commands(bash, catalog, host.pulse), "orphaned-commands")
        _background(stack, _delete_old_commands(bash, settings.bash_events_retention_seconds), "bash-retention")
        _background(stack, _take_over(host, catalog, interrupted), "takeover")
        stack.push_async_callback(catalog.runners.leave, runner_id)
        _background(stack, _beat(catalog, runner_id, host, workers, facts), "heartbeat")
        _log.info("runner_ready", runner_id=runner_id)
        yield runner_id


def _background(stack: AsyncExitStack, coroutine: Coroutine[Any, Any, None], name: str) -> None:
    """Run beside the block, until the stack unwinds to here."""
    tasks = TaskSet()
    tasks.start(coroutine, name)
    stack.push_async_callback(tasks.stop)


async def _beat(catalog: Catalog, runner_id: RunnerId, host: Host, workers: Workers, facts: dict[str, Any]) -> None:
    """Show that this runner lives, and see to what Redis may have lost."""
    while True:
        try:
            was_there = await catalog.runners.beat(RunnerRecord(runner_id, host.slots.taken, facts))
            host.pulse.beat(was_there=was_there, now=time.monotonic())
            if not was_there:
                await host.renew_leases()
            if not await catalog.index_build.is_done():
                await _build_index(catalog.index_build, host.root, workers)
            if host.take_activity():
                await catalog.activity.note()
        except BrokerUnavailable as error:
            host.pulse.miss(time.monotonic())
            _log.warning("heartbeat_failed", error=str(error.__cause__))
        await asyncio.sleep(HEARTBEAT_SECONDS)


async def _take_over(host: Host, catalog: Catalog, interrupted: list[uuid.UUID]) -> None:
    """Go on with what dead runners were running: at first what the disk shows, then what happens elsewhere."""
    while True:
        with suppress(BrokerUnavailable):
            await host.recover_interrupted(interrupted + await catalog.index.running())
            interrupted = []
        await asyncio.sleep(_TAKEOVER_SECONDS)


async def _end_orphaned_commands(bash: BashHost, catalog: Catalog, pulse: Pulse) -> None:
    while True:
        with suppress(BrokerUnavailable):
            await bash.end_those_of_dead_runners(catalog.runners, pulse)
        await asyncio.sleep(_TAKEOVER_SECONDS)


async def _delete_old_commands(bash: BashHost, retention_seconds: int | None) -> None:
    while retention_seconds is not None:
        await bash.delete_old()
        await asyncio.sleep(max(60.0, retention_seconds / 2))


async def _renew(host: Host, lease_ttl_seconds: float) -> None:
    while True:
        await asyncio.sleep(lease_ttl_seconds / _LEASE_RENEWALS_PER_TTL)
        try:
            await host.renew_leases()
        except BrokerUnavailable as error:
            _log.warning("lease_renewal_failed", error=str(error.__cause__))


async def _build_index(build: IndexBuild, root: ConversationsRoot, workers: Workers) -> list[uuid.UUID]:
    """Make the index if nobody has; returns the conversations that a dead owner left in the middle of something."""
    found = await workers.call(lambda: list(scan(root)))
    entries = (IndexEntry(*conversation) for conversation in found)
    await build.run(in_batches(entries))
    return [conversation.conversation_id for conversation in found if _is_interrupted(root, conversation)]


def _is_interrupted(root: ConversationsRoot, found: Found) -> bool:
    return found.status == "running" or bool(waiting_files(root.directory(found.conversation_id).inbox))


def _facts(settings: Settings) -> dict[str, Any]:
    """What web workers, which do not import the SDK, tell of it."""
    register_default_tools(enable_browser=settings.enable_browser)
    return {
        "sdk_version": version("openhands-sdk"),
        "tools_version": version("openhands-tools"),
        "workspace_version": None,
        "usable_tools": list_usable_tools(),
        "host": socket.gethostname(),
        "pid": os.getpid(),
    }
