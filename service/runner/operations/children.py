"""Conversations that an agent, or a client for it, starts from another: what is asked of the parent's owner."""

from __future__ import annotations

from typing import Literal
from uuid import uuid4

import pydantic_core
from openhands.sdk.conversation.request import (
    ConversationWorktreeOptions,
    SendMessageRequest,
    StartChildConversationRequest,
    StartChildConversationResponse,
)
from openhands.sdk.llm import TextContent

from service.requests.message import Answer, Request
from service.runner.conversation.creation import Plan, private_copy
from service.runner.conversation.hosted import HostedConversation
from service.runner.conversation.meta import successor
from service.runner.operations.table import Operation, conversation_id, just_made
from service.runner.ownership.host import Host
from service.runner.webhooks.webhooks import Webhooks
from service.runner.wire.validation import parse
from service.runner.workers import Workers


class ChildOperations:
    """`conversation.start_child`. The parent may be in the middle of a tool: that tool may be what asks."""

    def __init__(self, host: Host, workers: Workers, webhooks: Webhooks) -> None:
        self._host = host
        self._workers = workers
        self._webhooks = webhooks
        self.table: dict[str, Operation] = {"conversation.start_child": self._start_child}

    async def _start_child(self, request: Request) -> Answer:
        wanted = parse(StartChildConversationRequest, request.body)
        parent = await self._host.open(conversation_id(request))
        planned = await self._workers.call(_plan, parent, wanted)
        child, _ = await self._host.create(planned)
        assert planned.initial_message is not None, "it has a task"
        with just_made(child.conversation_id, None):
            snapshot = child.reporter.describe()
            self._webhooks.tell_status(child.conversation_id, snapshot.info)
            await child.submit("message", planned.initial_message, starts_run=True)
        working_dir = child.reporter.meta.workspace.working_dir
        is_apart = working_dir != parent.reporter.meta.workspace.working_dir
        isolation: Literal["worktree", "shared"] = "worktree" if is_apart else "shared"
        answer = StartChildConversationResponse(
            conversation_id=child.conversation_id,
            parent_conversation_id=parent.conversation_id,
            status=snapshot.header.status,
            title=child.reporter.meta.title,
            workspace=working_dir,
            isolation=isolation,
        )
        return Answer(201, pydantic_core.to_json(answer))


def _plan(parent: HostedConversation, wanted: StartChildConversationRequest) -> Plan:
    """As its parent, but for what is its own. Takes no lock of the parent's. Blocking."""
    meta = parent.reporter.meta
    child = successor(
        meta,
        uuid4(),
        title=wanted.title,
        parent_conversation_id=meta.id,
        # Where the parent is, with what it has committed.
        worktree=wanted.isolation == "worktree",
        worktree_options=ConversationWorktreeOptions(base="head"),
    )
    task = SendMessageRequest(role="user", content=[TextContent(text=wanted.task)], run=True)
    return Plan(
        child,
        private_copy(parent.conversation.agent),
        dict(parent.conversation.state.secret_registry.secret_sources),
        task.model_dump_json().encode(),
    )
