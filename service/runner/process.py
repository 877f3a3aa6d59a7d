"""One runner: everything it holds, in the order it is made and let go."""

from __future__ import annotations

import asyncio
import importlib
import os
import socket
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from importlib.metadata import version
from typing import Any

import structlog
from openhands.sdk.tool.registry import list_usable_tools, seal_tool_catalog
from openhands.tools.preset.default import register_default_tools
from openhands.tools.preset.gemini import register_gemini_tools
from openhands.tools.preset.planning import register_planning_tools

from service.catalog.catalog import Catalog
from service.catalog.keys import Keys
from service.catalog.liveness import new_runner_id
from service.catalog.runners import HEARTBEAT_SECONDS, RunnerRecord
from service.errors import BrokerUnavailable
from service.identity import RunnerId
from service.metrics import metrics, sample
from service.pubsub.broker import Channel
from service.pubsub.brokers import make_broker
from service.redis_source import RedisSource
from service.requests.responder import Responder
from service.runner.agent_loop import PROCESS_AGENT_LOOP
from service.runner.bash.host import BashHost
from service.runner.conversation.mcp_tools import RenewedTokens
from service.runner.conversation.opening import Opener, make_cipher
from service.runner.environment import DIRECT_LLM_REQUESTS, environment_variables
from service.runner.extensions.extensions import Extensions
from service.runner.operations.agent_profiles import AgentProfileOperations
from service.runner.operations.bash import BashOperations
from service.runner.operations.branches import BranchOperations
from service.runner.operations.children import ChildOperations
from service.runner.operations.conversations import ConversationOperations
from service.runner.operations.credentials import CredentialOperations
from service.runner.operations.extensions import ExtensionOperations
from service.runner.operations.gateway import GatewayOperations
from service.runner.operations.goals import GoalOperations
from service.runner.operations.host_programs import HostOperations
from service.runner.operations.llm_trial import LlmTrial
from service.runner.operations.profiles import ProfileOperations
from service.runner.operations.repositories import RepositoryOperations
from service.runner.operations.sandbox import SandboxOperations
from service.runner.operations.sdk import SdkOperations
from service.runner.operations.servers import ServerOperations
from service.runner.operations.settings import SettingsOperations
from service.runner.operations.store_access import StoreAccess
from service.runner.operations.subscription import SubscriptionOperations
from service.runner.operations.switches import SwitchOperations
from service.runner.operations.table import Operations
from service.runner.operations.webhooks import WebhookOperations
from service.runner.operations.workspaces import WorkspaceOperations
from service.runner.own_server import known_to_agents
from service.runner.ownership.host import Host
from service.runner.ownership.index_building import IndexBuilding
from service.runner.ownership.takeover import Takeover
from service.runner.persistence.settings_store import SecretsStore
from service.runner.publisher import PUBLISHING, Publisher
from service.runner.servers.acp_models import AcpModels
from service.runner.servers.credential_bindings import CredentialBindings
from service.runner.servers.mcp_oauth import McpOAuth
from service.runner.webhooks.receiver import make_client
from service.runner.webhooks.webhooks import Webhooks
from service.runner.workers import Workers
from service.settings import Settings
from service.store.disk import can_open
from service.store.leftovers import remove_leftovers
from service.tasks import TaskSet, repeat
from service.thread_pool import ThreadPool

_log = structlog.get_logger(__name__)

_LEASE_RENEWALS_PER_TTL = 3
_UNTOLD_SECONDS = 2.0
_PUBLISHING_SECONDS = 0.2
"""After an error that nobody expected."""
_INDEX_SECONDS = 1.0
"""How often a runner looks whether Redis has lost the index."""
_LEFTOVERS_SECONDS = 3600.0
_TAKEOVER_SECONDS = 0.5
"""How often a runner looks for conversations that lost theirs."""


