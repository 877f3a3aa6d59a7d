"""What `fanout doctor` says of each thing that can be wrong with a machine, one at a time."""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from service import doctor
from service.catalog.keys import Keys
from service.catalog.runners import RunnerRecord, Runners
from service.doctor import Finding, Level, examine
from service.identity import RunnerId
from service.redis_source import RedisSource
from service.settings import Settings
from tests.redis_process import RedisProcess


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisProcess]:
    (tmp_path / "redis").mkdir()
    with RedisProcess(tmp_path / "redis") as running:
        yield running


def settings_in(folder: Path, **more: Any) -> Settings:
    return Settings(
        conversations_path=folder / "conversations", bash_events_dir=folder / "bash", secret_key="secret", **more
    )


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Where all is well."""
    return settings_in(tmp_path)


@pytest.fixture
def with_redis(tmp_path: Path, redis: RedisProcess) -> Settings:
    return settings_in(tmp_path, redis_url=redis.url)


async def finding(settings: Settings, subject: str) -> Finding:
    """The worst about one subject; it has advice unless all is well."""
    order = list(Level)
    found = [each for each in await examine(settings) if each.subject == subject]
    worst = max(found, key=lambda each: order.index(each.level))
    assert (worst.advice == "") == (worst.level is Level.GOOD)
    return worst


@pytest.mark.parametrize("subject", ["versions", "keys", "disk", "locks", "Redis"])
async def test_good_machine_has_nothing_wrong(settings: Settings, subject: str) -> None:
    assert (await finding(settings, subject)).level is Level.GOOD


async def test_disk_that_takes_no_file(tmp_path: Path, settings: Settings) -> None:
    (tmp_path / "file").touch()
    found = await finding(settings.model_copy(update={"conversations_path": tmp_path / "file" / "below"}), "disk")
    assert found.level is Level.PROBLEM


async def test_disk_that_is_nearly_full(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1 << 20))
    assert "0.0 GB free" in (await finding(settings, "disk")).what


async def test_disk_that_tells_no_sizes_is_not_full(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the server takes it."""
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(total=0, free=0))
    assert "disk" not in [each.subject for each in await examine(settings)]


async def test_disk_that_is_slow(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    sync, clock, late = os.fsync, time.monotonic, [0.0]

    def slow_sync(descriptor: int) -> None:
        sync(descriptor)
        late[0] += 1.0

    monkeypatch.setattr(os, "fsync", slow_sync)
    monkeypatch.setattr(time, "monotonic", lambda: clock() + late[0])
    assert (await finding(settings, "fsync")).level is Level.WARNING


async def test_locks_that_do_not_hold(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fcntl, "flock", lambda file, operation: None)
    found = await finding(settings, "locks")
    assert (found.level, "two at once" in found.what) == (Level.PROBLEM, True)


async def test_locks_that_there_are_none_of(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(file: object, operation: int) -> None:
        raise OSError("No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    assert (await finding(settings, "locks")).what.endswith("No locks available")


async def test_folder_of_which_nothing_can_be_told(tmp_path: Path, settings: Settings) -> None:
    settings = settings.model_copy(update={"bash_events_dir": tmp_path / ("n" * 300)})
    assert (await finding(settings, "locks")).level is Level.PROBLEM


async def test_versions_that_do_not_belong_together(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "version", lambda name: "1.2" if name == "openhands-tools" else "1.1")
    found = await finding(settings, "versions")
    assert (found.level, found.what) == (Level.PROBLEM, "openhands-sdk is 1.1, openhands-tools is 1.2")


async def test_program_that_is_not_there(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/none")
    assert [(await finding(settings, name)).level for name in ("git", "tmux")] == [Level.WARNING] * 2


async def test_clock_that_goes_wrong(with_redis: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = time.time
    monkeypatch.setattr(time, "time", lambda: clock() + 10)
    found = await finding(with_redis, "clock")
    assert (found.level, found.what) == (Level.WARNING, "-10.0 s against Redis")


async def test_redis_that_is_too_old(with_redis: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_LEAST_REDIS", (999, 0))
    found = await finding(with_redis, "Redis")
    assert (found.level, found.what.startswith("is version")) == (Level.PROBLEM, True)


async def test_redis_that_is_far_away(with_redis: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_SLOW_REDIS_SECONDS", 0.0)
    found = await finding(with_redis, "Redis")
    assert (found.level, found.what.endswith("ms away")) == (Level.WARNING, True)


async def test_redis_that_wants_another_password(with_redis: Settings, redis: RedisProcess) -> None:
    redis.client.config_set("requirepass", "other")
    found = await finding(with_redis, "Redis")
    assert (found.level, "does not answer" in found.what) == (Level.PROBLEM, True)


async def test_redis_whose_settings_may_not_be_read(with_redis: Settings, redis: RedisProcess) -> None:
    redis.client.acl_setuser("default", enabled=True, nopass=True, commands=["-config"])
    assert (await finding(with_redis, "Redis settings")).level is Level.WARNING


async def test_secrets_that_lie_beside_their_key(settings: Settings) -> None:
    assert (await finding(settings.model_copy(update={"secret_key": None}), "secret key")).level is Level.WARNING


async def test_runner_without_descriptors(with_redis: Settings) -> None:
    client = RedisSource(with_redis.redis_address, "fanout").commands()
    await Runners(client, Keys("fanout")).beat(RunnerRecord(RunnerId("h.1.1"), 0, {}, is_able=False))
    await client.aclose()
    assert (await finding(with_redis, "runners")).what == "1 without descriptors"


async def test_runners_of_different_versions(with_redis: Settings) -> None:
    client = RedisSource(with_redis.redis_address, "fanout").commands()
    runners = Runners(client, Keys("fanout"))
    for number in (58, 59):
        facts = {"host": "h", "sdk_version": f"1.{number}.0"}
        await runners.beat(RunnerRecord(RunnerId(f"h.1.{number}"), 0, facts, is_able=True))
    await client.aclose()
    found = await finding(with_redis, "runners")
    assert found.what == "different SDKs: 1.58.0, 1.59.0"
