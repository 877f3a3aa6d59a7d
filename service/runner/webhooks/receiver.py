"""One configured receiver of webhooks, and what a post to it is like on the wire."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from http.cookiejar import DefaultCookiePolicy

import httpx

from service.metrics import metrics
from service.settings import Settings
from service.settings.values import WebhookSpec, signing_key
from service.store.dead_letters import Letter

_TIMEOUT_SECONDS = 30.0
"""For one attempt as a whole (contract of the published server), however slowly the answer drips."""
_CONCURRENT_POSTS = 16
"""To one receiver, from one runner: one that hangs must not hold up the others (guess)."""
_ANSWER_BYTES = 64 << 10
"""Read of an answer, so that its connection can be used again; nobody looks at it."""
_LONGEST_PAUSE_SECONDS = 300.0


class Receiver:
    """Methods of the runner's loop."""

    def __init__(self, receiver_id: str, spec: WebhookSpec, session_key: str | None, client: httpx.AsyncClient) -> None:
        self.id = receiver_id
        self.spec = spec
        self._url = spec.base_url.rstrip("/")
        self._headers = {name.lower(): value.get_secret_value() for name, value in spec.headers.items()}
        self._headers["content-type"] = "application/json"
        if session_key is not None:
            self._headers["x-session-api-key"] = session_key
        self._key = None if spec.signing_secret is None else signing_key(spec.signing_secret.get_secret_value())
        self._client = client
        self._places = asyncio.Semaphore(_CONCURRENT_POSTS)

    async def post(self, letter: Letter, read_body: Callable[[], Awaitable[bytes]]) -> str | None:
        """Try once; returns why it failed, or None. The body is not held in memory while others are at it."""
        async with self._places:
            body = await read_body()
            failure = await self._try(letter, body)
        metrics().webhook_posts.labels("delivered" if failure is None else "failed").inc()
        return failure

    async def _try(self, letter: Letter, body: bytes) -> str | None:
        headers = self._headers | self._headers_of(letter, body)
        try:
            async with asyncio.timeout(_TIMEOUT_SECONDS):
                return await self._exchange(self._url + letter.path, headers, body)
        except TimeoutError:
            return f"No answer within {_TIMEOUT_SECONDS:g} s"
        except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
            return f"{type(error).__name__}: {error}"

    def pause_seconds(self, failures: int) -> float:
        """How long to wait after so many failures: as configured, then twice as long each time, never all at once."""
        beyond = failures - self.spec.num_retries
        if beyond <= 0:
            return self.spec.retry_delay
        longest = min(max(self.spec.retry_delay, 1.0) * 2.0 ** min(beyond, 16), _LONGEST_PAUSE_SECONDS)
        return longest * random.uniform(0.5, 1.0)

    async def _exchange(self, url: str, headers: dict[str, str], body: bytes) -> str | None:
        async with self._client.stream("POST", url, headers=headers, content=body) as response:
            if not response.is_success:
                return f"HTTP {response.status_code}"
            read_bytes = 0
            async for chunk in response.aiter_raw():
                read_bytes += len(chunk)
                if read_bytes > _ANSWER_BYTES:
                    break
            return None

    def _headers_of(self, letter: Letter, body: bytes) -> dict[str, str]:
        """The names are those of standardwebhooks.com, whose libraries check the signature; the seq is ours."""
        timestamp = str(int(time.time()))
        headers = {"webhook-id": letter.delivery_id, "webhook-timestamp": timestamp}
        if letter.first_seq is not None:
            headers["x-fanout-seq"] = f"{letter.first_seq}-{letter.last_seq}"
        if self._key is not None:
            signed = f"{letter.delivery_id}.{timestamp}.".encode() + body
            digest = hmac.digest(self._key, signed, "sha256")
            headers["webhook-signature"] = f"v1,{base64.b64encode(digest).decode()}"
        return headers


def make_client() -> httpx.AsyncClient:
    """What all posts of a runner go through; redirects are not followed, no cookie is kept. Blocking: reads CAs."""
    client = httpx.AsyncClient(timeout=_TIMEOUT_SECONDS, limits=httpx.Limits(max_keepalive_connections=32))
    client.cookies.jar.set_policy(DefaultCookiePolicy(allowed_domains=()))
    return client


def receivers(settings: Settings, client: httpx.AsyncClient) -> list[Receiver]:
    """Those that are configured."""
    session_key = next(iter(settings.auth_keys), None)
    named = zip(receiver_ids(settings.webhooks), settings.webhooks, strict=True)
    return [Receiver(receiver_id, spec, session_key, client) for receiver_id, spec in named]


def receiver_ids(specs: Sequence[WebhookSpec]) -> list[str]:
    """Names that stay the same over restarts and changes of the list's order, and tell nothing of the address."""
    urls = [spec.base_url.rstrip("/") for spec in specs]
    names = (f"{url} {urls[:place].count(url)}" for place, url in enumerate(urls))
    return [hashlib.sha256(name.encode()).hexdigest()[:12] for name in names]