@asynccontextmanager
async def running_runner(settings: Settings, source: RedisSource) -> AsyncIterator[RunnerId]:
    """A runner that takes requests for the length of the block, and lets go of what it owns at its end.

    The end is the way back: it leaves the list of runners, upkeep stops, shell commands get their end, conversations go
    to their next owners while leases are renewed and requests about them answered; then the inbox, the publisher
    with what is left to tell, the broker and the threads.
    """
    asyncio.get_running_loop().set_default_executor(ThreadPool(None, "disk"))
    runner_id = new_runner_id()
    keys = Keys(settings.redis_namespace)
    async with AsyncExitStack() as stack:
        redis = source.commands()
        stack.push_async_callback(redis.aclose)
        workers = Workers(runs=settings.max_concurrent_runs)
        stack.callback(workers.close)
        await workers.call(_register_tools, settings)
        facts = await workers.call(_facts)
        agent_loop = PROCESS_AGENT_LOOP.acquire()
        stack.callback(PROCESS_AGENT_LOOP.release)

        broker = make_broker(source, Channel(keys.control))
        stack.push_async_callback(broker.close)
        publisher = Publisher(broker)
        _repeated(stack, publisher.run, PUBLISHING, _PUBLISHING_SECONDS)
        stack.push_async_callback(publisher.flush)

        catalog = Catalog(redis, keys, settings.lease_ttl_seconds, source.touched)
        cipher = await workers.call(make_cipher, settings)
        bindings = CredentialBindings(cipher, fsync=settings.fsync)
        client = await workers.call(make_client)
        stack.push_async_callback(client.aclose)
        tokens = RenewedTokens(settings, cipher, catalog.store_lock, workers, client)
        stack.push_async_callback(tokens.close)
        opener = Opener(settings, runner_id, publisher, keys, cipher, bindings, tokens.tools_of)
        webhooks = Webhooks(settings, catalog.untold, workers, client)
        stack.push_async_callback(webhooks.letters.close)
        host = Host(settings, runner_id, opener, catalog, agent_loop, workers, webhooks)

        build = IndexBuilding(settings, catalog, workers)
        bash = BashHost(settings, runner_id, publisher, keys, workers)
        programs = HostOperations(settings)
        extensions = Extensions(settings.persistence_root)
        stack.callback(extensions.close)
        oauth = McpOAuth(runner_id, catalog.oauth_jobs, cipher)
        stack.push_async_callback(oauth.close)
        acp = AcpModels()
        stack.callback(acp.close)
        if settings.direct_llm_requests:
            stack.enter_context(environment_variables(DIRECT_LLM_REQUESTS))
        stack.enter_context(known_to_agents(settings, SecretsStore(settings.persistence_root, cipher)))
        access = StoreAccess(workers, catalog.store_lock)
        operations = Operations(
            ConversationOperations(settings, host, bash, workers, webhooks, cipher, extensions).table,
            BranchOperations(host, workers).table,
            GoalOperations(host).table,
            ChildOperations(host, workers, webhooks).table,
            CredentialOperations(host, workers, bindings).table,
            SwitchOperations(host, workers, settings.persistence_root, cipher).table,
            BashOperations(settings, host, bash).table,
            SdkOperations(workers).table,
            GatewayOperations(settings, host, workers, cipher, extensions).table,
            ExtensionOperations(settings, extensions).table,
            ServerOperations(cipher, extensions, oauth, acp).table,
            SettingsOperations(settings.persistence_root, cipher, access).table,
            RepositoryOperations(settings, workers, client, cipher).table,
            ProfileOperations(settings.persistence_root, cipher, access).table,
            AgentProfileOperations(settings, cipher, access, extensions).table,
            SubscriptionOperations(settings.persistence_root, workers, catalog.oauth_jobs, cipher).table,
            LlmTrial(settings.persistence_root, workers, cipher).table,
            WorkspaceOperations(settings, cipher, access).table,
            WebhookOperations(webhooks).table,
            SandboxOperations(host).table,
            programs.table,
        )

        def mend_index() -> None:
            """Redis was emptied, or was away and may have come back with the data of a while ago."""
            host.index_again()
            build.look_again()

        inbox = Channel(keys.inbox(runner_id))
        await stack.enter_async_context(Responder(broker, inbox, operations.handle, mend_index))
        renewal_seconds = settings.lease_ttl_seconds / _LEASE_RENEWALS_PER_TTL
        _repeated(stack, partial(_renew, host), "lease-renewal", renewal_seconds)
        # Before the above ends, and after what follows: it takes no more, and is heard of through its inbox.
        stack.push_async_callback(host.drain)
        stack.push_async_callback(bash.close)
        takeover = Takeover(host, runner_id, catalog)
        stack.push_async_callback(takeover.stop)
        tidy = partial(workers.call, remove_leftovers, host.root)
        _repeated(stack, tidy, "leftovers", _LEFTOVERS_SECONDS)
        end_orphans = partial(bash.end_those_of_dead_runners, catalog.runners, host.pulse)
        _repeated(stack, end_orphans, "orphaned-commands", _TAKEOVER_SECONDS)
        retention_seconds = settings.bash_events_retention_seconds
        if retention_seconds is not None:
            delete_old = partial(bash.delete_old, retention_seconds)
            _repeated(stack, delete_old, "bash-retention", max(60.0, retention_seconds / 2))
        _repeated(stack, partial(_take_over, takeover, catalog, host), "takeover", _TAKEOVER_SECONDS)
        _repeated(stack, partial(_keep_index, build, takeover), "index", _INDEX_SECONDS)
        idle_seconds = settings.conversation_idle_ttl_seconds
        if idle_seconds is not None:
            evict_idle = partial(host.evict_idle, idle_seconds, bash.runs_for)
            _repeated(stack, evict_idle, "eviction", min(max(idle_seconds / 4, 0.5), 60.0))
        _repeated(stack, partial(_tell_for_the_dead, takeover, catalog), "untold-webhooks", _UNTOLD_SECONDS)
        for program in programs.programs:
            _background(stack, program.keep(), "host-program")
        stack.push_async_callback(catalog.runners.leave, runner_id)
        _background(stack, sample("runner", partial(_set_gauges, host, publisher)), "metrics")
        _repeated(stack, partial(_beat, catalog, runner_id, host, mend_index, facts), "heartbeat", HEARTBEAT_SECONDS)
        _log.info("runner_ready", runner_id=runner_id)
        yield runner_id


