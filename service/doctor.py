"""`fanout doctor`: what of the surroundings would hurt, found out before it does."""

from __future__ import annotations

import asyncio
import fcntl
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Iterator
from enum import StrEnum
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

from redis.asyncio import Redis
from redis.exceptions import RedisError

from service.catalog.catalog import Catalog
from service.catalog.keys import Keys
from service.catalog.runners import RunnerRecord
from service.errors import BrokerUnavailable
from service.redis_source import RedisSource
from service.settings import Settings
from service.store.disk import disk_problem, nearest_existing

_SKEW_SECONDS = 1.0
_SLOW_SYNC_SECONDS = 0.05
_SLOW_REDIS_SECONDS = 0.01
_LOW_DISK_BYTES = 1 << 30
_LEAST_REDIS = (6, 2)
"""SET with GET, by which a runner sees that Redis has lost its last heartbeat, came with it (redis.io, SET)."""
_PUBSUB_BYTES = 64 << 20
NO_KEY = "Whoever reaches the port can run any command as this user: set OH_SESSION_API_KEYS_0."


class Level(StrEnum):
    GOOD = "good"
    WARNING = "warning"
    PROBLEM = "problem"


class Finding(NamedTuple):
    """One thing that was looked at."""

    level: Level
    subject: str
    what: str
    advice: str = ""
    """What to do, and why; empty when all is well."""


def _judged(subject: str, what: str, is_good: bool, advice: str) -> Finding:
    return Finding(Level.GOOD, subject, what) if is_good else Finding(Level.WARNING, subject, what, advice)


async def examine(settings: Settings) -> list[Finding]:
    """Everything, in the order of what depends on what. Writes and removes a file in the data folder."""
    findings = [*_versions(), *_programs(settings), *_access(settings)]
    findings += await asyncio.to_thread(lambda: [*_disk(settings), *_locks(settings)])
    return findings + await _redis(settings)


def _versions() -> Iterator[Finding]:
    names = ("fanout-agent-server", "openhands-sdk", "openhands-tools", "sanic", "redis")
    found = {name: _version(name) for name in names}
    yield Finding(Level.GOOD, "Python", f"{platform.python_version()} on {platform.platform()}")
    if found["openhands-sdk"] != found["openhands-tools"]:
        yield Finding(
            Level.PROBLEM,
            "versions",
            f"openhands-sdk is {found['openhands-sdk']}, openhands-tools is {found['openhands-tools']}",
            "They are released together and use each other's insides: install what requirements.lock pins.",
        )
    yield Finding(Level.GOOD, "versions", ", ".join(f"{name} {number}" for name, number in found.items()))


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _programs(settings: Settings) -> Iterator[Finding]:
    uses = {
        "git": "changes and diffs are empty without it",
        "bash": "shell commands run in sh without it",
        "tmux": "agents' terminals fall back to a plain subprocess without it",
    }
    if settings.redis_address is None:
        uses["redis-server"] = "`fanout serve` with several processes cannot start a Redis without it"
    for program, use in uses.items():
        path = shutil.which(program)
        yield _judged(program, path or "not on PATH", path is not None, f"Install it: {use}.")


def _access(settings: Settings) -> Iterator[Finding]:
    if settings.auth_keys:
        yield Finding(Level.GOOD, "keys", f"{len(settings.auth_keys)} configured")
    elif settings.is_open_to_others:
        yield Finding(Level.PROBLEM, "keys", f"none, and {settings.bind_host} is listened on", NO_KEY)
    else:
        yield Finding(Level.GOOD, "keys", f"none, and only {settings.bind_host} is listened on")
    if settings.cipher_key is None:
        yield Finding(
            Level.WARNING,
            "secret key",
            "none configured",
            "One is kept among the conversations, so who copies the folder can read the secrets: set OH_SECRET_KEY.",
        )


def _disk(settings: Settings) -> Iterator[Finding]:
    folder = settings.conversations_path
    problem = disk_problem(folder)
    if problem is not None:
        yield Finding(Level.PROBLEM, "disk", problem, "Nothing can be stored, so no command is taken.")
        return
    usage = shutil.disk_usage(nearest_existing(folder))
    if usage.total:  # some network disks tell no sizes
        what = f"{usage.free / 1e9:.1f} GB free below {folder}"
        yield _judged("disk", what, usage.free >= _LOW_DISK_BYTES, "Make room.")
    try:
        seconds = _sync_seconds(nearest_existing(folder))
    except OSError as error:
        yield Finding(
            Level.PROBLEM, "disk", f"a file cannot be written, synced and renamed: {error}", "Every event is stored so."
        )
        return
    yield _judged(
        "fsync",
        f"{seconds * 1000:.1f} ms for a small file",
        seconds <= _SLOW_SYNC_SECONDS,
        "Each event waits for it. A faster disk helps; OH_FSYNC=0 gives up what a power cut takes.",
    )


def _sync_seconds(folder: Path) -> float:
    began = time.monotonic()
    descriptor, name = tempfile.mkstemp(prefix=".fanout-doctor-", dir=folder)
    try:
        os.write(descriptor, b"x" * 4096)
        os.fsync(descriptor)
        renamed = f"{name}-renamed"
        os.rename(name, renamed)
        name = renamed
        return time.monotonic() - began
    finally:
        os.close(descriptor)
        os.unlink(name)


