"""What an operator must be told of the settings when a server starts."""

from __future__ import annotations

import structlog

from service.settings import Settings

_log = structlog.get_logger(__name__)


def announce(settings: Settings) -> None:
    """Log, once per start, what was given and is not obeyed."""
    for notice in settings.notices:
        _log.warning("setting_ignored", reason=notice)