def _background(stack: AsyncExitStack, coroutine: Coroutine[Any, Any, None], name: str) -> None:
    """Run beside the block, until the stack unwinds to here."""
    tasks = TaskSet()
    tasks.start(coroutine, name)
    stack.push_async_callback(tasks.stop)


def _repeated(stack: AsyncExitStack, step: Callable[[], Awaitable[object]], name: str, pause_seconds: float) -> None:
    """Again and again beside the block, until the stack unwinds to here."""
    _background(stack, repeat(step, name, pause_seconds), name)


def _set_gauges(host: Host, publisher: Publisher) -> None:
    metrics().runners.set(1)
    metrics().runs.set(host.slots.taken)
    metrics().conversations.set(host.hosted)
    metrics().publish_queue_bytes.set(publisher.queue_bytes)
    metrics().webhook_queue.set(host.waiting_webhook_events)


async def _beat(
    catalog: Catalog, runner_id: RunnerId, host: Host, mend_index: Callable[[], None], facts: dict[str, Any]
) -> None:
    """Show that this runner lives, and see to what Redis may have lost."""
    try:
        was_there = await catalog.runners.beat(RunnerRecord(runner_id, host.slots.taken, facts, can_open()))
        if host.pulse.beat(was_there=was_there, now=time.monotonic()):
            mend_index()
            await host.renew_leases()
        if host.take_activity():
            await catalog.activity.note()
    except BrokerUnavailable as error:
        host.pulse.miss(time.monotonic())
        _log.warning("heartbeat_failed", error=str(error.__cause__))


async def _keep_index(build: IndexBuilding, takeover: Takeover) -> None:
    """Make the index when it is not there, and go on with what the disk shows to have been left."""
    await takeover.begin(await build.run())


async def _take_over(takeover: Takeover, catalog: Catalog, host: Host) -> None:
    """Go on with what dead runners were running, if there is a slot here for one of these runs."""
    if host.slots.is_full:
        return
    await takeover.begin(await catalog.index.running())


async def _tell_for_the_dead(takeover: Takeover, catalog: Catalog) -> None:
    """Go on telling receivers of webhooks where an owner died, once its lease has run out: there is no hurry."""
    await takeover.begin(await catalog.untold.without_owner() + await catalog.goals.without_owner())


async def _renew(host: Host) -> None:
    try:
        await host.renew_leases()
    except BrokerUnavailable as error:
        _log.warning("lease_renewal_failed", error=str(error.__cause__))


def _register_tools(settings: Settings) -> None:
    """Those that are there to choose among; the modules of others are found where the settings say."""
    register_default_tools(enable_browser=settings.enable_browser)
    register_gemini_tools(enable_browser=settings.enable_browser)
    register_planning_tools()
    importlib.import_module("openhands.tools.child_conversation")  # registers a tool of servers
    seal_tool_catalog()  # what conversations bring with them is theirs
    given = (settings.extra_python_path or "").split(os.pathsep)
    sys.path += [path for path in given if path and path not in sys.path]


def _facts() -> dict[str, Any]:
    """What web workers, which do not import the SDK, tell of it."""
    return {
        "sdk_version": version("openhands-sdk"),
        "tools_version": version("openhands-tools"),
        "usable_tools": list_usable_tools(),
        "host": socket.gethostname(),
        "pid": os.getpid(),
    }
