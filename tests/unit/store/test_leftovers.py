"""What killed processes have left beside the conversations is removed, and nothing else."""

from __future__ import annotations

from pathlib import Path
from unittest.mock import patch

import pytest

from service.store import leftovers
from service.store.layout import DELETED, DRAFT, ConversationsRoot
from service.store.leftovers import remove_leftovers
from tests.unit.store.conversation_files import make_conversation, put_event


@pytest.mark.parametrize("after_seconds", [3600.0, -1.0], ids=["young", "old"])
def test_only_what_is_old_and_no_conversation_is_removed(tmp_path: Path, after_seconds: float) -> None:
    """A process may still be at it."""
    kept = make_conversation(tmp_path)
    left = [make_conversation(tmp_path) for _ in range(2)]
    for directory, prefix in zip(left, (DELETED, DRAFT), strict=True):
        put_event(directory, 0)
        directory.path.rename(tmp_path / f"{prefix}{directory.path.name}-12345678")
    with patch.object(leftovers, "_LEFT_AFTER_SECONDS", after_seconds):
        remove_leftovers(ConversationsRoot(tmp_path))
    assert len(list(tmp_path.iterdir())) == (1 if after_seconds < 0 else 3)
    assert kept.base_state.exists()
