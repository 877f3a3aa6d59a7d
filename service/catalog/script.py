"""Lua scripts, which Redis carries out as one step."""

from __future__ import annotations

from importlib.resources import files

from redis.asyncio import Redis
from redis.commands.core import AsyncScript

_LUA = files("service.catalog") / "lua"


def script(redis: Redis, name: str) -> AsyncScript:
    """The one in `lua/`, whose head says what it takes and gives."""
    return redis.register_script((_LUA / f"{name}.lua").read_text())
