"""Whether a web worker can serve, and why not."""

from __future__ import annotations

from service.blueprints.context import WebContext
from service.redis_source import RedisSource
from service.settings import Settings
from tests.waiting import wait_until_async


async def test_readiness_is_found_again_after_its_check_failed(settings: Settings, source: RedisSource) -> None:
    """Meanwhile the worker is not ready, and says so."""
    settings = settings.model_copy(update={"redis_namespace": source.namespace})
    failing = True

    def runner_failure() -> None:
        if failing:
            raise ValueError("nobody has thought of this")

    async with WebContext(settings, source, runner_failure) as web:
        await wait_until_async(lambda: web.readiness() == ["The readiness check fails"], "the check has failed")
        failing = False
        await wait_until_async(lambda: web.readiness() == ["No runner is up yet"], "the check is made again")
