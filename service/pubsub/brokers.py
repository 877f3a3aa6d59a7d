"""Which broker a process gets."""

from __future__ import annotations

from service.pubsub.broker import Broker, Channel
from service.pubsub.embedded_broker import EmbeddedBroker
from service.pubsub.redis_broker import RedisBroker
from service.redis_source import RedisSource


def make_broker(source: RedisSource, control: Channel) -> Broker:
    """One for the running loop, with connections of its own.

    Args:
        control: the channel whose confirmation says that nothing is missed, see `RedisBroker`.
    """
    if source.embedded is not None:
        return EmbeddedBroker(source.embedded.exchange)
    return RedisBroker(source.commands(), source.listener(), control)
