"""Background work that goes on whatever happens to it."""

from __future__ import annotations

from collections.abc import Callable

from structlog.testing import capture_logs

from service.errors import BrokerUnavailable
from service.metrics import metrics
from service.tasks import TaskSet, repeat
from tests.waiting import wait_until_async

STEP = "step-of-the-tests"


class Work:
    """Raises what it is given, one error each time; then it is done well."""

    def __init__(self, *errors: Exception) -> None:
        self._errors = list(errors)
        self.times = 0

    async def step(self) -> None:
        self.times += 1
        if self._errors:
            raise self._errors.pop(0)


async def repeated(work: Work, is_over: Callable[[], bool]) -> list[str]:
    """What is logged while it is repeated until then."""
    tasks = TaskSet()
    with capture_logs() as lines:
        tasks.start(repeat(work.step, STEP, 0.0), STEP)
        await wait_until_async(is_over, "the work was repeated")
        await tasks.stop()
    assert all(line["exc_info"] for line in lines), "each has its traceback"
    return [line["event"] for line in lines]


def failures() -> float:
    return metrics().registry.get_sample_value("fanout_step_failures_total", {"step": STEP}) or 0.0


async def test_step_that_fails_is_logged_counted_and_taken_again() -> None:
    """Whatever it was that failed."""
    before = failures()
    work = Work(ValueError("torn"), OSError("stale"), KeyError("status"))
    assert await repeated(work, lambda: work.times > 4) == ["step_failed"] * 3
    assert failures() == before + 3


async def test_step_without_redis_is_passed_over() -> None:
    """Everybody knows about that already."""
    before = failures()
    work = Work(BrokerUnavailable(), BrokerUnavailable())
    assert await repeated(work, lambda: work.times > 3) == []
    assert failures() == before
