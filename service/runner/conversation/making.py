"""A conversation's first moment, and what is left to take away at its last. Blocking, under the conversation's lock."""

from __future__ import annotations

import shutil
from pathlib import Path
from uuid import UUID, uuid4

from openhands.sdk.agent.base import AgentBase
from openhands.sdk.context import AgentContext
from openhands.sdk.conversation.impl.local_conversation import LocalConversation
from openhands.sdk.conversation.request import ConversationWorktreeOptions

from service.errors import InvalidRequest
from service.runner.conversation.creation import Plan
from service.runner.conversation.forking import settle, write_fork
from service.runner.conversation.meta import Meta, read_meta, write_meta
from service.runner.conversation.opening import Opened, Opener
from service.runner.conversation.worktrees import add_worktree, remove_branch, remove_worktree
from service.runner.wire.request_models import ForkConversationRequest
from service.settings import Settings
from service.store.children import forget_child, note_child
from service.store.layout import DELETED, ConversationDirectory, ConversationsRoot
from service.store.snapshot import Snapshot, read_snapshot


class Maker:
    """Makes conversations, of plans and of each other, with their worktrees, and tells their parents."""

    def __init__(self, settings: Settings, opener: Opener) -> None:
        self._opener = opener
        self._root = ConversationsRoot(settings.conversations_path)
        self._worktrees = settings.conversation_worktree_root
        self._fsync = settings.fsync

    def make(self, directory: ConversationDirectory, plan: Plan) -> Opened:
        """Raises InvalidRequest for a parent or a worktree that cannot be. Call `unmake` whatever it raises."""
        self._require_parent(plan.meta)
        if directory.path.exists():  # of a create that was killed: there is no conversation yet
            shutil.rmtree(directory.path)
        directory.path.mkdir(mode=0o700, parents=True)
        placed = self._placed(plan)
        write_meta(directory, placed.meta, fsync=self._fsync)
        opened = self._opener.create(directory, placed.meta, placed.agent, placed.secrets)
        if placed.meta.parent_conversation_id is not None:
            note_child(self._root.directory(placed.meta.parent_conversation_id), placed.meta.id)
        return opened

    def fork(
        self, source: LocalConversation, source_meta: Meta, conversation_id: UUID, request: ForkConversationRequest
    ) -> Opened:
        """A conversation with the events of another, which may be running. Raises as `write_fork`; nothing is left."""
        origin, directory = self._root.directory(source_meta.id), self._root.directory(conversation_id)
        cipher, fsync = self._opener.cipher, self._fsync
        moment = write_fork(source, origin, source_meta, directory, request, cipher, fsync=fsync)
        try:
            opened = self._opener.open(directory)
            settle(opened.conversation.state, moment)
            opened.outbox.resume(len(opened.conversation.state.events))
        except BaseException:
            _remove(directory)
            raise
        return opened

    def remove(self, directory: ConversationDirectory, meta: Meta) -> Snapshot | None:
        """End a conversation, and take away its worktree unless another works in it.

        Returns what readers saw last, if they saw anything.
        """
        last = read_snapshot(directory)
        _remove(directory)
        self._clean_up(meta)
        return last

    def unmake(self, directory: ConversationDirectory, meta: Meta) -> None:
        """Leave nothing of a conversation that could not be begun; `meta` is that of its plan."""
        shutil.rmtree(directory.path, ignore_errors=True)
        self._clean_up(meta)
        if meta.worktree:
            remove_branch(meta.id, _working_dir(meta), _options(meta))

    def _clean_up(self, meta: Meta) -> None:
        if meta.parent_conversation_id is not None:
            forget_child(self._root.directory(meta.parent_conversation_id), meta.id)
        if not self._is_worked_in(self._worktrees / str(meta.id)):
            remove_worktree(self._worktrees, meta.id)

    def _require_parent(self, meta: Meta) -> None:
        parent_id = meta.parent_conversation_id
        if parent_id is None:
            return
        if parent_id == meta.id:
            raise InvalidRequest("A conversation cannot be its own parent")
        if not self._root.exists(parent_id):
            raise InvalidRequest(f"Parent conversation {parent_id} not found")
        if _working_dir(read_meta(self._root.directory(parent_id))) != _working_dir(meta):
            raise InvalidRequest(f"Parent conversation {parent_id} belongs to a different workspace")

    def _placed(self, plan: Plan) -> Plan:
        """The plan in its worktree, if it is to have one and can."""
        if not plan.meta.worktree:
            return plan
        if self._is_worked_in(self._worktrees / str(plan.meta.id)):
            raise InvalidRequest("Another conversation works in the worktree that this one would have")
        made = add_worktree(self._worktrees, plan.meta.id, _working_dir(plan.meta), _options(plan.meta))
        if made is None:
            return plan
        workspace = plan.meta.workspace.model_copy(update={"working_dir": str(made.working_dir)})
        meta = plan.meta.model_copy(update={"workspace": workspace})
        return plan._replace(meta=meta, agent=_guided(plan.agent, made.guidance))

    def _is_worked_in(self, folder: Path) -> bool:
        place = folder.resolve()
        return folder.is_dir() and any(self._works_in(conversation_id, place) for conversation_id in self._root.ids())

    def _works_in(self, conversation_id: UUID, folder: Path) -> bool:
        try:
            return _working_dir(read_meta(self._root.directory(conversation_id))).is_relative_to(folder)
        except (OSError, ValueError):
            return False  # it cannot be opened either


def _remove(directory: ConversationDirectory) -> None:
    """One rename makes the conversation cease to exist; the files follow."""
    doomed = directory.path.with_name(f"{DELETED}{directory.path.name}-{uuid4().hex[:8]}")
    directory.path.rename(doomed)
    directory.credential_bindings.unlink(missing_ok=True)
    shutil.rmtree(doomed, ignore_errors=True)


def _working_dir(meta: Meta) -> Path:
    return Path(meta.workspace.working_dir).resolve()


def _options(meta: Meta) -> ConversationWorktreeOptions:
    return meta.worktree_options or ConversationWorktreeOptions()


def _guided(agent: AgentBase, guidance: str) -> AgentBase:
    context = agent.agent_context or AgentContext()
    suffix = "\n\n".join(filter(None, (context.system_message_suffix, guidance)))
    return agent.model_copy(update={"agent_context": context.model_copy(update={"system_message_suffix": suffix})})
