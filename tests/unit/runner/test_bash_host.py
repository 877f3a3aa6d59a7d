"""Commands whose runner has died: each gets its end, whatever becomes of the others."""

from __future__ import annotations

import asyncio
import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import pytest

from service.catalog.catalog import Catalog
from service.catalog.keys import Keys
from service.catalog.liveness import Pulse, new_runner_id
from service.redis_source import RedisSource
from service.runner.bash import host as bash_host
from service.runner.bash.host import BashHost
from service.runner.bash.process import CommandRequest
from service.runner.workers import Workers
from service.settings import Settings
from service.store.bash_history import BashHistory, new_command_id
from service.store.live_output import LiveOutput, Position
from service.store.running_commands import RunningCommand, RunningCommands
from tests.unit.catalog.test_liveness import dead_here
from tests.unit.runner.rig import RecordingPublisher
from tests.unit.runner.small_disk import SmallDisk
from tests.waiting import wait_until_async

DEAD = dead_here()
CATALOG = Catalog(RedisSource(None, "t").commands(), Keys("t"), 10.0)


@pytest.fixture
def machine(settings: Settings) -> Path:
    """Where the machine's own history is."""
    (settings.bash_events_dir / "running").mkdir(parents=True)
    return settings.bash_events_dir


@pytest.fixture
def registry(machine: Path) -> RunningCommands:
    return RunningCommands(machine)


def host(settings: Settings) -> BashHost:
    """Of another, living runner."""
    return BashHost(settings, new_runner_id(), RecordingPublisher(), Keys("t"), Workers())


async def end_orphans(bash: BashHost) -> None:
    await bash.end_those_of_dead_runners(CATALOG.runners, Pulse(0.0))


def orphan(registry: RunningCommands, directory: Path) -> str:
    """A command of a dead runner that has put something out."""
    command_id = new_command_id()
    BashHistory(directory).begin(command_id, "sleep 600", None, 600)
    BashHistory(directory).add_output(command_id, 0, None, "begun\n", None)
    registry.add(RunningCommand(command_id, DEAD, directory))
    return command_id


def exit_codes(directory: Path, command_id: str) -> list[int | None]:
    return [json.loads(output)["exit_code"] for output in BashHistory(directory).outputs(command_id)]


def delete_conversation(registry: RunningCommands, machine: Path) -> None:
    registry.add(RunningCommand("0" * 32, DEAD, machine / "conversation" / "bash_events"))


def tear(registry: RunningCommands, machine: Path) -> None:
    (machine / "running" / ("0" * 32)).touch()


def write_otherwise(registry: RunningCommands, machine: Path) -> None:
    (machine / "running" / ("0" * 32)).write_text("[]")


@pytest.mark.parametrize("spoil", [delete_conversation, tear, write_otherwise])
async def test_one_command_does_not_keep_others_from_their_end(
    settings: Settings, registry: RunningCommands, machine: Path, spoil: Callable[[RunningCommands, Path], None]
) -> None:
    """Its conversation was deleted, or what is written about it cannot be read."""
    bash = host(settings)
    spoil(registry, machine)
    await end_orphans(bash)
    command_id = orphan(registry, machine)
    await end_orphans(bash)
    assert exit_codes(machine, command_id) == [None, -1]
    assert registry.all() == []


async def test_end_that_cannot_be_stored_is_stored_later(
    settings: Settings, registry: RunningCommands, machine: Path
) -> None:
    """The disk takes no writes for a while."""
    bash, command_id = host(settings), orphan(registry, machine)
    index = machine / "index"
    index.rename(machine / "away")
    index.touch()
    await end_orphans(bash)
    assert exit_codes(machine, command_id) == [None]
    index.unlink()
    (machine / "away").rename(index)
    await end_orphans(bash)
    assert exit_codes(machine, command_id) == [None, -1]
    assert registry.all() == []


async def test_command_whose_runner_stored_the_end_gets_no_other(
    settings: Settings, registry: RunningCommands, machine: Path
) -> None:
    """It died before it could say that the command was over."""
    command_id = orphan(registry, machine)
    BashHistory(machine).add_output(command_id, 1, 0, None, None)
    await end_orphans(host(settings))
    assert exit_codes(machine, command_id) == [None, 0]
    assert registry.all() == []


async def test_command_gets_one_end_from_many_runners(
    settings: Settings, registry: RunningCommands, machine: Path
) -> None:
    """They all look at the same time."""
    commands = [orphan(registry, machine) for _ in range(5)]
    await asyncio.gather(*(end_orphans(host(settings)) for _ in range(5)))
    assert [exit_codes(machine, command_id) for command_id in commands] == [[None, -1]] * 5


