"""The commands that this runner runs for `/api/bash`: told to readers, stopped, never left without an end."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple
from uuid import UUID

import structlog

from service.catalog.keys import Keys
from service.catalog.liveness import Pulse, dead_among
from service.catalog.runners import Runners
from service.errors import BashLimitReached, Conflict
from service.identity import UNKNOWN_STREAM_EPOCH, RunnerId
from service.pubsub.broker import Channel
from service.pubsub.envelope import Envelope, Kind, encode
from service.runner.bash.command import FAILED, BashCommand, Output
from service.runner.bash.process import CommandProcess, CommandRequest
from service.runner.bash.watched import Watched
from service.runner.publisher import Publisher
from service.runner.workers import Workers
from service.settings import Settings
from service.store.bash_history import BashHistory
from service.store.live_output import LiveOutput
from service.store.running_commands import RunningCommand, RunningCommands
from service.tasks import TaskSet

_log = structlog.get_logger(__name__)

_CLOSE_SECONDS = 3.0
_STOP_SECONDS = 5.0
"""Longer than a process group takes from SIGTERM to its end."""
_PATIENCE_SECONDS = 0.05
"""How long a worker stays with a command whose end is waited for. Most are over by then."""
_ATTENDED = 8
"""With how many at once: other calls want the workers, too."""
_LINGER_SECONDS = 10.0
"""How long a command's live output stays after its end, for readers that are a little behind."""
_ANSWERED_BYTES = 1 << 16
"""An output up to this is handed to whoever waits for the end; a larger one is read from the disk."""


class _Running(NamedTuple):
    command: BashCommand
    watched: Watched
    conversation_id: UUID | None
    history_path: Path
    begin: Callable[[float], bytes]
    """Store and start it, and stay with it for so many seconds; returns its event. Blocking."""


