"""What is asked of a ChatGPT subscription, by name: its models, who is signed in, and signing in by code."""

from __future__ import annotations

import json
import time
from collections.abc import Awaitable
from pathlib import Path
from uuid import uuid4

import httpx
from openhands.sdk.llm.auth.credentials import CredentialStore
from openhands.sdk.llm.auth.openai import OPENAI_CODEX_MODELS, DeviceCode, OpenAISubscriptionAuth
from openhands.sdk.utils.cipher import Cipher
from pydantic import SecretStr

from service.catalog.oauth_jobs import JOB_SECONDS, OAuthJobs
from service.errors import JsonObject, NotFound, RemoteUnavailable
from service.requests.message import Answer, Request
from service.runner.operations.table import Operation, answered
from service.runner.workers import Workers

_VENDOR = "openai"
_LOGOUT = "subscription-logout"
"""The record of the last one, as long as a login that began before it might go on."""


class SubscriptionOperations:
    """Any runner answers them: a login that has begun is in Redis, tokens are on the disk and never told."""

    def __init__(self, root: Path, workers: Workers, jobs: OAuthJobs, cipher: Cipher) -> None:
        self._folder = root / "auth"
        self._workers = workers
        self._jobs = jobs
        self._cipher = cipher
        self.table: dict[str, Operation] = {
            "subscription.models": self._models,
            "subscription.status": self._status,
            "subscription.start": self._start,
            "subscription.poll": self._poll,
            "subscription.logout": self._logout,
        }

    @property
    def _auth(self) -> OpenAISubscriptionAuth:
        return OpenAISubscriptionAuth(CredentialStore(self._folder))

    async def _models(self, request: Request) -> Answer:
        return answered({"vendor": _VENDOR, "models": sorted(OPENAI_CODEX_MODELS)})

    async def _status(self, request: Request) -> Answer:
        return answered(await self._connection())

    async def _start(self, request: Request) -> Answer:
        code = await _reached(self._auth.start_device_login())
        job_id = uuid4().hex
        record = json.dumps([code.verification_url, code.user_code, code.device_auth_id, code.interval])
        device = self._cipher.encrypt(SecretStr(record))
        await self._jobs.put(job_id, {"device": device, "since": await self._last_logout()})
        return answered(
            {
                "device_code": job_id,
                "user_code": code.user_code,
                "verification_uri": code.verification_url,
                "verification_uri_complete": code.verification_url,
                "expires_at": int((time.time() + JOB_SECONDS) * 1000),
                "interval_seconds": code.interval,
            }
        )

    async def _poll(self, request: Request) -> Answer:
        job_id = json.loads(request.body)["device_code"]
        job, logout = await self._jobs.get(job_id) or {}, await self._last_logout()
        device = self._cipher.decrypt(job.get("device", ""))
        if device is None or logout not in (None, job["since"]):
            raise NotFound("The login is unknown or has run out")
        code = DeviceCode(*json.loads(device.get_secret_value()))
        if await _reached(self._auth.poll_device_login(code)) is not None:
            await self._jobs.put(job_id, {})  # once is enough
        return answered(await self._connection())

    async def _last_logout(self) -> str | None:
        """Which it was; None when no login from before it could go on any more."""
        return (await self._jobs.get(_LOGOUT) or {}).get("id")

    async def _logout(self, request: Request) -> Answer:
        await self._jobs.put(_LOGOUT, {"id": uuid4().hex})
        if self._folder.is_dir():
            await self._workers.call(self._auth.logout)
        return answered(await self._connection())

    async def _connection(self) -> JsonObject:
        """Signed in or not; credentials that cannot be renewed are none."""
        credentials = None
        if self._folder.is_dir():
            try:
                credentials = await self._auth.refresh_if_needed()
            except (RuntimeError, httpx.HTTPError):
                credentials = None
        return {
            "vendor": _VENDOR,
            "connected": credentials is not None,
            "account_email": None,
            "expires_at": credentials and credentials.expires_at,
        }


async def _reached[Found](asking: Awaitable[Found]) -> Found:
    """Raises RemoteUnavailable when OpenAI cannot be reached, or refuses."""
    try:
        return await asking
    except httpx.HTTPError as error:
        raise RemoteUnavailable(f"OpenAI cannot be reached: {error}") from error
    except RuntimeError as error:
        raise RemoteUnavailable(str(error)) from error
