"""What killed processes have left beside the conversations: one that was being deleted, a fork that was being made."""

from __future__ import annotations

import shutil
import time
from contextlib import suppress

from service.store.layout import DELETED, DRAFT, ConversationsRoot

_LEFT_AFTER_SECONDS = 3600.0
"""Since it got its name or something was put in; far longer than deleting or forking takes."""


def remove_leftovers(root: ConversationsRoot) -> None:
    """Blocking."""
    for path in (*root.path.glob(f"{DELETED}*"), *root.path.glob(f"{DRAFT}*")):
        with suppress(FileNotFoundError):  # its process was only slow
            if time.time() - path.stat().st_ctime > _LEFT_AFTER_SECONDS:
                shutil.rmtree(path, ignore_errors=True)
