"""A title for a conversation that has none, of its first message's words, while the agent is at work on that."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path

import structlog
from openhands.sdk.conversation.impl.local_conversation import LocalConversation
from openhands.sdk.conversation.title_utils import generate_title_from_message
from openhands.sdk.event.conversation_error import ConversationErrorEvent
from openhands.sdk.llm import LLM, TextContent
from openhands.sdk.llm.provider_connection_store import ProviderConnectionNotFound
from openhands.sdk.utils.cipher import Cipher

from service.errors import OwnershipLost
from service.runner.conversation.creation import private_copy
from service.runner.conversation.reporter import Reporter
from service.runner.persistence.profile_stores import ProfileStores
from service.runner.wire.request_models import PostMessageRequest
from service.runner.workers import Workers
from service.tasks import TaskSet

_log = structlog.get_logger(__name__)

_LONGEST_TITLE = 50
"""In characters (contract)."""


class TitleLlms:
    """The stored LLM profiles that titles may be asked of."""

    def __init__(self, root: Path, cipher: Cipher) -> None:
        self._stores = ProfileStores(root)
        self._cipher = cipher

    def find(self, profile: str | None) -> LLM | None:
        """None when there is no such profile, or it cannot be used. Blocking."""
        if profile is None or not self._stores.llm_profiles_path.is_dir():
            return None
        try:
            return self._stores.llm_profiles.load(profile, cipher=self._cipher)
        except (OSError, ValueError, ProviderConnectionNotFound) as error:
            _log.warning("title_profile_not_usable", profile=profile, error=str(error))
            return None


class AutoTitle:
    """Of one conversation. Methods of the runner's loop; what it starts is lost with the process."""

    def __init__(self, conversation: LocalConversation, reporter: Reporter, workers: Workers, llms: TitleLlms) -> None:
        self._conversation = conversation
        self._reporter = reporter
        self._workers = workers
        self._llms = llms
        self._tasks = TaskSet()
        self._task: asyncio.Task[None] | None = None

    @property
    def is_at_work(self) -> bool:
        return self._task is not None and not self._task.done()

    def note_message(self, content: bytes) -> None:
        """A user's message was appended."""
        meta = self._reporter.meta
        if not meta.autotitle or meta.title is not None or self.is_at_work:
            return
        parts = PostMessageRequest.model_validate_json(content).content
        text = " ".join(part.text for part in parts if isinstance(part, TextContent)).strip()
        if text:
            self._task = self._tasks.start(self._name(text), f"title {self._conversation.id}")

    async def stop(self) -> None:
        await self._tasks.stop()

    async def _name(self, text: str) -> None:
        with suppress(OwnershipLost):  # the conversation's next message is another occasion
            await self._reporter.suggest_title(await self._workers.call_that_waits(self._ask, text))

    def _ask(self, text: str) -> str:
        meta = self._reporter.meta
        llm = self._llms.find(meta.title_llm_profile) or self._agents_llm()
        return generate_title_from_message(text, llm, _LONGEST_TITLE, on_error=self._tell, prompt=meta.prompt)

    def _agents_llm(self) -> LLM:
        """As the agent's, at the agent's expense, but none that the agent may be using now."""
        llm = self._conversation.agent.llm
        copy = private_copy(llm)
        copy.restore_metrics(llm.metrics)
        copy.telemetry.set_stats_update_callback(self._reporter.on_stats)
        return copy

    def _tell(self, error: Exception) -> None:
        event = ConversationErrorEvent(source="environment", code=type(error).__name__, detail=str(error))
        try:
            with self._conversation.state as state:
                state.append_event(event)
        except OwnershipLost:
            _log.info("title_given_up", conversation_id=str(self._conversation.id))
