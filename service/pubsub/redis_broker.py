"""The broker on Redis pub/sub."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Sequence

import structlog
from redis.asyncio import Connection, Redis
from redis.exceptions import RedisError, ResponseError

from service.errors import BrokerUnavailable
from service.metrics import metrics
from service.pubsub.broker import Channel, Delivery, Reconnected, Unconfirmed
from service.redis_source import redis_errors

_log = structlog.get_logger(__name__)

_RECONNECT_SECONDS = 0.2
_CONFIRMATION_SECONDS = 5.0


class RedisBroker:
    """A `Broker` with one subscribing connection.

    redis-py's own PubSub is not used: a reader and subscribers in different tasks each make the connection that they
    miss, and of two that are made at once one is lost with the subscriptions sent on it (redis-py 8.1; a test starts
    five subscriptions at once). Here a connection is made, and written to, under one lock.

    A new connection subscribes to every wanted channel, the control channel last: after a break its confirmation says
    that nothing is missed from then on, and shows as `Reconnected`.
    """

    def __init__(self, commands: Redis, listener: Redis, control: Channel) -> None:
        self._commands = commands
        self._listener = listener
        self._control = control
        self._connection: Connection | None = None
        self._writing = asyncio.Lock()
        self._wanted: set[Channel] = set()
        self._confirmations: dict[tuple[bytes, Channel], asyncio.Future[None]] = {}
        self._may_have_lost = False

    async def publish(self, messages: Sequence[tuple[Channel, bytes]]) -> list[int]:
        pool = self._commands.connection_pool
        with redis_errors():
            # Not the client's own methods: whether the connection or the answer failed shows in none of their errors.
            connection = await pool.get_connection()  # type: ignore[no-untyped-call]
            try:
                commands = [("PUBLISH", channel, data) for channel, data in messages]
                await connection.send_packed_command(connection.pack_commands(commands))
                return [await connection.read_response() for _ in messages]
            except ResponseError:
                await connection.disconnect(nowait=True)  # the other answers are still to come
                raise
            except RedisError as error:
                raise Unconfirmed from error
            finally:
                await pool.release(connection)

    async def subscribe(self, channel: Channel) -> None:
        """As `Broker.subscribe`; a channel that cannot be subscribed to now is as soon as Redis answers again."""
        self._wanted.add(channel)
        await self._confirmed(b"subscribe", channel)

    async def unsubscribe(self, channel: Channel) -> None:
        self._wanted.discard(channel)
        if self._connection is not None:
            await self._confirmed(b"unsubscribe", channel)

    async def _confirmed(self, kind: bytes, channel: Channel) -> None:
        """Send a command and wait for Redis to say so: PUBLISH goes over another connection and may overtake it."""
        confirmation = asyncio.get_running_loop().create_future()
        self._confirmations[kind, channel] = confirmation
        try:
            with redis_errors():
                async with self._writing:
                    await self._connect()
                    await self._send(kind.decode().upper(), channel)
                async with asyncio.timeout(_CONFIRMATION_SECONDS):
                    await confirmation
        except BrokerUnavailable:
            await self._drop()  # one that is only slow is made anew too, for the sake of `Reconnected`
            raise
        finally:
            self._confirmations.pop((kind, channel), None)

    async def deliveries(self) -> AsyncIterator[Delivery | Reconnected]:
        while True:
            try:
                kind, name, data = await self._read()
            except (RedisError, OSError) as error:
                _log.warning("broker_connection_lost", error=str(error))
                metrics().redis_reconnects.inc()
                await self._drop()
                await asyncio.sleep(_RECONNECT_SECONDS)
                continue
            channel = Channel(name.decode())
            if kind == b"message":
                yield Delivery(channel, data)
            else:
                self._confirm(kind, channel)
                if kind == b"subscribe" and channel == self._control and self._may_have_lost:
                    self._may_have_lost = False
                    yield Reconnected()

    async def close(self) -> None:
        await self._drop()
        await self._listener.aclose()
        await self._commands.aclose()

    async def _read(self) -> tuple[bytes, bytes, bytes]:
        """What Redis says next on the subscribing connection: kind, channel, data."""
        async with self._writing:
            connection = await self._connect()
        reply: tuple[bytes, bytes, bytes] = await connection.read_response(
            timeout=math.inf, disconnect_on_error=False, push_request=True
        )
        return reply

    async def _connect(self) -> Connection:
        """The connection, with everything subscribed; under the lock."""
        if self._connection is None:
            pool = self._listener.connection_pool
            self._connection = await pool.get_connection()  # type: ignore[no-untyped-call]
            await self._send("SUBSCRIBE", *self._wanted, self._control)
        return self._connection

    async def _send(self, *command: str) -> None:
        """Write a command; under the lock. Written in part, also when cancelled, it breaks the connection."""
        assert self._connection is not None
        try:
            await self._connection.send_command(*command)
        except BaseException:
            await self._disconnect()
            raise

    async def _drop(self) -> None:
        async with self._writing:
            await self._disconnect()

    async def _disconnect(self) -> None:
        self._may_have_lost = True
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.disconnect(nowait=True)
            await self._listener.connection_pool.release(connection)

    def _confirm(self, kind: bytes, channel: Channel) -> None:
        confirmation = self._confirmations.get((kind, channel))
        if confirmation is not None and not confirmation.done():
            confirmation.set_result(None)
