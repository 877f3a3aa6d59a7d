"""Switches to a stored LLM where its store is of no help."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast
from unittest.mock import patch
from uuid import uuid4

import pytest
from filelock import FileLock, Timeout
from openhands.sdk import LLM
from openhands.sdk.llm.llm_profile_store import LLMProfileStore
from openhands.sdk.utils.cipher import Cipher

from service.errors import Unavailable
from service.requests.message import Request
from service.runner.operations.switches import SwitchOperations
from service.runner.ownership.host import Host
from service.runner.workers import Workers


@pytest.fixture
def operations(tmp_path: Path) -> Iterator[SwitchOperations]:
    """Of a runner with one stored profile; what fails here never asks for the conversation."""
    LLMProfileStore(tmp_path / "profiles").save("p", LLM(model="m"))
    workers = Workers()
    yield SwitchOperations(cast(Host, None), workers, tmp_path, Cipher("key of the tests"))
    workers.close()


@pytest.mark.parametrize(
    ("operation", "body"),
    [
        ("agent.switch_profile", b'{"profile_name": "p"}'),
        ("agent.switch_llm", b'{"llm": {"model": "m", "provider_connection_id": "c"}}'),
    ],
)
async def test_store_that_another_holds_is_to_be_asked_again(
    operations: SwitchOperations, operation: str, body: bytes
) -> None:
    """As it is for whoever changes profiles."""

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise Timeout("lock")

    with patch.object(FileLock, "acquire", refuse), pytest.raises(Unavailable, match="busy"):
        await operations.table[operation](Request("1", operation, uuid4(), "", {}, body))
