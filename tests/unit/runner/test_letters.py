"""Webhook posts with a body of their own, where the receiver is away and the disk full."""

from __future__ import annotations

import errno
from collections.abc import AsyncIterator
from pathlib import Path
from unittest.mock import patch
from uuid import uuid4

import httpx
import pytest

from service.runner.webhooks import letters as letters_module
from service.runner.webhooks.letters import Letters
from service.runner.webhooks.receiver import receivers
from service.runner.workers import Workers
from service.settings import Settings
from service.settings.values import WebhookSpec
from service.store.dead_letters import DeadLetters, Letter
from service.store.layout import ConversationsRoot
from tests.unit.runner.small_disk import SmallDisk
from tests.waiting import wait_until_async


class Posting:
    """Letters of one conversation to a receiver that is away."""

    def __init__(self, directory: Path, client: httpx.AsyncClient, workers: Workers) -> None:
        settings = Settings(webhooks=[WebhookSpec(base_url="http://127.0.0.1:9", num_retries=0)])
        (self._receiver,) = receivers(settings, client)
        self.dead = DeadLetters(directory / "dead", fsync=False)
        self.letters = Letters([self._receiver], ConversationsRoot(directory), self.dead, workers)
        self._conversation_id = uuid4()

    def put(self, *names: str) -> None:
        for name in names:
            self.letters.put(Letter(name, self._receiver.id, self._conversation_id, "/conversations", body="{}"))

    async def wait_dead(self, *names: str) -> None:
        def are_dead() -> bool:
            return [each.letter.delivery_id for each in self.dead.page(None, 10) or ()] == list(names)

        await wait_until_async(are_dead, f"{names} are given up")


@pytest.fixture
async def posting(tmp_path: Path) -> AsyncIterator[Posting]:
    workers = Workers()
    async with httpx.AsyncClient(trust_env=False) as client:
        posting = Posting(tmp_path, client, workers)
        yield posting
        await posting.letters.close()
    workers.close()


async def test_dead_letters_that_do_not_fit_are_kept_when_there_is_room(posting: Posting, tmp_path: Path) -> None:
    """All that wait, and when too many do the oldest of these goes, and no other."""
    with SmallDisk(tmp_path) as disk, patch.object(letters_module, "_WAITING_LETTERS", 2):
        posting.put("a")
        await disk.wait_refused(1)
        posting.put("b", "c", "d")
        disk.is_full = False
        await posting.wait_dead("a", "c", "d")


async def test_dead_letter_that_can_never_be_kept_takes_no_other_with_it(posting: Posting, tmp_path: Path) -> None:
    with SmallDisk(tmp_path, lambda name: "-a." in name, number=errno.EACCES):
        posting.put("a", "b")
        await posting.wait_dead("b")
