"""`goal.json`: what a conversation works for, as the runner's goal loop writes it."""

from __future__ import annotations

import json

import structlog

from service.store.layout import ConversationDirectory

_log = structlog.get_logger(__name__)

GOAL_FILE = "goal.json"


def read_goal(directory: ConversationDirectory) -> bytes | None:
    """The file, or None where no goal was ever set. Blocking."""
    try:
        return (directory.path / GOAL_FILE).read_bytes()
    except FileNotFoundError:
        return None


def has_active_goal(directory: ConversationDirectory) -> bool:
    """Whether somebody is, or was when its process died, at work for a goal; an unreadable one is logged. Blocking."""
    content = read_goal(directory)
    try:
        return content is not None and bool(json.loads(content)["status"]["active"])
    except (ValueError, KeyError, TypeError) as error:
        _log.error("unreadable_goal", file=str(directory.path / GOAL_FILE), error=repr(error))
        return False
