"""The seam between processes: publish bytes on a channel, receive what others publish.

Local fan-out to sockets is the hub's (`service.pubsub.hub`); a broker only crosses processes.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import NamedTuple, NewType, Protocol

from service.errors import BrokerUnavailable

Channel = NewType("Channel", str)
"""Full name on the broker, namespace included."""


class Delivery(NamedTuple):
    """One received message."""

    channel: Channel
    data: bytes


class Unconfirmed(BrokerUnavailable):
    """The broker was given messages and did not answer: each may or may not have been published."""


class Reconnected:
    """Stands in the stream of deliveries where messages may have been lost; readers re-check the log."""


class Broker(Protocol):
    """At most once, in publish order per channel and publisher.

    A reader that needs every event repairs gaps from the log (`service.pubsub.feed`); nothing breaks when a
    message is lost, it is only noticed later.
    """

    async def publish(self, messages: Sequence[tuple[Channel, bytes]]) -> list[int]:
        """Publish in order, in one round trip; returns how many subscribers received each.

        Raises:
            BrokerUnavailable: no connection; nothing was published.
            Unconfirmed: no answer.
        """

    async def subscribe(self, channel: Channel) -> None:
        """Start receiving; returns once messages published from now on will be received.

        Raises:
            BrokerUnavailable: no answer; the channel is subscribed to once the broker is back, after `Reconnected`.
        """

    async def unsubscribe(self, channel: Channel) -> None:
        """Stop receiving. Messages under way may still arrive."""

    def deliveries(self) -> AsyncIterator[Delivery | Reconnected]:
        """Everything received on the subscribed channels. One reader; ends only with `close`."""

    async def close(self) -> None:
        """Drop the subscriptions and the connections."""
