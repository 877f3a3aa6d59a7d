"""Authorizations at MCP servers: the runner keeps the conversation with the server, Redis says how far it has come.

What was agreed with the server (verifier, state) never leaves the process that drives an authorization, so a callback
goes to that one. Everything else any worker can answer from the record.
"""

from __future__ import annotations

import asyncio
import uuid
from concurrent.futures import Future
from contextlib import suppress
from typing import Any
from urllib.parse import parse_qs, urlsplit

import structlog
from openhands.sdk.mcp import MCPServer
from openhands.sdk.mcp.exceptions import MCPError
from openhands.sdk.mcp.oauth import MCPOAuth
from openhands.sdk.utils.cipher import Cipher

from service.catalog.oauth_jobs import JOB_SECONDS, OAuthJobs
from service.errors import BadRequest, BrokerUnavailable, Conflict, JsonObject, NotFound, Unavailable
from service.identity import RunnerId
from service.runner.servers.mcp_servers import connected, failure
from service.runner.workers import Threads
from service.tasks import TaskSet

_log = structlog.get_logger(__name__)

_JOBS = 16
"""At the same time in one runner; each holds a thread while a person decides."""
_CALLBACK_SECONDS = 30.0
_SHORTEST_WAIT_SECONDS = 1.0
_LONGEST_WAIT_SECONDS = 30.0
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_ENDED = ("succeeded", "failed")


class _Job:
    """One authorization, as the threads of the SDK and the runner's loop see it."""

    def __init__(
        self, name: str, server: MCPServer, call_seconds: float, tool_call: JsonObject | None, runner_id: RunnerId
    ) -> None:
        self.name = name
        self.server = server
        self.call_seconds = call_seconds
        self.tool_call = tool_call
        self.authorization_url: Future[str] = Future()
        self.callback: Future[tuple[str, str | None]] = Future()
        self.oauth: MCPOAuth | None = None
        self.record: JsonObject = {
            "ok": True,
            "status": "pending",
            "job_id": uuid.uuid4().hex,
            "callback_ready": False,
            "runner_id": runner_id,
        }
        self.is_told = asyncio.Event()
        """The record says more than `pending`."""
        self.has_ended = asyncio.Event()

    @property
    def job_id(self) -> str:
        return str(self.record["job_id"])

    @property
    def redirect_port(self) -> int | None:
        return self.oauth.redirect_port if self.oauth is not None else None


def _oauth_of(job: _Job) -> type[MCPOAuth]:
    """The SDK makes the object itself, from a class, when it prepares the connection."""

    class JobOAuth(MCPOAuth):
        """Asks for nothing itself: a client opens the URL, and posts where it was led to."""

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            job.oauth = self

        async def redirect_handler(self, authorization_url: str) -> None:
            job.authorization_url.set_result(authorization_url)

        async def callback_handler(self) -> tuple[str, str | None]:
            return await asyncio.wrap_future(job.callback)

    return JobOAuth


