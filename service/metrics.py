"""What is counted for Prometheus, and how the processes of a node are added up.

One process counts in memory. The processes of a node count into files of the node's directory, one set for each place
in the node (`Sanic-Server-0-0`, `Runner-1`): the next process in that place goes on counting where the one before was
killed, so nothing is lost, and nothing grows with how often it happens.
"""

from __future__ import annotations

import asyncio
import hmac
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest, values
from prometheus_client.multiprocess import MultiProcessCollector

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_DIRECTORY = "PROMETHEUS_MULTIPROC_DIR"
"""The library's own variable, so its value reaches child processes and the library alike."""

_SAMPLE_SECONDS = 0.5
_REQUEST_BUCKETS = (0.005, 0.025, 0.1, 0.5, 2.5, 10.0, 60.0)
_LAG_BUCKETS = (0.001, 0.005, 0.025, 0.1, 0.5, 2.5)

_place = "main"


class Metrics:
    """Every metric. Those with labels: keep the child, a look-up for each count costs more than the count."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        # web workers
        self.http_requests = self._counter("http_requests", "Requests answered.", "method", "route", "status")
        self.http_request_seconds = self._histogram(
            "http_request_seconds", "From the end of a request's body to the head of its answer.", "route"
        )
        self.web_workers = self._gauge("web_workers", "Web workers by whether /ready is 200.", "state")
        self.sockets = self._gauge("sockets", "Open WebSockets.", "route")
        self.deliveries = self._counter("deliveries", "Events written to sockets, each counted for each socket.")
        self.backlog_bytes = self._gauge("backlog_bytes", "Published and not yet taken by sockets.")
        self.backlogs_dropped = self._counter("backlogs_dropped", "Times a socket fell behind and went to the log.")
        self.replay_bytes = self._counter("replay_bytes", "Events that sockets read from logs, not from Redis.")
        self.slow_sockets = self._counter("slow_sockets", "Sockets closed with 1013 because nothing was read.")
        self.runner_request_seconds = self._histogram(
            "runner_request_seconds", "From asking a runner to its answer, searching for one included.", "operation"
        )
        self.runner_request_failures = self._counter(
            "runner_request_failures", "Requests to runners that got no answer, by the reason.", "reason"
        )
        # runners
        self.runners = self._gauge("runners", "Runners that take requests.")
        self.conversations = self._gauge("conversations_hosted", "Conversations in the memory of runners.")
        self.runs = self._gauge("runs", "Runs going on.")
        self.runs_ended = self._counter("runs_ended", "Runs that ended, by the status they ended in.", "status")
        self.steps = self._counter("steps", "Answers of LLMs that agents acted on.")
        self.events_stored = self._counter("events_stored", "Events appended to logs.")
        self.leases = self._counter(
            "leases", "Changes of ownership: claimed, taken_over (from a dead runner; claimed too) or lost.", "change"
        )
        self.webhook_posts = self._counter(
            "webhook_posts", "Attempts to tell a receiver, by how they ended.", "outcome"
        )
        self.webhook_queue = self._gauge("webhook_queue", "Events that receivers are still to be told.")
        self.publish_queue_bytes = self._gauge("publish_queue_bytes", "Appended and not yet published to Redis.")
        # both
        self.loop_lag_seconds = self._histogram(
            "event_loop_lag_seconds", "How late an event loop wakes, twice a second.", "role", buckets=_LAG_BUCKETS
        )
        self.redis_reconnects = self._counter(
            "redis_reconnects", "Subscribing connections to Redis that broke or could not be made."
        )
        self.step_failures = self._counter(
            "step_failures", "Steps of work that is repeated for ever that failed, Redis aside, by that work.", "step"
        )
        self.processes_replaced = self._counter("processes_replaced", "Processes that died and were started again.")

    def _counter(self, name: str, what: str, *labels: str) -> Counter:
        return Counter(f"fanout_{name}", what, labels, registry=self.registry)

    def _gauge(self, name: str, what: str, *labels: str) -> Gauge:
        return Gauge(f"fanout_{name}", what, labels, registry=self.registry, multiprocess_mode="livesum")

    def _histogram(
        self, name: str, what: str, *labels: str, buckets: tuple[float, ...] = _REQUEST_BUCKETS
    ) -> Histogram:
        return Histogram(f"fanout_{name}", what, labels, registry=self.registry, buckets=buckets)


@cache
def metrics() -> Metrics:
    """Those of this process; first asked for when it is known whether it is one of several."""
    if _DIRECTORY in os.environ:
        values.ValueClass = values.MultiProcessValue(lambda: _place)  # type: ignore[no-untyped-call]
    return Metrics()


def share_metrics(directory: Path) -> None:
    """Have this process and those started from now on count into one directory, their node's."""
    os.environ[_DIRECTORY] = str(directory)


def are_shared() -> bool:
    """Whether this process counts together with others."""
    return _DIRECTORY in os.environ


def take_place(place: str) -> None:
    """Count as the process in this place of the node from here on. What its predecessor had open is closed.

    `place` has no underscore, which parts the names of files.
    """
    global _place
    _place = place
    if are_shared():
        for gauges in Path(os.environ[_DIRECTORY]).glob(f"gauge_live*_{place}.db"):
            gauges.unlink(missing_ok=True)


def exposition() -> bytes:
    """The metrics of all processes that count together, in Prometheus' text format. Blocking: reads files."""
    if not are_shared():
        return generate_latest(metrics().registry)
    registry = CollectorRegistry()
    MultiProcessCollector(registry, os.environ[_DIRECTORY])  # type: ignore[no-untyped-call]
    return generate_latest(registry)


def may_scrape(authorization: str, token: str | None) -> bool:
    """Whether the header `Authorization` brings the token; anything does where there is none."""
    offered = authorization.encode("utf-8", "surrogateescape")
    return token is None or hmac.compare_digest(offered, f"Bearer {token}".encode())


async def sample(role: str, read: Callable[[], None]) -> None:
    """Until cancelled: see how late this event loop is, and have `read` set the gauges of what is there anyway."""
    lag_seconds = metrics().loop_lag_seconds.labels(role)
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + _SAMPLE_SECONDS
        await asyncio.sleep(_SAMPLE_SECONDS)
        lag_seconds.observe(max(0.0, loop.time() - due))
        read()
