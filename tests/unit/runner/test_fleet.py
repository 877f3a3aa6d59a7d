"""The runners' parent at moments that no test can hit from outside."""

from __future__ import annotations

import errno
import os
from unittest.mock import patch

from service.runner.fleet import _Fleet
from service.settings import Settings
from tests.waiting import wait_until


def test_runner_that_cannot_be_started_for_now_is_tried_again(settings: Settings) -> None:
    """There may be no more processes or memory for a while; with their parent the living ones would go."""
    fleet = _Fleet(settings, 1, None)
    refused = BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
    with patch.object(os, "fork", side_effect=[refused, refused, 4711]) as fork:
        for _ in range(2):  # the first may be an accident
            fleet._fill_up()
        assert 0.0 < fleet._wait_seconds() < 1.0

        def is_there() -> bool:
            fleet._fill_up()
            return fork.call_count == 3

        wait_until(is_there, "it is started")
    assert fleet._wait_seconds() > 1000.0
