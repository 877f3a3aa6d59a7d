"""Opening a conversation for writing: claim, fence, construct. Blocking; runs in a worker thread."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import structlog
from openhands.sdk.agent.base import AgentBase
from openhands.sdk.conversation.impl.local_conversation import LocalConversation
from openhands.sdk.conversation.request import ConversationConfig
from openhands.sdk.event.conversation_error import ConversationErrorEvent
from openhands.sdk.mcp import MCPToolProvider
from openhands.sdk.secret import SecretSource
from openhands.sdk.subagent.registry import agent_definition_to_factory, register_agent_if_absent
from openhands.sdk.utils.cipher import Cipher

from service.catalog.keys import Keys
from service.identity import RunnerId
from service.pubsub.broker import Channel
from service.runner.conversation.meta import Meta, read_meta
from service.runner.conversation.outbox import Outbox
from service.runner.conversation.owned_store import OwnedStore
from service.runner.conversation.streaming import Progressing, know_secrets
from service.runner.publisher import Publisher
from service.runner.secrets_at_rest import RememberingCipher, renew_secrets, require_known_keys
from service.runner.servers.credential_bindings import CredentialBindings
from service.settings import Settings
from service.store.inbox import Inbox
from service.store.layout import ConversationDirectory
from service.store.owner_record import NOBODY, Fence, OwnerRecord, claim, read_owner
from service.store.secret_key import load_kept, load_or_create
from service.store.torn_tail import note_told, set_aside_torn_tail

_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Opened:
    """The parts of a conversation that is open for writing."""

    directory: ConversationDirectory
    conversation: LocalConversation
    meta: Meta
    store: OwnedStore
    inbox: Inbox
    outbox: Outbox
    claim: OwnerRecord
    fence: Fence
    was_handed_over: bool
    """The last owner let go in good order; a run that it was at has been stopped at a step's end."""


class Opener:
    """Opens conversations for one runner, which holds their leases."""

    def __init__(
        self,
        settings: Settings,
        runner_id: RunnerId,
        publisher: Publisher,
        keys: Keys,
        cipher: Cipher,
        bindings: CredentialBindings,
        mcp_tools: Callable[[UUID], MCPToolProvider],
    ) -> None:
        self._settings = settings
        self._runner_id = runner_id
        self._publisher = publisher
        self._keys = keys
        self.cipher = cipher
        self._bindings = bindings
        self._mcp_tools = mcp_tools

    def create(
        self, directory: ConversationDirectory, meta: Meta, agent: AgentBase, secrets: dict[str, SecretSource]
    ) -> Opened:
        """Make a conversation that does not exist yet; the directory does, with its `meta.json`."""
        opened = self._open(directory, meta, agent, secrets)
        # Unlike all else that is chosen at creation, these are no arguments of the SDK's constructor.
        opened.conversation.set_confirmation_policy(meta.confirmation_policy)
        opened.conversation.set_security_analyzer(meta.security_analyzer)
        return opened

    def open(self, directory: ConversationDirectory) -> Opened:
        """Open one that exists, whoever wrote it.

        Raises:
            UnknownSecretKey: its secrets are encrypted under a key that is not configured.
            ValueError, OSError: the files are not readable as a conversation.
        """
        require_known_keys(directory, self.cipher)
        meta = read_meta(directory)
        import_tool_modules(meta.tool_module_qualnames)
        for name, reason in register_agent_definitions(meta).items():
            _log.warning("agent_definition_not_registered", agent=name, reason=reason)
        return self._open(directory, meta, None, None)

    def _open(
        self,
        directory: ConversationDirectory,
        meta: Meta,
        agent: AgentBase | None,
        secrets: dict[str, SecretSource] | None,
    ) -> Opened:
        # Claim first: from here on a previous owner's writes fail, and the constructor below may write.
        previous = read_owner(directory)
        record = claim(directory, self._runner_id, fsync=self._settings.fsync)
        if agent is None:
            renew_secrets(directory, self.cipher, fsync=self._settings.fsync)
        torn = set_aside_torn_tail(directory)
        fence = Fence(directory, record)
        inbox = Inbox(directory, fsync=self._settings.fsync, fence=fence)
        store = OwnedStore(directory, fence, inbox, fsync=self._settings.fsync)
        channel = Channel(self._keys.events(directory.conversation_id))
        outbox = Outbox(self._publisher, channel, record.stream_epoch)
        conversation = LocalConversation(
            agent=agent,
            workspace=meta.workspace,
            plugins=meta.plugins,
            persistence_dir=str(directory.path.parent),
            conversation_id=directory.conversation_id,
            hook_config=meta.hook_config,
            max_iteration_per_run=meta.max_iterations,
            stuck_detection=meta.stuck_detection,
            visualizer=None,
            secrets=secrets,
            cipher=RememberingCipher(self.cipher),
            tags=meta.tags,
            user_id=meta.user_id,
            client_tools=meta.client_tools or None,
            observability_metadata=meta.observability_metadata or None,
            observability_tags=meta.observability_tags or None,
            observability_span_name=meta.observability_span_name,
            observability_parent_span_context=meta.observability_parent_span_context,
            stream_callbacks=[Progressing(outbox)],
            file_store=store,
            mcp_tool_provider=self._mcp_tools(directory.conversation_id),
        )
        for path in torn:
            _log.error("torn_event_set_aside", conversation_id=str(directory.conversation_id), file=path.name)
            _tell_torn(conversation, path)
        self._bindings.activate(directory, conversation.agent, meta.allows_secret)
        know_secrets(conversation.state.secret_registry)
        outbox.resume(len(conversation.state.events))
        was_handed_over = previous is not None and previous.runner_id == NOBODY
        return Opened(directory, conversation, meta, store, inbox, outbox, record, fence, was_handed_over)


def _tell_torn(conversation: LocalConversation, path: Path) -> None:
    detail = f"The last event of the log was not whole and has been set aside as {path.name}"
    with conversation.state as state:
        state.append_event(ConversationErrorEvent(source="environment", code="EventUnreadable", detail=detail))
    note_told(path)


def make_cipher(settings: Settings) -> Cipher:
    """What encrypts secrets on disk: the configured key, or one kept beside the conversations. Blocking.

    The latter still decrypts what was stored before there was a configured one.
    """
    if settings.cipher_key is None:
        return Cipher(load_or_create(settings.conversations_path), settings.previous_cipher_keys)
    kept = load_kept(settings.conversations_path)
    return Cipher(settings.cipher_key, (*settings.previous_cipher_keys, *([kept] if kept else [])))


def import_tool_modules(modules: dict[str, str]) -> dict[str, str]:
    """Import the modules that register tools; returns those that could not be, by tool name, with the reason."""
    failures: dict[str, str] = {}
    for name, module in modules.items():
        try:
            importlib.import_module(module)
        except ImportError as error:
            _log.warning("tool_module_not_imported", tool=name, module=module, error=str(error))
            failures[name] = f"{module}: {error}"
    return failures


def register_agent_definitions(config: ConversationConfig) -> dict[str, str]:
    """Make the creator's sub-agents known to the task tools; returns those that could not be, with the reason.

    The SDK's registry is one per process: the first definition of a name counts for all conversations in it.
    """
    failures: dict[str, str] = {}
    for definition in config.agent_definitions:
        try:
            factory = agent_definition_to_factory(definition, config.workspace.working_dir)
        except ValueError as error:
            failures[definition.name] = str(error)
        else:
            register_agent_if_absent(definition.name, factory, definition)
    return failures