def _locks(settings: Settings) -> Iterator[Finding]:
    """The index of shell commands is appended to by several processes under a lock."""
    folder = settings.bash_events_dir
    try:
        folder = nearest_existing(folder)
        holds = _locks_hold(folder)
    except OSError as error:
        yield Finding(
            Level.PROBLEM, "locks", f"none to be had in {folder}: {error}", "Shell commands cannot be stored."
        )
        return
    if holds:
        yield Finding(Level.GOOD, "locks", f"hold in {folder}")
    else:
        yield Finding(
            Level.PROBLEM,
            "locks",
            f"two at once were given in {folder}",
            "The history of shell commands may lose entries: mount the disk with locks (NFS: not `nolock`).",
        )


def _locks_hold(folder: Path) -> bool:
    with tempfile.NamedTemporaryFile(prefix=".fanout-doctor-", dir=folder) as first, open(first.name, "rb") as second:
        fcntl.flock(first, fcntl.LOCK_EX)
        try:
            fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False


async def _redis(settings: Settings) -> list[Finding]:
    if settings.redis_address is None:
        return [Finding(Level.GOOD, "Redis", "none configured: `fanout serve` brings its own")]
    redis = RedisSource(settings.redis_address, settings.redis_namespace).commands()
    try:
        findings = await _examine_redis(redis)
        runners = await Catalog(redis, Keys(settings.redis_namespace), settings.lease_ttl_seconds).runners.alive()
        return [*findings, *_runners(runners)]
    except (RedisError, BrokerUnavailable, OSError, TimeoutError) as error:
        reason = str(error.__cause__ or error)
        return [
            Finding(Level.PROBLEM, "Redis", f"does not answer: {reason}", "Look at REDIS_URL, password and network.")
        ]
    finally:
        await redis.aclose()


async def _examine_redis(redis: Redis) -> list[Finding]:
    began_at, began = time.time(), time.monotonic()
    seconds, micros = await redis.time()
    took_seconds = time.monotonic() - began
    skew_seconds = seconds + micros / 1e6 - (began_at + took_seconds / 2)
    info = await redis.info("server")
    number = str(info["redis_version"])
    distance = f"{number}, {took_seconds * 1000:.1f} ms away"
    is_right = abs(skew_seconds) < _SKEW_SECONDS + took_seconds
    skew = f"{skew_seconds * 1000:+.0f} ms" if is_right else f"{skew_seconds:+.1f} s"
    findings = [
        _judged("Redis", distance, took_seconds < _SLOW_REDIS_SECONDS, "Commands cross it four times."),
        _judged(
            "clock",
            f"{skew} against Redis",
            is_right,
            "Leases do not depend on it, but the times and the order of conversations do: run NTP.",
        ),
    ]
    if tuple(int(part) for part in number.split(".")[:2]) < _LEAST_REDIS:
        findings.append(Finding(Level.PROBLEM, "Redis", f"is version {number}", "6.2 or newer is needed."))
    return findings + await _examine_redis_settings(redis)


async def _examine_redis_settings(redis: Redis) -> list[Finding]:
    try:
        given = await redis.config_get("maxmemory*", "client-output-buffer-limit")
    except RedisError:
        return [Finding(Level.WARNING, "Redis settings", "cannot be read", "Look at docs/operations.md and compare.")]
    findings = []
    policy = given.get("maxmemory-policy", "")
    if int(given.get("maxmemory") or 0) and policy != "noeviction":
        advice = "A lease that is evicted is a conversation without an owner: set maxmemory-policy noeviction."
        findings.append(Finding(Level.PROBLEM, "Redis memory", f"{policy} above {given['maxmemory']} bytes", advice))
    words = str(given.get("client-output-buffer-limit", "")).split()
    hard_bytes = int(words[words.index("pubsub") + 1]) if "pubsub" in words else 0
    if 0 < hard_bytes < _PUBSUB_BYTES:
        advice = "Redis cuts off web workers that fall behind, and they read the log. Raise client-output-buffer-limit."
        findings.append(Finding(Level.WARNING, "Redis buffers", f"{hard_bytes >> 20} MB for a subscriber", advice))
    return findings or [Finding(Level.GOOD, "Redis settings", "as they should be")]


def _runners(alive: list[RunnerRecord]) -> Iterator[Finding]:
    if not alive:
        yield Finding(Level.WARNING, "runners", "none is up", "Start some: `fanout runner`. Until then nothing runs.")
        return
    hosts = sorted({str(runner.facts.get("host")) for runner in alive})
    load = sum(runner.load for runner in alive)
    yield Finding(Level.GOOD, "runners", f"{len(alive)} on {', '.join(hosts)}, {load} runs going on")
    lacking = sum(not runner.is_able for runner in alive)
    if lacking:
        advice = "They are given nothing new: raise `ulimit -n`."
        yield Finding(Level.WARNING, "runners", f"{lacking} without descriptors", advice)
    versions = sorted({str(runner.facts.get("sdk_version")) for runner in alive})
    if len(versions) > 1:
        advice = "Good for the length of a rolling upgrade; an older one may not read what a newer one has stored."
        yield Finding(Level.WARNING, "runners", f"different SDKs: {', '.join(versions)}", advice)
