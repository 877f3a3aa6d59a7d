"""`/api/conversations/prepare-for-sandbox-pause`: asked before the machine, or its file system, is frozen or copied."""

from __future__ import annotations

import asyncio

from sanic import Blueprint, HTTPResponse, Request
from sanic.response import empty

from service.blueprints.http.context import web_of
from service.blueprints.http.openapi import documented

blueprint = Blueprint("sandbox", url_prefix="/api/conversations/prepare-for-sandbox-pause")

_STORING_SECONDS = 15.0
"""Beside the time that tools get to end."""


@blueprint.post("")
@documented(summary="Pause what runs and close every conversation; the next request opens it again", status=204)
async def prepare_for_pause(request: Request) -> HTTPResponse:
    web = web_of(request)
    runners = await web.catalog.runners.alive()
    timeout_seconds = web.settings.drain_seconds + _STORING_SECONDS
    await asyncio.gather(
        *(
            web.requester.ask("sandbox.prepare_pause", runner_id=runner.runner_id, timeout_seconds=timeout_seconds)
            for runner in runners
        )
    )
    return empty(204)
