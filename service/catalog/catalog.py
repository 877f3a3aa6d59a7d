"""What exists and who runs it, as one thing: the index, the leases, the runners."""

from __future__ import annotations

from typing import TYPE_CHECKING

from redis.asyncio import Redis

from service.catalog.activity import Activity
from service.catalog.cluster_runs import ClusterRuns
from service.catalog.conversation_set import ConversationSet
from service.catalog.index import ConversationIndex
from service.catalog.keys import Keys
from service.catalog.oauth_jobs import OAuthJobs
from service.catalog.owners import Owners
from service.catalog.rebuild import IndexBuild
from service.catalog.runners import Runners
from service.catalog.store_lock import StoreLock
from service.catalog.watchers import Watchers

if TYPE_CHECKING:
    from service.embedded_redis import Touched


class Catalog:
    """All parts of the catalog, over one Redis client."""

    def __init__(self, redis: Redis, keys: Keys, lease_ttl_seconds: float, touched: Touched | None = None) -> None:
        self.keys = keys
        self.runners = Runners(redis, keys)
        self.owners = Owners(redis, keys, lease_ttl_seconds)
        self.index = ConversationIndex(redis, keys, touched)
        self.index_build = IndexBuild(redis, keys, self.index)
        self.untold = ConversationSet(redis, keys, keys.untold)
        self.goals = ConversationSet(redis, keys, keys.goals)
        self.activity = Activity(redis, keys)
        self.watchers = Watchers(redis, keys)
        self.oauth_jobs = OAuthJobs(redis, keys)
        self.store_lock = StoreLock(redis, keys)
        self.cluster_runs = ClusterRuns(redis, keys, lease_ttl_seconds)
