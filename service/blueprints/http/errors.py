"""What a client sees when something goes wrong: each error's status, once, and the bodies of the contract.

A purposeful 5xx says why in `detail`, and again in `exception` as `<status>: <reason>`, which is where clients of the
published server look. An error nobody expected is answered with an id that finds its traceback in the log.
"""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any
from uuid import uuid4

import structlog
from sanic import HTTPResponse, Request, Sanic
from sanic.exceptions import SanicException
from sanic.response import json

from service import errors
from service.blueprints.http.context import web_of
from service.errors import FanoutError, JsonObject

_log = structlog.get_logger(__name__)

STATUS: Mapping[type[FanoutError], int] = {
    errors.InvalidRequest: 422,
    errors.BadRequest: 400,
    errors.Unauthorized: 401,
    errors.Forbidden: 403,
    errors.NotFound: 404,
    errors.ConversationNotFound: 404,
    errors.EventNotFound: 404,
    errors.Conflict: 409,
    errors.AlreadyRunning: 409,
    errors.OwnershipLost: 409,
    errors.Unsupported: 501,
    errors.RemoteUnavailable: 502,
    errors.RemoteTimedOut: 504,
    errors.SourceRefused: 422,
    errors.SourceUnavailable: 502,
    errors.SourceTimedOut: 504,
    errors.RunLimitReached: 429,
    errors.BashLimitReached: 429,
    errors.Unavailable: 503,
    errors.Disabled: 503,
    errors.NoRunner: 503,
    errors.OwnerMoving: 503,
    errors.Dormant: 503,
    errors.BrokerUnavailable: 503,
    errors.OutcomeUnknown: 504,
    errors.RequestFailed: 500,
}

_RETRY_SECONDS = 1
_SLOT_RETRY_SECONDS = 5
"""A slot frees when some run or shell command ends, which nobody can foresee (guess)."""

_PHRASE_ONLY = frozenset({401, 403, 404, 405})
"""Statuses whose texts in Sanic repeat the path or the method; the contract has the bare phrase."""


def install(app: Sanic[Any, Any]) -> None:
    """Answer every error of `app` here. Routing errors may be taken over later by a narrower handler."""
    app.error_handler.add(FanoutError, answer_fanout)
    app.error_handler.add(SanicException, answer_sanic)
    app.error_handler.add(Exception, answer_unexpected)


def answer_fanout(request: Request, error: FanoutError) -> HTTPResponse:
    """The response for an error of our own tree."""
    status = STATUS[type(error)]
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        _log.warning("request_failed", status=status, reason=str(error), method=request.method, path=request.path)
        content = {**_purposeful(request, status, error), "detail": error.detail}
    else:
        content = {"detail": error.detail}
    return json(content, status=status, headers=_retry_headers(error))


def answer_sanic(request: Request, error: SanicException) -> HTTPResponse:
    """The response for an error the framework raises: no route, body too large, time is up..."""
    status = error.status_code
    if status == HTTPStatus.INTERNAL_SERVER_ERROR:
        return answer_unexpected(request, error)
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        content = _purposeful(request, status, error)
    else:
        content = {"detail": HTTPStatus(status).phrase if status in _PHRASE_ONLY else _text(error)}
    return json(content, status=status, headers=dict(error.headers))


def answer_unexpected(request: Request, error: Exception) -> HTTPResponse:
    """The last resort: log with the traceback, tell the client the text and the id of the log line."""
    error_id = uuid4().hex
    _log.error("unexpected_error", error_id=error_id, method=request.method, path=request.path, exc_info=error)
    content = {"detail": "Internal Server Error", "exception": _text(error), "error_id": error_id}
    return json(content | _traced(request, error), status=500)


def _purposeful(request: Request, status: int, error: Exception) -> JsonObject:
    reason = _text(error)
    return {"detail": reason, "exception": f"{status}: {reason}", **_traced(request, error)}


def _traced(request: Request, error: Exception) -> JsonObject:
    """What a body of 5xx has besides in debug mode."""
    return {"traceback": "".join(traceback.format_exception(error))} if web_of(request).settings.debug else {}


def _retry_headers(error: FanoutError) -> dict[str, str] | None:
    if isinstance(error, errors.Unavailable):
        return {"retry-after": str(_RETRY_SECONDS)}
    if isinstance(error, errors.RunLimitReached | errors.BashLimitReached):
        return {"retry-after": str(_SLOT_RETRY_SECONDS)}
    return None


def _text(error: Exception) -> str:
    """The error's text as it can be sent; some of Sanic's messages are bytes, some texts hold lone surrogates."""
    first = error.args[0] if error.args else None
    text = first.decode("utf-8", "replace") if isinstance(first, bytes) else str(error)
    return text.encode("utf-8", "replace").decode("utf-8")
