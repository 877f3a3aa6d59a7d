"""What an operator must be told of the settings when a server starts."""

from __future__ import annotations

import structlog

from service.settings import Settings
from service.settings_errors import SettingsError

_log = structlog.get_logger(__name__)


def refuse_unserved(settings: Settings) -> None:
    """Stop where ignoring a setting would be dangerous.

    Raises:
        SettingsError: `deferred_init`: a server that should wait for its keys would serve everybody without any.
    """
    if settings.deferred_init:
        raise SettingsError("OH_DEFERRED_INIT", "not served by this version")


def announce(settings: Settings) -> None:
    """Log, once per start, what was given and is not obeyed."""
    for notice in settings.notices:
        _log.warning("setting_ignored", reason=notice)
