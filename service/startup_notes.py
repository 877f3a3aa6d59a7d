"""What an operator must be told of the settings when a server starts."""

from __future__ import annotations

import structlog

from service.settings import Settings
from service.settings_errors import SettingsError

_log = structlog.get_logger(__name__)

_NOT_SERVED = ("webhooks", "conversation_idle_ttl_seconds", "bash_events_retention_seconds")
"""Settings of a published server's deployment that would be missed, and that this version does not act on."""


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
    for name in _NOT_SERVED:
        if getattr(settings, name) != Settings.model_fields[name].get_default(call_default_factory=True):
            _log.warning("setting_ignored", reason=f"{name}: not served by this version")