class BashHost:
    """Methods of the runner's loop."""

    def __init__(
        self, settings: Settings, runner_id: RunnerId, publisher: Publisher, keys: Keys, workers: Workers
    ) -> None:
        self._settings = settings
        self._runner_id = runner_id
        self._publisher = publisher
        self._keys = keys
        self._workers = workers
        self._registry = RunningCommands(settings.bash_events_dir)
        self._ended = RunningCommands(settings.bash_events_dir / "ended")
        """Those whose live output is still there, so that it goes also when their runner dies meanwhile."""
        self._lingering: dict[str, Path] = {}
        """Of these our own: their histories."""
        self._running: dict[str, _Running] = {}
        self._attended = 0
        self._tasks = TaskSet()

    async def start(
        self,
        command_id: str,
        wanted: CommandRequest,
        history_path: Path,
        conversation_id: UUID | None,
        wait_seconds: float = 0.0,
    ) -> list[bytes]:
        """Store the command and start it; returns its event.

        With `wait_seconds` the event of its output follows, if it ends within them with one output that is not large.

        Raises:
            BashLimitReached: this runner has as many commands as it may.
            OSError: it could not be stored.
        """
        if len(self._running) >= self._settings.max_bash_commands:
            raise BashLimitReached
        running = self._running[command_id] = self._prepared(command_id, wanted, history_path, conversation_id)
        begun: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        is_awaited = wait_seconds > 0
        # In a task of its own: who has asked for it may go away.
        self._tasks.start(self._run(command_id, running, begun, is_awaited=is_awaited), f"command {command_id}")
        event = await begun
        if not is_awaited:
            return [event]
        if not running.command.ended.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(wait_seconds):
                    await running.command.ended.wait()
        end = running.command.only_event
        return [event] if end is None or len(end) > _ANSWERED_BYTES else [event, end]

    async def process(self, command_id: str) -> CommandProcess:
        """Of a command that runs here, for input and signals. Raises Conflict when it does not, or not any more."""
        found = self._running.get(command_id)
        if found is None:
            raise Conflict("The command has ended.")
        return await found.command.process()

    async def stop(self, command_id: str) -> bool:
        """End a command's process group; returns when its end is stored, or soon. False when it does not run here."""
        found = self._running.get(command_id)
        if found is None:
            return False
        found.command.stop()
        with suppress(TimeoutError):  # a full disk takes its end later
            async with asyncio.timeout(_STOP_SECONDS):
                await found.command.ended.wait()
        return True

    def kill_those_of(self, conversation_id: UUID) -> None:
        """The conversation is being deleted, and their history with it."""
        for running in list(self._running.values()):
            if running.conversation_id == conversation_id:
                running.command.kill("The conversation was deleted.")

    def runs_for(self, conversation_id: UUID) -> bool:
        return any(running.conversation_id == conversation_id for running in self._running.values())

    async def close(self) -> None:
        """End every command; each gets its last output."""
        commands = list(self._running)
        for running in self._running.values():
            running.command.kill("The runner of this command has stopped.")
        try:
            async with asyncio.timeout(_CLOSE_SECONDS):
                await self._tasks.wait()
        except TimeoutError:
            _log.error("commands_not_ended", commands=commands)
        for command_id in list(self._lingering):
            self._end_lingering(command_id)

    async def delete_old(self, retention_seconds: float) -> None:
        """Delete what is older than that of the machine's own history."""
        before = int((time.time() - retention_seconds) * 1_000_000)
        await self._workers.call(BashHistory(self._settings.bash_events_dir).purge, before)

    async def end_those_of_dead_runners(self, runners: Runners, pulse: Pulse) -> None:
        """Give a last output to commands whose runner is gone; their live output goes. Raises BrokerUnavailable.

        One that cannot be given it now, because the disk is full perhaps, keeps its place for the next time.
        """
        running = await self._workers.call(self._registry.all)
        ended = await self._workers.call(self._ended.all)
        owners = {each.runner_id for each in running + ended} - {self._runner_id}
        dead = await dead_among(owners, runners, pulse)
        for orphan in (each for each in running if each.runner_id in dead):
            try:
                await self._end(orphan)
            except (OSError, ValueError):
                _log.exception("command_of_dead_runner_not_ended", command_id=orphan.command_id)
        for left in (each for each in ended if each.runner_id in dead):
            await self._workers.call(self._remove_live, left.command_id, left.history)

    async def _end(self, orphan: RunningCommand) -> None:
        output = await self._workers.call(self._store_end, orphan)
        if output is not None:
            self._tell_output(orphan.command_id, output, is_global=orphan.history == self._settings.bash_events_dir)
            _log.warning("command_of_dead_runner_ended", command_id=orphan.command_id, dead_runner_id=orphan.runner_id)

    def _store_end(self, orphan: RunningCommand) -> bytes | None:
        """The last output, if it is this call that stores it. Blocking."""
        command_id, output = orphan.command_id, None
        with self._registry.held(command_id) as is_there:
            if not is_there:
                return None  # another runner has done it
            history = BashHistory(orphan.history)
            outputs = history.outputs(command_id)
            if outputs:
                lacks_end = json.loads(outputs[-1])["exit_code"] is None
            else:
                lacks_end = history.event(command_id) is not None
            if lacks_end:
                why = "The runner of this command has died."
                with suppress(FileNotFoundError):  # deleted with its conversation
                    output = history.add_output(command_id, len(outputs), FAILED, None, why)
            LiveOutput(orphan.history, command_id).remove()
            self._registry.remove(command_id)
        return output

    def _prepared(
        self, command_id: str, wanted: CommandRequest, history_path: Path, conversation_id: UUID | None
    ) -> _Running:
        history = BashHistory(history_path)

        def store(output: Output) -> bytes | None:
            try:
                event = history.add_output(command_id, *output)
            except FileNotFoundError:
                event = None  # deleted with its conversation
            if output.exit_code is not None:
                if watched.is_there:
                    with suppress(OSError):  # a full disk: nobody will know should this runner die within seconds
                        self._ended.add(RunningCommand(command_id, self._runner_id, history_path))
                self._forget(self._registry, command_id)
            return event

        tell = partial(self._tell_output, command_id, is_global=conversation_id is None)
        watched = Watched(history_path, command_id, self._workers, self._watch)
        limit_characters = self._settings.bash_output_max_characters
        command = BashCommand(wanted, self._workers, store, tell, watched.add, limit_characters)

        def begin(patience_seconds: float) -> bytes:
            self._registry.add(RunningCommand(command_id, self._runner_id, history_path))
            try:
                event = history.begin(command_id, wanted.command, wanted.cwd, wanted.timeout_seconds)
            except BaseException:
                self._registry.remove(command_id)
                raise
            command.begin(patience_seconds)
            return event

        return _Running(command, watched, conversation_id, history_path, begin)

    def _forget(self, registry: RunningCommands, command_id: str) -> None:
        try:
            registry.remove(command_id)
        except OSError as error:  # its end is stored, and must not be once more
            _log.warning("ended_command_not_forgotten", command_id=command_id, error=str(error))

    def _linger(self, command_id: str, history_path: Path) -> None:
        self._lingering[command_id] = history_path
        asyncio.get_running_loop().call_later(_LINGER_SECONDS, self._end_lingering, command_id)

    def _end_lingering(self, command_id: str) -> None:
        history_path = self._lingering.pop(command_id, None)
        if history_path is not None:
            self._remove_live(command_id, history_path)

    def _remove_live(self, command_id: str, history_path: Path) -> None:
        LiveOutput(history_path, command_id).remove()
        self._forget(self._ended, command_id)

    async def _run(self, command_id: str, running: _Running, begun: asyncio.Future[bytes], *, is_awaited: bool) -> None:
        try:
            event = await self._begin(running, is_attended=is_awaited and self._attended < _ATTENDED)
        except BaseException as error:
            del self._running[command_id]
            if not isinstance(error, Exception):
                begun.cancel()
            elif not begun.done():
                begun.set_exception(error)
            if isinstance(error, OSError):
                return  # its client is told
            raise
        if running.conversation_id is None:
            self._publish(self._keys.bash, event)
        if not begun.done():
            begun.set_result(event)
        try:
            await running.command.run()
        finally:
            await running.watched.close()
            del self._running[command_id]
            if running.watched.is_there:
                self._linger(command_id, running.history_path)

    async def _begin(self, running: _Running, *, is_attended: bool) -> bytes:
        self._attended += is_attended
        try:
            return await self._workers.call(running.begin, _PATIENCE_SECONDS if is_attended else 0.0)
        finally:
            self._attended -= is_attended

    def _tell_output(self, command_id: str, event: bytes, *, is_global: bool) -> None:
        if is_global:
            self._publish(self._keys.bash, event)
        self._publish(self._keys.bash_command(command_id), b"")

    def _watch(self, command_id: str) -> None:
        self._publish(self._keys.bash_live, command_id.encode())
        self._publish(self._keys.bash_command(command_id), b"")

    def _publish(self, channel: str, payload: bytes) -> None:
        self._publisher.put(Channel(channel), encode(Envelope(Kind.TRANSIENT, -1, UNKNOWN_STREAM_EPOCH, payload)))