async def test_command_that_was_never_stored_gets_no_end(
    settings: Settings, registry: RunningCommands, machine: Path
) -> None:
    """Its runner died between saying that it is at it and storing it."""
    command_id = new_command_id()
    registry.add(RunningCommand(command_id, DEAD, machine))
    await end_orphans(host(settings))
    assert BashHistory(machine).outputs(command_id) == []
    assert registry.all() == []


async def test_command_that_cannot_be_stored_is_not_said_to_run(settings: Settings, machine: Path) -> None:
    """The disk is full: it is refused, and leaves nothing."""
    bash, command_id = host(settings), new_command_id()
    with SmallDisk(machine / "index"), pytest.raises(OSError, match="space"):
        await bash.start(command_id, CommandRequest("true", None, 60), machine, None)
    assert RunningCommands(machine).all() == []
    assert not await bash.stop(command_id)
    assert len(await bash.start(command_id, CommandRequest("true", None, 60), machine, None, 30.0)) == 2


async def test_end_is_stored_once_though_the_command_cannot_be_forgotten(settings: Settings, machine: Path) -> None:
    """Some disks refuse that, too, when they are full."""
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with patch.object(RunningCommands, "remove", side_effect=full):
        events = await host(settings).start(new_command_id(), CommandRequest("echo x", None, 60), machine, None, 30.0)
    assert exit_codes(machine, json.loads(events[0])["id"]) == [0]


async def test_stop_does_not_wait_for_a_full_disk(settings: Settings, machine: Path) -> None:
    """The command has ended; its end is stored when there is room."""
    bash, command_id = host(settings), new_command_id()
    await bash.start(command_id, CommandRequest("sleep 600", None, 600), machine, None)
    with SmallDisk(machine / "index") as disk, patch.object(bash_host, "_STOP_SECONDS", 0.1):
        async with asyncio.timeout(20.0):
            assert await bash.stop(command_id)
        await disk.wait_refused(2)
        assert exit_codes(machine, command_id) == []
        disk.is_full = False
        await wait_until_async(lambda: exit_codes(machine, command_id) == [-15], "its end is stored")


async def test_command_whose_beginning_was_cleared_gets_its_end(
    settings: Settings, registry: RunningCommands, machine: Path
) -> None:
    """And somebody may wait for that."""
    command_id = orphan(registry, machine)
    BashHistory(machine).clear()
    BashHistory(machine).add_output(command_id, 1, None, "more\n", None)
    await end_orphans(host(settings))
    assert exit_codes(machine, command_id) == [None, -1]


async def test_command_that_fails_to_begin_takes_no_place(settings: Settings, machine: Path) -> None:
    """Whatever the reason: its client is told, and others may run."""
    bash = host(settings.model_copy(update={"max_bash_commands": 1}))
    wanted = CommandRequest("true", None, 60)
    with patch.object(BashHistory, "begin", side_effect=RuntimeError("can't start new thread")):
        async with asyncio.timeout(20.0):
            with pytest.raises(RuntimeError, match="thread"):
                await bash.start(new_command_id(), wanted, machine, None)
    assert len(await bash.start(new_command_id(), wanted, machine, None, 30.0)) == 2


async def printed(bash: BashHost, machine: Path) -> str:
    """A command that is over, and left live output."""
    command_id = new_command_id()
    await bash.start(command_id, CommandRequest("echo x", None, 60), machine, None)
    await wait_until_async(lambda: is_live(machine, command_id), "its output is shown")
    await wait_until_async(lambda: RunningCommands(machine).all() == [], "it is over")
    return command_id


def is_live(machine: Path, command_id: str) -> bool:
    return LiveOutput(machine, command_id).since(Position(), 10) != []


async def test_live_output_goes_after_the_end(settings: Settings, machine: Path) -> None:
    """A little later, or when its runner stops."""
    bash = host(settings)
    command_id = await printed(bash, machine)
    await bash.close()
    assert not is_live(machine, command_id)
    with patch.object(bash_host, "_LINGER_SECONDS", 0.1):
        command_id = await printed(bash, machine)
        await wait_until_async(lambda: not is_live(machine, command_id), "it has gone")
    assert RunningCommands(machine / "ended").all() == []


async def test_live_output_of_a_dead_runner_goes(settings: Settings, machine: Path) -> None:
    """Which died between the end of a command and the moment when its live output was to go."""
    dead = BashHost(settings, DEAD, RecordingPublisher(), Keys("t"), Workers())
    command_id = await printed(dead, machine)
    await end_orphans(host(settings))
    assert not is_live(machine, command_id)
    assert RunningCommands(machine / "ended").all() == []
