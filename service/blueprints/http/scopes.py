"""Routes that exist twice: for the machine, and below `/api/conversations/{id}` for one conversation's workspace."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any
from uuid import UUID

from sanic import Blueprint, Request

from service.blueprints.http.arguments import uuid_path
from service.blueprints.http.context import WebContext, web_of
from service.blueprints.http.places import Place, place

SCOPE_PARAMETER = "runtime_conversation_id"
"""The path parameter's name in the contract."""
SCOPED_PREFIX = f"/api/conversations/<{SCOPE_PARAMETER}:str>"


class Routes:
    """`@routes(method, path)` is `blueprint.route` on several blueprints at once."""

    def __init__(self, *blueprints: Blueprint) -> None:
        self._blueprints = blueprints

    def __call__[Handler: Callable[..., Any]](
        self, method: str, path: str, **options: Any
    ) -> Callable[[Handler], Handler]:
        def add(handler: Handler) -> Handler:
            for blueprint in self._blueprints:
                blueprint.add_route(handler, path, methods=[method], name=handler.__name__, **options)
            return handler

        return add


async def workspace_of(request: Request, runtime_conversation_id: str | None) -> tuple[UUID | None, str | None]:
    """The conversation and its working directory; neither for the machine.

    Raises:
        InvalidRequest: the id is none.
        ConversationNotFound: there is no such conversation.
    """
    if runtime_conversation_id is None:
        return None, None
    conversation_id = uuid_path(runtime_conversation_id, SCOPE_PARAMETER)
    return conversation_id, await working_dir_of(web_of(request), conversation_id)


async def place_in_scope(request: Request, path: str, runtime_conversation_id: str | None) -> Place:
    """Where `path` leads, on the machine or in the conversation's workspace. Raises as `workspace_of` and `place`."""
    _, inside = await workspace_of(request, runtime_conversation_id)
    return await asyncio.to_thread(place, path, "path", inside)


async def working_dir_of(web: WebContext, conversation_id: UUID) -> str:
    """The working directory of a conversation. Raises ConversationNotFound."""
    info = json.loads(await web.info(conversation_id))
    working_dir: str = info["workspace"]["working_dir"]
    return working_dir
