"""Where Redis clients come from: a server at a URL, or one embedded in this process (fakeredis).

Who has a client cannot tell which it got; publishing is the broker's (`service.pubsub.brokers`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.maint_notifications import MaintNotificationsConfig

from service.errors import BrokerUnavailable

if TYPE_CHECKING:
    from service.embedded_redis import EmbeddedRedis, Touched

_COMMAND_TIMEOUT_SECONDS = 5.0
_MAX_CONNECTIONS = 32

_OPTIONS: dict[str, Any] = {
    "socket_connect_timeout": _COMMAND_TIMEOUT_SECONDS,
    "retry": Retry(NoBackoff(), 0),
    # With them on, as redis-py 8.1 has it, a pool hands out connections that the server closed while they were idle.
    "maint_notifications_config": MaintNotificationsConfig(enabled=False),
}


@dataclass
class RedisSource:
    """Makes clients for one event loop each; a client must not be shared between loops."""

    url: str | None
    namespace: str
    embedded: EmbeddedRedis | None = None
    """What a source without a URL has; made for it when it is not given one."""

    def __post_init__(self) -> None:
        if self.url is None and self.embedded is None:
            # Imported only where it is wanted: it takes 3 MB and 40 ms.
            from service.embedded_redis import EmbeddedRedis

            self.embedded = EmbeddedRedis()

    @property
    def touched(self) -> Touched | None:
        """For the index of conversations, where nobody outside this process reads it."""
        return None if self.embedded is None else self.embedded.touched

    def commands(self) -> Redis:
        """A client for ordinary commands.

        Never retries: redis-py 8 repeats a command whose reply was lost, which would execute it twice.
        """
        if self.embedded is not None:
            return self.embedded.client()
        assert self.url is not None
        pool = BlockingConnectionPool.from_url(
            self.url,
            max_connections=_MAX_CONNECTIONS,
            timeout=_COMMAND_TIMEOUT_SECONDS,
            socket_timeout=_COMMAND_TIMEOUT_SECONDS,
            **_OPTIONS,
        )
        return Redis.from_pool(pool)

    def listener(self) -> Redis:
        """A client for one long-lived subscription: reads block for as long as nothing comes."""
        assert self.url is not None, "the embedded server has no subscriptions"
        # A dead peer is noticed by keepalive alone. A unix socket has none, and none is needed.
        keepalive = {} if self.url.startswith("unix:") else {"socket_keepalive": True}
        return Redis.from_url(self.url, socket_timeout=None, health_check_interval=0, **keepalive, **_OPTIONS)


@contextmanager
def redis_errors() -> Iterator[None]:
    """Around Redis commands: the driver's errors, which stay the cause, as one of ours.

    Raises:
        BrokerUnavailable: no answer, or not a good one.
    """
    try:
        yield
    except (RedisError, OSError, TimeoutError) as error:
        raise BrokerUnavailable from error


def text(reply: object) -> str:
    """A string reply; redis-py's types leave open whether it was decoded."""
    return reply.decode() if isinstance(reply, bytes) else str(reply)
