"""Waiting for a named condition: the only places in the tests where time is allowed to pass."""

from __future__ import annotations

import asyncio
import inspect
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any, overload

POLL_SECONDS = 0.02
"""Guess: far below what a test asserts, far above the cost of a predicate that asks over HTTP."""


def wait_until[T](predicate: Callable[[], T], description: str, timeout_seconds: float = 20.0) -> T:
    """Call `predicate` until its value is true and return that value.

    Args:
        description: what is waited for, as it should read in the failure: "the run has finished".

    Raises:
        AssertionError: still not true after `timeout_seconds`; shows the last value.
    """
    deadline = time.monotonic() + timeout_seconds
    pause = threading.Event()
    while not (value := predicate()):
        if time.monotonic() > deadline:
            raise AssertionError(_failure(description, timeout_seconds, value))
        pause.wait(POLL_SECONDS)
    return value


@overload
async def wait_until_async[T](
    predicate: Callable[[], Awaitable[T]], description: str, timeout_seconds: float = ...
) -> T: ...
@overload
async def wait_until_async[T](predicate: Callable[[], T], description: str, timeout_seconds: float = ...) -> T: ...
async def wait_until_async(predicate: Callable[[], Any], description: str, timeout_seconds: float = 20.0) -> Any:
    """`wait_until` on the running loop; `predicate` may be a plain function or a coroutine function.

    Raises:
        AssertionError: still not true after `timeout_seconds`; shows the last value.
    """
    deadline = time.monotonic() + timeout_seconds
    while not (value := await _value(predicate)):
        if time.monotonic() > deadline:
            raise AssertionError(_failure(description, timeout_seconds, value))
        await asyncio.sleep(POLL_SECONDS)
    return value


async def _value(predicate: Callable[[], Any]) -> Any:
    value = predicate()
    return await value if inspect.isawaitable(value) else value


def _failure(description: str, timeout_seconds: float, value: object) -> str:
    return f"waited {timeout_seconds} s and still not: {description} (last value: {value!r})"
