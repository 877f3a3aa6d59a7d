"""A conversation out of another: its files under a name that is none, then one rename. Blocking.

The SDK's own fork writes each event anew under the source's state lock, and leaves out keys and secrets. Here an
event's file, which never changes, gets a second name; and nothing waits for the source, whose tool may run for an hour.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Sequence
from typing import Any, NamedTuple
from uuid import UUID, uuid4

import pydantic_core
from openhands.sdk.conversation.impl.local_conversation import LocalConversation
from openhands.sdk.conversation.state import ConversationExecutionStatus, ConversationState
from openhands.sdk.event import Event, MessageEvent
from openhands.sdk.utils.cipher import Cipher

from service.errors import NotFound, RequestFailed
from service.runner.conversation.event_tree import is_in_log
from service.runner.conversation.meta import Meta, successor, write_meta
from service.runner.conversation.recovery import close_open_calls
from service.runner.wire.request_models import ForkConversationRequest
from service.store.atomic import fsync_directory, write_atomically
from service.store.event_name import event_file_name
from service.store.layout import DRAFT, ConversationDirectory

OUTCOME_ELSEWHERE = (
    "This conversation was forked from another while the call was in progress there; its outcome is not known here."
)

_PAUSE_SECONDS = 0.005
_TRIES = 200
_OF_THE_SOURCE = ("last_user_message_id", "blocked_actions", "blocked_messages")


class Moment(NamedTuple):
    """What belongs together of a conversation that may be running."""

    state: dict[str, Any]
    """As in `base_state.json`, secrets encrypted."""
    event_ids: list[str]
    """The log."""

    @property
    def was_running(self) -> bool:
        return bool(self.state["execution_status"] == ConversationExecutionStatus.RUNNING.value)


def catch(conversation: LocalConversation, cipher: Cipher) -> Moment:
    """The conversation between two events.

    Raises:
        RequestFailed: it did not rest for a moment within a second.
    """
    state = conversation.state
    for _ in range(_TRIES):
        with contextlib.suppress(RuntimeError):  # a dictionary changed size: the run goes on in another thread
            before = (state.leaf_event_id, len(state.events))
            dumped = state.model_dump(mode="json", exclude_none=True, context={"cipher": cipher})
            time.sleep(_PAUSE_SECONDS)  # an event is in the log a moment before HEAD moves to it
            if before == (state.leaf_event_id, len(state.events)):
                return Moment(dumped, [state.events.get_id(seq) for seq in range(before[1])])
    raise RequestFailed("The conversation changes too quickly to be forked. Retry the request.")


def write_fork(
    source: LocalConversation,
    source_directory: ConversationDirectory,
    source_meta: Meta,
    target: ConversationDirectory,
    request: ForkConversationRequest,
    cipher: Cipher,
    *,
    fsync: bool,
) -> Moment:
    """Make the files of the fork; returns what it was made from.

    Raises:
        NotFound: there is no event `from_event_id`.
        FileExistsError, OSError: there is such a conversation already; nothing was made.
    """
    moment = catch(source, cipher)
    branch = _branch(source.state, request.from_event_id)
    event_ids = moment.event_ids if branch is None else [event.id for event in branch]
    seqs = range(len(event_ids)) if branch is None else [source.state.events.get_index(event.id) for event in branch]
    draft = ConversationDirectory(target.path.with_name(f"{DRAFT}{target.path.name}-{uuid4().hex[:8]}"))
    try:
        draft.path.mkdir(mode=0o700)
        draft.events.mkdir(mode=0o700)
        for seq, (source_seq, event_id) in enumerate(zip(seqs, event_ids, strict=True)):
            _link(source_directory.events / event_file_name(source_seq, event_id), draft.events, seq, event_id)
        meta = _meta(source_meta, target.conversation_id, request)
        write_meta(draft, meta, fsync=fsync)
        state = _state(moment.state, target, meta, request, branch)
        write_atomically(draft.base_state, pydantic_core.to_json(state), fsync=fsync)
        if fsync:
            fsync_directory(draft.events)
        draft.path.rename(target.path)
    except BaseException:
        shutil.rmtree(draft.path, ignore_errors=True)
        raise
    if fsync:
        fsync_directory(target.path.parent)
    return moment


def settle(state: ConversationState, moment: Moment) -> None:
    """End in the fork the calls that were going on in its source, or the fork's agent would carry them out again."""
    if moment.was_running:
        with state:
            close_open_calls(state, OUTCOME_ELSEWHERE)


def _branch(state: ConversationState, event_id: str | None) -> list[Event] | None:
    """The event and its ancestors, oldest first; None for the whole log."""
    if event_id is None:
        return None
    if not is_in_log(state, event_id):
        raise NotFound(f"Unknown from_event_id: {event_id}")
    return list(state.events.path_to_root(event_id))


def _link(source: os.PathLike[str], events: os.PathLike[str], seq: int, event_id: str) -> None:
    target = os.path.join(events, event_file_name(seq, event_id))
    try:
        os.link(source, target)
    except FileNotFoundError:
        raise
    except OSError:  # a file system without second names, or with no room for another
        shutil.copyfile(source, target)


def _meta(source: Meta, conversation_id: UUID, request: ForkConversationRequest) -> Meta:
    return successor(
        source,
        conversation_id,
        title=request.title,
        tags=request.tags or {},
        forked_from_conversation_id=source.id,
        forked_from_event_id=request.from_event_id,
    )


def _state(
    source: dict[str, Any],
    target: ConversationDirectory,
    meta: Meta,
    request: ForkConversationRequest,
    branch: Sequence[Event] | None,
) -> dict[str, Any]:
    state = source | {
        "id": str(target.conversation_id),
        "persistence_dir": str(target.path),
        "execution_status": ConversationExecutionStatus.IDLE.value,
        "tags": meta.tags,
    }
    if request.reset_metrics:
        del state["stats"]
    if branch is not None:
        users = [event.id for event in branch if isinstance(event, MessageEvent) and event.source == "user"]
        for name in _OF_THE_SOURCE:
            state.pop(name, None)
        state |= {"leaf_event_id": request.from_event_id, "head_is_empty": False}
        if users:
            state["last_user_message_id"] = users[-1]
    return state
