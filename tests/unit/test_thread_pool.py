"""Threads of both roles on a machine that gives no more."""

from __future__ import annotations

import asyncio

from service.blueprints.http.threads import Threads
from service.runner.agent_loop import AgentLoop
from service.runner.workers import Workers
from tests.shortages import assert_own_threads_go_on, no_more_threads


async def test_work_is_done_once_where_the_machine_gives_no_more_threads() -> None:
    """By those that there are; the caller of `submit` would hear of a failure, and send it again or close what the
    work writes to.
    """
    workers, web = Workers(4), Threads()
    done: list[int] = []
    with no_more_threads():
        for call in (workers.call, workers.call_that_waits, web.call_that_takes_long):
            await asyncio.gather(*(call(done.append, number) for number in range(8)))
    assert sorted(done) == sorted([*range(8)] * 3)
    workers.close()
    web.close()


async def test_agents_go_on_where_the_machine_gives_no_more_threads() -> None:
    agents = AgentLoop()
    await asyncio.wrap_future(agents.submit(assert_own_threads_go_on()))
    agents.stop()
