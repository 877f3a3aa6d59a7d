"""What the environment must say before `openhands` is imported for the first time."""

from __future__ import annotations

import os

_DEFAULTS = {
    # Without it importing litellm fetches a price list over the network and leaves a retrying thread behind.
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "OPENHANDS_SUPPRESS_BANNER": "1",
    # The SDK would configure the root logger at import, with tracebacks that take seconds to render.
    "LOG_AUTO_CONFIG": "false",
    "LOG_RICH_TRACEBACKS": "false",
}


def prepare_environment() -> None:
    """Set what is not set. Blocking imports of `openhands` come after this."""
    for name, value in _DEFAULTS.items():
        os.environ.setdefault(name, value)
