"""The broker on Redis pub/sub, or on the embedded server: same commands, same semantics."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import NamedTuple

import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError

from service.errors import BrokerUnavailable
from service.pubsub.broker import Channel, Reconnected
from service.redis_source import redis_errors

_log = structlog.get_logger(__name__)

_RECONNECT_SECONDS = 0.2
_SUBSCRIBE_TIMEOUT_SECONDS = 5.0


class ReceivedMessage(NamedTuple):
    """A `Delivery`."""

    channel: Channel
    data: bytes


class RedisBroker:
    """A `Broker` with one subscribing connection.

    redis-py reconnects by itself and subscribes again, silently losing what was published meanwhile. The
    confirmations of those second SUBSCRIBEs, which nobody waits for, are how it shows here as `Reconnected`.
    """

    def __init__(self, commands: Redis, listener: Redis, control: Channel) -> None:
        self._commands = commands
        self._listener = listener
        self._pubsub = listener.pubsub()
        self._control = control
        self._confirmations: dict[str, asyncio.Future[None]] = {}

    async def publish(self, messages: Sequence[tuple[Channel, bytes]]) -> list[int]:
        with redis_errors():
            if len(messages) == 1:
                return [await self._commands.publish(*messages[0])]
            async with self._commands.pipeline(transaction=False) as pipeline:
                for channel, data in messages:
                    pipeline.publish(channel, data)
                return await pipeline.execute()

    async def subscribe(self, channel: Channel) -> None:
        confirmation = asyncio.get_running_loop().create_future()
        self._confirmations[channel] = confirmation
        try:
            await self._pubsub.subscribe(channel)
            # PUBLISH goes over another connection: only the confirmation says that Redis has seen the SUBSCRIBE.
            async with asyncio.timeout(_SUBSCRIBE_TIMEOUT_SECONDS):
                await confirmation
        except (RedisError, OSError, TimeoutError) as error:
            raise BrokerUnavailable from error
        finally:
            self._confirmations.pop(channel, None)

    async def unsubscribe(self, channel: Channel) -> None:
        with redis_errors():
            await self._pubsub.unsubscribe(channel)

    async def deliveries(self) -> AsyncIterator[ReceivedMessage | Reconnected]:
        while True:
            try:
                if self._pubsub.connection is None:
                    await self._pubsub.subscribe(self._control)
                message = await self._pubsub.get_message(timeout=None)
            except (RedisError, OSError) as error:
                _log.warning("broker_connection_lost", error=str(error))
                await asyncio.sleep(_RECONNECT_SECONDS)
                yield Reconnected()
                continue
            if message is None:
                continue
            channel = message["channel"].decode()
            if message["type"] == "message":
                yield ReceivedMessage(Channel(channel), message["data"])
            elif message["type"] == "subscribe":
                confirmation = self._confirmations.get(channel)
                if confirmation is None and channel != self._control:
                    yield Reconnected()
                elif confirmation is not None and not confirmation.done():
                    confirmation.set_result(None)

    async def close(self) -> None:
        await self._pubsub.aclose()  # type: ignore[no-untyped-call]
        await self._listener.aclose()
        await self._commands.aclose()
