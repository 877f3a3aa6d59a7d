"""The cookie with which a browser may look at workspaces: a token that opens nothing else and ends by itself.

A page in a frame cannot send a header. The token is signed with the session key, so every web worker of the deployment
knows it, and it is not the key: the published server's cookie is, for ten years.
"""

from __future__ import annotations

import hashlib
import hmac
import time

from sanic import Blueprint, HTTPResponse, Request
from sanic.response import empty

from service.blueprints.http.auth import HEADER, admits, api_keys
from service.blueprints.http.context import web_of
from service.blueprints.http.openapi import documented
from service.errors import Unauthorized

blueprint = Blueprint("workspace_session", url_prefix="/api/auth/workspace-session")

_COOKIE = "oh_workspace_session_key"
_PATH = "/api/conversations"
_LIFETIME_SECONDS = 12 * 3600
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


@blueprint.post("")
@documented(summary="Let this browser see workspace files", status=204)
async def begin(request: Request) -> HTTPResponse:
    keys = api_keys(request)
    token = _token(keys[0], int(time.time()) + _LIFETIME_SECONDS) if keys else ""
    return _with_cookie(request, token, _LIFETIME_SECONDS)


@blueprint.delete("")
@documented(summary="Take that back", status=204)
async def end(request: Request) -> HTTPResponse:
    return _with_cookie(request, "", 0)


def require_key_or_session(request: Request) -> None:
    """For routes that a browser opens by itself: the header's key or the cookie's token; either is enough.

    Raises:
        Unauthorized: neither is good.
    """
    keys = api_keys(request)
    if admits(keys, request.headers.getone(HEADER, None)):
        return
    if not _is_valid(keys, request.cookies.get(_COOKIE) or ""):
        raise Unauthorized


def _token(key: str, ends_at: int) -> str:
    signed = hmac.digest(
        key.encode("utf-8", "surrogateescape"), f"workspace-session {ends_at}".encode(), hashlib.sha256
    )
    return f"{ends_at}.{signed.hex()}"


def _is_valid(keys: tuple[str, ...], token: str) -> bool:
    ends_at, _, _ = token.partition(".")
    if not ends_at.isascii() or not ends_at.isdecimal() or len(ends_at) > 12 or int(ends_at) < time.time():
        return False
    offered = token.encode("utf-8", "surrogateescape")
    return any([hmac.compare_digest(offered, _token(key, int(ends_at)).encode()) for key in keys])


def _with_cookie(request: Request, value: str, lifetime_seconds: int) -> HTTPResponse:
    secure = "; Secure; Partitioned" if _looks_secure(request) else ""
    attributes = f"Max-Age={lifetime_seconds}; HttpOnly; SameSite=None{secure}"
    answer = empty(204)
    for root in dict.fromkeys(("", web_of(request).settings.root_path)):  # a browser knows one of the two forms
        answer.headers.add("set-cookie", f"{_COOKIE}={value}; Path={root}{_PATH}; {attributes}")
    return answer


def _looks_secure(request: Request) -> bool:
    """Whether the browser will take a `Secure` cookie: over TLS, or on its own machine (contract)."""
    scheme = request.headers.getone("x-forwarded-proto", request.scheme).partition(",")[0].strip()
    host = request.headers.getone("x-forwarded-host", request.host).partition(",")[0].strip()
    name = host.partition("]")[0].lstrip("[") if host.startswith("[") else host.partition(":")[0]
    return scheme == "https" or name in _LOOPBACK