class McpOAuth:
    """Methods of the runner's loop."""

    def __init__(self, runner_id: RunnerId, records: OAuthJobs, cipher: Cipher) -> None:
        self._runner_id = runner_id
        self._records = records
        self._cipher = cipher
        self._threads = Threads(_JOBS)
        self._tasks = TaskSet()
        self._jobs: dict[str, _Job] = {}

    async def start(
        self, name: str, server: MCPServer, timeout_seconds: float, tool_call: JsonObject | None
    ) -> JsonObject:
        """The record of a new authorization, once there is a URL to open, it has ended, or after the time.

        Args:
            timeout_seconds: also for the tool, which is called in the end.

        Raises:
            BadRequest: the server is not one for OAuth.
            Unavailable: too many are going on.
        """
        if server.oauth_auth is None:
            raise BadRequest("MCP OAuth start requires auth.strategy='oauth2'")
        if len(self._jobs) >= _JOBS:
            raise Unavailable("Too many authorizations are going on. Retry the request.")
        job = _Job(name, server, timeout_seconds, tool_call, self._runner_id)
        self._jobs[job.job_id] = job  # first, so that others who start meanwhile count it
        try:
            await self._records.put(job.job_id, job.record)
        except BaseException:
            del self._jobs[job.job_id]
            raise
        self._tasks.start(self._drive(job), f"oauth {job.job_id}")
        with suppress(TimeoutError):
            async with asyncio.timeout(min(max(timeout_seconds, _SHORTEST_WAIT_SECONDS), _LONGEST_WAIT_SECONDS)):
                await job.is_told.wait()
        return job.record

    async def call_back(self, job_id: str, url: str) -> JsonObject:
        """Take where the server has led the user; the record once that has come to an end, or after 30 s.

        Raises:
            NotFound: this runner does not drive it.
            Conflict: it does not wait for this yet.
            BadRequest: it is not where the server was to lead to.
        """
        job = self._jobs.get(job_id)
        if job is None:
            raise NotFound("MCP OAuth job not found")
        if not job.record["callback_ready"]:
            raise Conflict("OAuth callback is not ready")
        answer = _answer_in(url, job.redirect_port)
        if not job.callback.done():
            if isinstance(answer, MCPError):
                job.callback.set_exception(answer)
            else:
                job.callback.set_result(answer)
        with suppress(TimeoutError):
            async with asyncio.timeout(_CALLBACK_SECONDS):
                await job.has_ended.wait()
        return job.record

    async def close(self) -> None:
        for job in self._jobs.values():
            job.callback.cancel()
        await self._tasks.stop()
        self._threads.close()

    async def _drive(self, job: _Job) -> None:
        connected: asyncio.Future[Any] = asyncio.ensure_future(self._threads.call(_connect, job, self._cipher))
        url: asyncio.Future[Any] = asyncio.wrap_future(job.authorization_url)
        try:
            await asyncio.wait([connected, url], return_when=asyncio.FIRST_COMPLETED)
            if not connected.done():
                changes = {"status": "authorizing", "authorization_url": url.result(), "callback_ready": True}
                await self._tell(job, changes)
            await asyncio.wait([connected])
            error = connected.exception()
            if error is None:
                await self._tell(job, {"status": "succeeded", **connected.result()})
            else:
                reason = failure(error) if isinstance(error, Exception) else {"error": str(error)}
                await self._tell(job, {"ok": False, "status": "failed", **reason})
        finally:
            url.cancel()
            del self._jobs[job.job_id]
            job.has_ended.set()

    async def _tell(self, job: _Job, changes: JsonObject) -> None:
        job.record = job.record | changes
        if job.record["status"] in _ENDED:
            job.record["callback_ready"] = False
        job.is_told.set()
        try:
            await self._records.put(job.job_id, job.record)
        except BrokerUnavailable:
            _log.warning("authorization_not_recorded", job_id=job.job_id, status=job.record["status"])


def _connect(job: _Job, cipher: Cipher) -> JsonObject:
    """Blocks until the person has decided, who is not asked where the server takes the tokens that it has."""
    return connected(
        job.name, job.server, _oauth_of(job), JOB_SECONDS, job.tool_call, cipher, call_seconds=job.call_seconds
    )


def _answer_in(url: str, port: int | None) -> tuple[str, str | None] | MCPError:
    """Code and state, or what the server said instead.

    Raises:
        BadRequest: another address than the one that was agreed with the server.
    """
    try:
        parts = urlsplit(url)
        is_local = parts.scheme == "http" and parts.hostname in _LOOPBACK
    except ValueError:
        is_local = False
    if not is_local:
        raise BadRequest("Invalid OAuth callback URL")
    try:
        is_ours = parts.port == port and parts.path == "/callback"
    except ValueError:
        is_ours = False
    if not is_ours:
        raise BadRequest("Unexpected OAuth callback URL")
    given = parse_qs(parts.query)
    if "code" in given:
        return given["code"][-1], given.get("state", [None])[-1]
    reason = given.get("error_description") or given.get("error") or ["no code"]
    return MCPError(f"The authorization was refused: {reason[-1]}")
