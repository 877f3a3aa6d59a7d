"""What keeps an editor or a desktop alive: it survives what it finds in its folder and programs that hang."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from service.runner.programs import desktop
from service.runner.programs.desktop import Desktop
from service.runner.programs.host_program import HostProgram, Running
from service.settings import Settings
from tests.server_process import free_port
from tests.waiting import wait_until_async


class Sleeper:
    """A `Program` that says it serves and then does nothing."""

    name = "sleeper"
    port = 1

    def command(self, token: str) -> list[str]:
        return ["sh", "-c", "echo serving; exec sleep 600"]

    async def wait_ready(self, lines: AsyncIterator[str]) -> None:
        async for line in lines:
            if line == "serving":
                return

    def clean_up(self) -> None:
        """It has nothing else."""


@asynccontextmanager
async def kept(directory: Path) -> AsyncIterator[HostProgram]:
    program = HostProgram(Sleeper(), directory)
    keeper = asyncio.create_task(program.keep())
    try:
        yield program
        assert not keeper.done()
    finally:
        keeper.cancel()
        await asyncio.wait([keeper])


async def serving(program: HostProgram) -> Running:
    await wait_until_async(lambda: program.find() is not None, "the program serves")
    found = program.find()
    assert found is not None
    return found


@pytest.mark.parametrize("content", ['{"pid": 1}', "[]", "{", "\xff", "null"])
async def test_state_of_another_version_is_as_good_as_none(tmp_path: Path, content: str) -> None:
    (tmp_path / "sleeper-1.json").write_text(content, encoding="latin-1")
    async with kept(tmp_path) as program:
        assert (await serving(program)).pid == json.loads((tmp_path / "sleeper-1.json").read_text())["pid"]


async def test_folder_that_cannot_be_used_is_tried_again(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.touch()
    async with kept(folder) as program:
        await wait_until_async(lambda: program.problem, "it has been tried")
        folder.unlink()
        await serving(program)


async def test_program_ends_with_its_keeper(tmp_path: Path) -> None:
    async with kept(tmp_path) as program:
        running = await serving(program)
    assert program.find() is None
    with pytest.raises(ProcessLookupError):
        os.killpg(running.pid, 0)


@pytest.mark.parametrize("hanging", ["vncpasswd", "vncserver"])
def test_desktop_whose_programs_hang_cannot_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hanging: str) -> None:
    """Which the keeper takes for any other failure, and ending it does not hang either."""
    for name in ("vncserver", "vncpasswd", "novnc_proxy"):
        (tmp_path / name).write_text(f"#!/bin/sh\n{'exec sleep 600' if name == hanging else ''}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(desktop, "_RUN_SECONDS", 0.2)
    wanted = Desktop(Settings(novnc_port=free_port()))
    with pytest.raises(OSError, match=f"{hanging} has not ended within 0.2 s"):
        wanted.command("token")
    wanted.clean_up()
