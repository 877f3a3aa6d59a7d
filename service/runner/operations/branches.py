"""What is asked of a conversation as a whole, by name: others made from it, where it goes on, and summaries."""

from __future__ import annotations

from uuid import UUID, uuid4

from service.identity import keyed_id
from service.requests.message import Answer, Request
from service.runner.conversation.meta import read_meta
from service.runner.operations.table import SUCCESS, Operation, conversation_id, info_for
from service.runner.ownership.host import Host
from service.runner.wire.request_models import ForkConversationRequest, NavigateRequest
from service.runner.wire.validation import parse
from service.runner.workers import Workers
from service.store.snapshot import Snapshot, read_snapshot


class BranchOperations:
    """Asked of the conversation's owner."""

    def __init__(self, host: Host, workers: Workers) -> None:
        self._host = host
        self._workers = workers
        self.table: dict[str, Operation] = {
            "conversation.fork": self._fork,
            "conversation.navigate": self._navigate,
            "conversation.condense": self._condense,
        }

    async def _fork(self, request: Request) -> Answer:
        wanted = parse(ForkConversationRequest, request.body or b"{}")
        source_id, key = conversation_id(request), request.arguments.get("idempotency_key")
        fork_id = wanted.id or (uuid4() if key is None else keyed_id(f"fork {source_id} {key}"))
        if key is not None:
            made_before = await self._workers.call(self._made_before, fork_id, source_id)
            if made_before is not None:
                return Answer(200, info_for(request, made_before))
        source = await self._host.open(source_id)
        fork = await self._host.fork(source, fork_id, wanted)
        return Answer(201, info_for(request, await fork.reporter.refresh()))

    async def _navigate(self, request: Request) -> Answer:
        wanted = parse(NavigateRequest, request.body)
        hosted = await self._host.open(conversation_id(request))
        await hosted.navigate(wanted.event_id)
        return Answer(200, info_for(request, await hosted.reporter.refresh()))

    async def _condense(self, request: Request) -> Answer:
        await (await self._host.open(conversation_id(request))).condense()
        return SUCCESS

    def _made_before(self, fork_id: UUID, source_id: UUID) -> Snapshot | None:
        """Of a fork that was made from there, if there is one, whoever owns it. Blocking."""
        directory = self._host.root.directory(fork_id)
        snapshot = read_snapshot(directory)
        if snapshot is None or read_meta(directory).forked_from_conversation_id != source_id:
            return None
        return snapshot
